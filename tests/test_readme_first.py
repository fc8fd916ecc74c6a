"""The README's first program, as printed: nothing is shortened."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
(FIRST, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_it_names_its_seed_and_prints_solved_only_if_it_is() -> None:
    assert "seed=1" in FIRST
    assert '"solved" if run.solved else "not solved"' in FIRST
    assert "hp" not in FIRST  # no hyper-parameter is named


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_solves_its_task(seed: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST.replace("seed=1", f"seed={seed}")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("solved"), done.stdout
