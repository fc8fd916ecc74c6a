"""Recording data sets: the rows, what is noted about them, and the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from agilerl.algorithms.dqn import DQN
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.data import collect
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import CheckpointError, EnvError
from tests.envs import CorridorEnv, CountingEnv, OwnVectorEnv, PayEnv, ReachEnv, reward_of, script

Array = np.ndarray[Any, np.dtype[Any]]
COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")


def cycle(states: Array) -> Array:
    return (states[:, 2] % 5).astype(np.int64)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("steps", [1, 7, 40, 300])
def test_every_row_is_the_true_transition_and_episodes_follow_each_other(
    mode: AutoresetMode, steps: int
) -> None:
    data = collect.collect(OwnVectorEnv(mode), cycle, steps)
    assert [len(data[name]) for name in COLUMNS] == [steps] * 6
    expected_start = None
    for row in range(steps):
        state, reward, action, successor, terminated, cut = (
            data[name][row] for name in ("observations", "rewards", "actions", *COLUMNS[3:])
        )
        identity, episode, time = (int(x) for x in state[:3])
        length, terminates = script(identity, episode)
        assert reward == reward_of(identity, episode, time, action)
        assert successor.tolist() == [identity, episode, time + 1, action]
        assert terminated == (terminates and time == length - 1)
        assert cut == (not terminates and time == length - 1)
        if expected_start is not None:
            assert [identity, episode, time] == expected_start or time == 0
        over = time == length - 1
        expected_start = None if over else [identity, episode, time + 1]
        if over and row + 1 < steps:
            assert data["observations"][row + 1][2] == 0


def test_only_the_last_episode_may_be_unfinished() -> None:
    data = collect.collect(OwnVectorEnv(AutoresetMode.SAME_STEP), cycle, 101)
    dataset = OfflineDataset.from_dict(data)
    assert len(dataset) == 101
    starts = np.flatnonzero(dataset.observations[:, 2] == 0)
    assert dataset.ended[starts[1:] - 1].all()


def test_long_episodes_are_recorded_as_often_as_short_ones() -> None:
    """What would be stored of episodes that end first would mostly be short ones."""
    env = InProcessVectorEnv([PayEnv(length) for length in (2, 60)])
    data = collect.collect(env, lambda states: np.zeros(2, np.int64), 240)
    lengths = np.diff(np.flatnonzero(data["terminals"]), prepend=-1)
    assert (lengths == 2).sum() * 2 == (lengths == 60).sum() * 60 == 120


def test_an_episode_that_never_ends_is_cut_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "PATIENCE", 5)
    env = InProcessVectorEnv([PayEnv(10**9), PayEnv(3), PayEnv(3)])
    data = collect.collect(env, lambda states: np.zeros(3, np.int64), 45)  # a share is 15
    assert np.flatnonzero(data["timeouts"]).tolist() == [29]
    assert np.flatnonzero(data["terminals"]).tolist() == [32, 35, 38, 41, 44]


def test_spaces_that_count_from_one_are_recorded_from_zero() -> None:
    env = InProcessVectorEnv([CorridorEnv(start=1)])
    policy = collect.random_policy(env, 0)
    data = collect.collect(env, policy, 50)
    assert set(data["actions"].tolist()) == {0, 1}
    assert data["observations"].min() == 0


def test_random_torques_cover_the_bounds() -> None:
    env = InProcessVectorEnv([ReachEnv() for _ in range(4)])
    actions = collect.collect(env, collect.random_policy(env, 0), 400)["actions"]
    assert actions.shape == (400, 1)
    assert actions.dtype == np.float32
    assert -2 <= actions.min() < -1.9
    assert 2.9 < actions.max() <= 3


def test_progress_is_told_every_row_once() -> None:
    told: list[int] = []
    collect.collect(OwnVectorEnv(AutoresetMode.NEXT_STEP), cycle, 50, progress=told.append)  # type: ignore[arg-type]
    assert sum(told) == 50
    assert min(told) >= 0


def agent_file(path: Path) -> Path:
    DQN((4,), 2, False, seed=3).saveCheckpoint(path)
    return path


def test_a_saved_agent_acts_with_epsilon(tmp_path: Path) -> None:
    env = InProcessVectorEnv([gym.make("CartPole-v1") for _ in range(8)])
    path = agent_file(tmp_path / "a.pt")
    states = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    greedy = collect.saved_policy(path, env, 0.0, 0)(states)
    assert (greedy == DQN.load(path).getAction(states)).all()
    explored = collect.saved_policy(path, env, 0.5, 0)(states)
    assert 0.2 < (explored != greedy).mean() < 0.3  # half of the random actions are greedy


def test_a_saved_agent_of_another_environment_is_refused(tmp_path: Path) -> None:
    path = agent_file(tmp_path / "a.pt")
    with pytest.raises(EnvError):
        collect.saved_policy(path, InProcessVectorEnv([CountingEnv()]), 0.0, 0)
    with pytest.raises(CheckpointError, match="no such"):
        collect.saved_policy(tmp_path / "none.pt", InProcessVectorEnv([PayEnv()]), 0.0, 0)


def run(*arguments: str) -> int:
    return collect.main([*arguments, "--episodes", "20", "--quiet"])


def test_the_command_writes_rows_and_what_is_known_about_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "random.h5"
    assert run("--env", "CartPole-v1", "--steps", "1000", "--seed", "4", "--out", str(path)) == 0
    with h5py.File(path, "r") as file:
        assert file["observations"].shape == (1000, 4)
        about = dict(file.attrs)
    assert about["env_id"] == "CartPole-v1"
    assert about["policy"] == "random"
    assert about["seed"] == 4
    assert 15 < about["policy_mean_return"] < 35
    assert {"agilerl_version", "gymnasium_version", "numpy_version"} <= set(about)
    dataset = OfflineDataset.from_hdf5(path, gym.make("CartPole-v1"))
    assert dataset.report.mean_return is not None
    assert 15 < dataset.report.mean_return < 35
    assert [p.name for p in path.parent.iterdir()] == ["random.h5"]


def test_one_seed_records_the_same_file_twice(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        path = tmp_path / f"{name}.h5"
        assert run("--steps", "300", "--seed", seed, "--out", str(path)) == 0
        files.append(OfflineDataset.from_hdf5(path))
    assert np.array_equal(files[0].observations, files[1].observations)
    assert files[0].attributes == files[1].attributes
    assert not np.array_equal(files[0].observations, files[2].observations)


def test_the_command_notes_the_agent_that_acted(tmp_path: Path) -> None:
    agent, path = agent_file(tmp_path / "elite.pt"), tmp_path / "mix.h5"
    flags = ("--policy", str(agent), "--epsilon", "0.3", "--steps", "200", "--out", str(path))
    assert run(*flags) == 0
    about = OfflineDataset.from_hdf5(path).attributes
    assert (about["policy"], about["epsilon"]) == ("elite.pt", 0.3)


def test_a_failure_leaves_the_file_that_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.h5"
    path.write_text("old")
    assert run("--env", "NoSuchEnv-v0", "--out", str(path)) == 2
    assert "NoSuchEnv-v0" in capsys.readouterr().err
    assert path.read_text() == "old"
