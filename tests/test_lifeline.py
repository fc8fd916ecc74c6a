"""Signs of life, and a common end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from agilerl import lifeline

ROOT = Path(__file__).parents[1]


def test_beats_are_counted_where_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    lifeline.beat()  # nobody does
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), lifeline.BEATS)
        watched = lifeline.counter_in(file.fileno())
        monkeypatch.setattr(lifeline, "_beats", None)
        lifeline.beat_into(file.fileno())
        for _ in range(3):
            lifeline.beat()
    assert watched[0] == 3


def test_a_process_ends_with_its_parent_even_if_it_began_too_late() -> None:
    program = "from agilerl.lifeline import die_with; import time; die_with(1); time.sleep(60)"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 1  # the process 1 is not its parent
    assert time.monotonic() - start < 20


def test_it_loads_nothing_heavy() -> None:
    program = "import sys, agilerl.lifeline; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
