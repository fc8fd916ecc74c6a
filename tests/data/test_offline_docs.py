from __future__ import annotations

import re
from pathlib import Path

import pytest

import agilerl

PAGE = Path(agilerl.__file__).parents[1] / "docs" / "offline_data.md"


def test_the_page_on_offline_data_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {"__name__": "docs"})
    report, policy, fitnesses, arrays, stored = capsys.readouterr().out.splitlines()
    assert "random.h5: 5,000 of 5,000 rows kept" in report
    assert re.fullmatch(r"random \d\d\.\d+", policy)
    assert re.fullmatch(r"\[\d+, \d+\]", fitnesses)
    assert "4 of 5 rows kept" in arrays
    assert "1 dropped: cut by a time limit" in arrays
    assert stored == "5000"
