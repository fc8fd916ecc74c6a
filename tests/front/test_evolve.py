"""One line to begin, and what a person does with the run afterwards."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

from agilerl import CheckpointError, ConfigError, EnvError, Run, evolve, initialPopulation
from agilerl.runs.evolve import command_of, fresh_folder, newest, resume, seconds_of
from agilerl.runs.run_folder import (
    SUMMARY,
    environment_of,
    load_elite,
    read_rows,
    read_times,
    read_yaml,
)
from agilerl.runs.run_settings import settings_of
from agilerl.training.run_state import RunState

SMALL: dict[str, Any] = {"steps": 5000, "seed": 3, "workers": 0, "verbose": False}


class Choice(gym.Env[Any, Any]):
    """Ten steps; action 1 is worth 1 and action 0 nothing."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = 10
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return np.ones(1, np.float32), float(action), self.left == 0, False, {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return evolve("CartPole-v1", out=tmp_path_factory.mktemp("runs"), **SMALL)


def without_time(rows: Any) -> Any:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_run_is_its_elite_population_history_and_folder(finished: Run) -> None:
    assert 5000 <= finished.global_steps < 8000  # the first boundary at or beyond
    assert len(finished.population) == 4
    assert finished.elite.algo == "DQN"
    assert {row["index"] for row in finished.history} >= {0, 1, 2, 3}
    assert finished.solved is False
    assert len(finished.evaluate(7).returns) == 7
    assert without_time(read_rows(finished.path)) == without_time(finished.history)
    again = load_elite(finished.path)
    state = np.zeros((1, 4), np.float32)
    assert again.getAction(state).tolist() == finished.elite.getAction(state).tolist()


def test_the_folder_knows_how_long_evaluation_took(finished: Run) -> None:
    times = read_times(finished.path)
    assert 0 < times["evaluation"] < times["total"]


def test_every_agent_starts_with_values_of_its_own(finished: Run) -> None:
    first = [row for row in finished.history if row["generation"] == 0]
    for name in ("lr", "batch_size", "tau", "architecture"):
        assert len({row[name] for row in first}) == 4, name
    assert all(1e-5 <= row["lr"] <= 1e-2 for row in first)


def test_the_elite_s_file_builds_an_agent_of_its_settings(finished: Run) -> None:
    summary = read_yaml(finished.path, "elite/elite.yaml")
    (agent,) = initialPopulation(**summary["initialPopulation"])
    for name, value in finished.elite.settings().items():
        if name == "net_config":
            assert agent.architecture == finished.elite.architecture
        elif isinstance(value, float):
            assert getattr(agent, name) == pytest.approx(value, rel=1e-8), name
        else:
            assert agent.settings()[name] == value, name
    assert summary["schedule"][0]["global_steps"] == 0


def test_the_same_seed_gives_the_same_run(finished: Run, tmp_path: Path) -> None:
    again = evolve("CartPole-v1", out=tmp_path, **SMALL)
    assert without_time(again.history) == without_time(finished.history)


def test_a_run_that_goes_on_equals_one_that_was_never_stopped(tmp_path: Path) -> None:
    short = evolve("CartPole-v1", out=tmp_path / "a", **{**SMALL, "steps": 3000})
    resumed = short.resume(steps=9000, workers=0, verbose=False)
    whole = evolve("CartPole-v1", out=tmp_path / "b", **{**SMALL, "steps": 9000})
    assert resumed.path == short.path
    # the short run may have been evaluated once more where it ended: that is no part of its state
    assert without_time(resumed.history) == without_time(whole.history)
    assert newest(tmp_path / "a", "CartPole-v1") == short.path
    done = evolve("CartPole-v1", out=tmp_path / "a", resume=True, steps=9000, verbose=False)
    assert without_time(done.history) == without_time(whole.history)


def test_a_class_of_one_s_own_and_a_target(tmp_path: Path) -> None:
    run = evolve(Choice, target=10, steps=60_000, seed=1, out=tmp_path, workers=0, verbose=False)
    assert run.solved
    assert run.evaluation.mean == 10.0
    assert run.global_steps < 60_000
    assert run.path.name.startswith("Choice-DQN-")
    assert resume(run.path, env=Choice, steps=100, verbose=False).evaluation.mean == 10.0


def test_a_budget_is_the_time_until_it_returns(tmp_path: Path) -> None:
    start = time.perf_counter()
    run = evolve("CartPole-v1", budget="4s", seed=1, out=tmp_path, workers=0, verbose=False)
    assert 2.0 < time.perf_counter() - start < 30.0  # a loaded machine is slow, not endless
    assert run.history


def test_a_budget_of_a_run_that_goes_on_is_from_now_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evolve("CartPole-v1", out=tmp_path, **SMALL)
    load = RunState.load_state_dict

    def after_two_hours(self: RunState, state: Any) -> None:
        load(self, {**state, "seconds": 7200.0})

    monkeypatch.setattr(RunState, "load_state_dict", after_two_hours)
    more = resume(run.path, budget="60s", steps=run.global_steps + 3000, verbose=False)
    assert more.global_steps >= run.global_steps + 3000
    assert more.history[-1]["seconds"] > 7200.0


@pytest.mark.parametrize("stopped", [False, True])
def test_an_evaluation_at_the_end_has_what_is_left_of_a_budget(
    stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sleepy(Choice):
        def reset(self, **given: Any) -> Any:
            time.sleep(0.1)
            return super().reset(**given)

    def stop(generation: Any) -> None:
        if stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("agilerl.runs.evolve.LAST_EVALUATION", 0.0)
    limits: dict[str, Any] = {"budget": "1h"} if stopped else {"budget": "2s", "steps": 100}
    more: dict[str, Any] = {"workers": 0, "verbose": False, "seed": 1, "callbacks": [stop]}
    run = evolve(Sleepy, out=tmp_path, **limits, **more)
    assert 8 <= len(run.evaluation.returns) < 100
    facts = read_yaml(run.path, SUMMARY)
    assert facts["evaluation"]["episodes"] == len(run.evaluation.returns)


def test_what_the_user_gives_goes_before_the_defaults(tmp_path: Path) -> None:
    run = evolve(
        "Pendulum-v1",
        init_hp={"POP_SIZE": 2, "LR": 1e-3, "BATCH_SIZE": (32, 33)},
        net_config={"arch": "mlp", "h_size": [16]},
        mutation_params={"ARCH_MUT": 0.0},
        steps=2000,
        seed=1,
        out=tmp_path,
        workers=0,
        verbose=False,
        callbacks=[lambda generation: True],
    )
    assert {row["lr"] for row in run.history} == {1e-3}
    assert {row["batch_size"] for row in run.history} <= {32, 33}
    assert run.elite.algo == "DDPG"
    assert "16" in run.elite.architecture
    settings = read_yaml(run.path, "settings.yaml")
    assert "BATCH_SIZE" in settings["command"]
    assert "ARCH_MUT=0.0" in settings["command"]


def test_the_command_repeats_the_run() -> None:
    settings = settings_of("CartPole-v1", None, {"LR": (1e-4, 1e-3)})
    settings |= {"seed": 7, "steps": 5000, "target": 475.0}
    found = command_of(settings, "10min", {"LR": (1e-4, 1e-3)}, {})
    assert found == (
        "agilerl train CartPole-v1 'LR={high: 0.001, low: 0.0001}' --algo DQN --seed 7"
        " --steps 5000 --target 475 --budget 10min"
    )


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    found = [fresh_folder(tmp_path, "run").name for _ in range(3)]
    assert found == ["run", "run-2", "run-3"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="out"):
        fresh_folder(tmp_path / "file", "run")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10min", 600), ("2h", 7200), (5, 5), ("1.5 h", 5400)]
)
def test_durations(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["ten", "10 weeks", "-5s", "", "0s"])
def test_a_duration_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="'90s', '10min' or '2h'"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("env", "changes", "error", "message"),
    [
        (Choice(), {}, ConfigError, "pass the class"),
        ("NoSuchEnv-v0", {}, EnvError, "NoSuchEnv"),
        ("Blackjack-v1", {}, EnvError, "FlattenObservation"),
        ("CartPole-v1", {"algo": "DQM"}, ConfigError, "DQN"),
        ("CartPole-v1", {"algo": "DDPG"}, EnvError, "action space"),
        ("CartPole-v1", {"init_hp": {"LRR": 1}}, ConfigError, "LRR"),
        ("CartPole-v1", {"init_hp": {"EPISODES": 1}}, ConfigError, "arguments for"),
        ("CartPole-v1", {"mutation_params": {"ARCH": 1}}, ConfigError, "ARCH"),
        ("CartPole-v1", {"budget": "soon"}, ConfigError, "budget"),
        ("CartPole-v1", {"resume": True}, CheckpointError, "no run of CartPole-v1"),
        ("CartPole-v1", {"steps": 0}, ConfigError, "total_steps"),
    ],
)
def test_mistakes_are_named(
    env: Any, changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        evolve(env, out=tmp_path, **{**SMALL, **changes})


def test_the_file_of_a_stranger_imports_no_module(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"env": "antigravity:Fly-v0"}))
    with pytest.raises(CheckpointError, match="import a module"):
        environment_of(tmp_path)
    (tmp_path / "settings.yaml").write_text("a: &a [1]\nb: *a")
    with pytest.raises(CheckpointError, match="can't be read"):
        environment_of(tmp_path)


def test_a_retrained_agent_follows_the_schedule(finished: Run) -> None:
    found = finished.retrain(2, verbose=False)
    assert len(found.seeds) == len(found.schedule) == len(found.final) == 2
    assert "| mean (95 % interval) |" in (finished.path / "retrain.md").read_text()


def test_an_episode_is_filmed(finished: Run, tmp_path: Path) -> None:
    from PIL import Image

    path = finished.play(seed=1)
    assert path == finished.path / "elite" / "elite.gif"
    with Image.open(path) as picture:
        assert picture.n_frames >= 5  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"\.gif or \.mp4"):
        finished.play(tmp_path / "film.avi")
