import re
from pathlib import Path

import pytest

import agilerl

PAGE = Path(agilerl.__file__).parents[1] / "docs" / "language_environment.md"


def test_the_page_on_language_environments_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {"__name__": "docs"})
    printed = capsys.readouterr().out
    assert re.search(r"^\d,\d:\d\+ \d,\d:\d\+ \d,\d:\d\+ 3\.0$", printed, re.MULTILINE)
    assert "100 games: win rate" in printed
    assert "1000 games: win rate" in printed
    assert (tmp_path / "larger_digit.h5").is_file()
