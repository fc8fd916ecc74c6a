"""The measuring of other libraries: the clock, the recipes, the making of environments."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.peers import measure, venvs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0] / 2)  # another process has the rest
    return now


def test_the_meter_leaves_out_the_warm_up_and_stops_at_the_deadline(clock: list[float]) -> None:
    meter = measure.Meter(seconds=2.0, warm_up=3)
    meter.step(16, 3)  # warm: the clock starts here
    for _ in range(3):
        clock[0] += 0.5
        meter.step(16, 1)
    clock[0] += 0.5
    with pytest.raises(measure.TimeUp):
        meter.step(16, 1)
    assert meter.rates() == {
        "seconds": 2.0,
        "processor_seconds": 1.0,
        "env_steps": 64,
        "learns": 4,
        "env_steps_per_s": 32.0,
        "learns_per_s": 2.0,
    }


def test_a_loop_that_ends_before_it_is_warm_has_no_rates(clock: list[float]) -> None:
    meter = measure.Meter(seconds=2.0, warm_up=3)
    meter.step(16, 2)
    clock[0] += 5.0
    meter.step(16, 0)
    with pytest.raises(RuntimeError, match="warm-up"):
        meter.rates()


def test_milliseconds_is_the_median_processor_time_of_the_calls(clock: list[float]) -> None:
    durations = iter([0.0, 0.0] + [0.010] * 4 + [5.0] * 2 + [0.010] * 4)

    def call() -> None:
        clock[0] += next(durations)

    assert measure.milliseconds(call, seconds=4.0, chunk=2) == pytest.approx(5.0)


def test_a_report_is_one_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    measure.report("peer", "train", ["numpy"], env_steps_per_s=1.5)
    (line,) = capfd.readouterr().out.splitlines()
    said = json.loads(line)
    assert said["peer"] == "peer"
    assert said["env_steps_per_s"] == 1.5
    assert set(said["versions"]) == {"python", "numpy"}


@pytest.mark.parametrize("peer", venvs.RECIPES)
def test_every_peer_installs_the_same_torch_first_and_has_a_runner(peer: str) -> None:
    assert venvs.RECIPES[peer][0] == venvs.TORCH
    assert Path(venvs.__file__).with_name(f"run_{peer}.py").is_file()


def test_an_environment_is_made_once_and_again_when_its_recipe_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def fake_run(command: list[str], **_: object) -> None:
        commands.append(command)
        (tmp_path / "sb3").mkdir(exist_ok=True)

    monkeypatch.setattr(venvs, "HOME", tmp_path)
    monkeypatch.setattr(subprocess, "run", fake_run)

    assert venvs.ensure("sb3") == tmp_path / "sb3" / "bin" / "python"
    assert len(commands) == 1 + len(venvs.RECIPES["sb3"])
    venvs.ensure("sb3")
    assert len(commands) == 1 + len(venvs.RECIPES["sb3"])

    monkeypatch.setitem(venvs.RECIPES, "sb3", (venvs.TORCH,))
    venvs.ensure("sb3")
    assert len(commands) == 1 + len(venvs.RECIPES["sb3"]) + 3


def test_a_failed_install_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_run(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(venvs, "HOME", tmp_path)
    monkeypatch.setattr(subprocess, "run", failing_run)
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            venvs.ensure("sb3")
