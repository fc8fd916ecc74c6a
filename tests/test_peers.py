"""The measuring of other libraries: the clock, the recipes, the making of environments."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.training.jobs import Evaluation
from agilerl.training.run import Plan
from agilerl.training.tasks import OnlineTask, mean_and_error
from benchmarks.peers import confirm, measure, venvs


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


@settings(max_examples=300, deadline=None)
@given(
    returns=st.lists(st.integers(-300, 500).map(float), min_size=10, max_size=100),
    constant=st.booleans(),
    target=st.integers(-300, 500).map(float),
)
def test_a_peer_is_confirmed_by_the_rule_that_holds_for_a_run(
    returns: list[float], constant: bool, target: float
) -> None:
    """``confirm.py`` knows nothing of the project, so that it is compared with it here."""
    returns = [returns[0]] * len(returns) if constant else returns
    task = OnlineTask.__new__(OnlineTask)
    task.confidence = confirm.CONFIDENCE
    assert confirm.hopeful(returns, target) == task._hopeful(np.array(returns), target)
    plan = Plan.__new__(Plan)  # frozen
    vars(plan).update(target=target, confidence=confirm.CONFIDENCE)
    mean, se = mean_and_error(np.array(returns))
    assert confirm.reached(returns, target) == plan.reached(Evaluation(mean, 1, se))


def test_a_hopeless_confirmation_ends_early_and_a_good_one_takes_all_episodes() -> None:
    played: list[int] = []

    def play(value: float) -> Callable[[int], list[float]]:
        def episodes(count: int) -> list[float]:
            played.append(count)
            return [value + i % 2 for i in range(count)]

        return episodes

    assert confirm.confirm(play(10.0), 475.0) == (False, 10.5)
    assert played == [confirm.LOOK]
    solved, mean = confirm.confirm(play(480.0), 475.0)
    assert solved
    assert mean == 480.5
    assert sum(played[1:]) == confirm.EPISODES
