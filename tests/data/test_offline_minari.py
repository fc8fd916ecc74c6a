"""Minari data sets give the same transitions as an HDF5 file of the same episodes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agilerl.data.offline_dataset import OfflineDataset, load
from agilerl.errors import ConfigError, DatasetError

minari = pytest.importorskip("minari")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
EpisodeBuffer = minari.data_collector.EpisodeBuffer


def episodes(env: gym.Env[Any, Any], count: int) -> list[dict[str, Any]]:
    """Play ``count`` episodes, some cut after 7 steps."""
    env.action_space.seed(0)
    played = []
    for episode in range(count):
        state, _ = env.reset(seed=episode)
        record: dict[str, Any] = {"states": [state], "actions": [], "rewards": [], "ends": []}
        while True:
            action = env.action_space.sample()
            state, reward, terminated, _, _ = env.step(action)
            cut = episode % 3 == 0 and len(record["actions"]) == 6 and not terminated
            record["states"].append(state)
            record["actions"].append(action)
            record["rewards"].append(reward)
            record["ends"].append((terminated, cut))
            if terminated or cut:
                break
        played.append(record)
    return played


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Return the id of a Minari data set, and an HDF5 file of the same episodes."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    env = gym.make("CartPole-v1")
    played = episodes(env, 12)
    buffers = [
        EpisodeBuffer(
            observations=np.array(e["states"]),
            actions=np.array(e["actions"]),
            rewards=np.array(e["rewards"]),
            terminations=np.array([t for t, _ in e["ends"]]),
            truncations=np.array([c for _, c in e["ends"]]),
        )
        for e in played
    ]
    name = "cartpole/offline-v0"
    minari.create_dataset_from_buffers(name, buffers, env=env, data_format="hdf5")
    ends = np.concatenate([e["ends"] for e in played])
    columns = {
        "observations": np.concatenate([e["states"][:-1] for e in played]),
        "next_observations": np.concatenate([e["states"][1:] for e in played]),
        "actions": np.concatenate([e["actions"] for e in played]),
        "rewards": np.concatenate([e["rewards"] for e in played]),
        "terminals": ends[:, 0],
        "timeouts": ends[:, 1],
    }
    path = tmp_path / "same.h5"
    OfflineDataset.from_dict(columns).save(path)
    return name, path


def test_the_transitions_are_the_same(datasets: tuple[str, Path]) -> None:
    name, path = datasets
    env = gym.make("CartPole-v1")
    ours, theirs = OfflineDataset.from_hdf5(path, env), OfflineDataset.from_minari(name, env)
    for field in (
        "observations",
        "actions",
        "rewards",
        "next_observations",
        "terminated",
        "ended",
    ):
        assert np.array_equal(getattr(ours, field), getattr(theirs, field)), field
    assert theirs.report.mean_return == ours.report.mean_return
    assert (ours.ended & ~ours.terminated).sum() == 4
    assert theirs.attributes["env_id"] == "CartPole-v1"
    assert np.array_equal(load(minari.load_dataset(name), env).actions, ours.actions)


def test_one_that_is_not_there_is_named(datasets: tuple[str, Path]) -> None:
    with pytest.raises(DatasetError, match="cartpole/nothing-v0"):
        OfflineDataset.from_minari("cartpole/nothing-v0")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ConfigError, match=r"agilerl\[minari\]"):
        OfflineDataset.from_minari("cartpole/offline-v0")


def test_an_episode_without_a_step_is_left_out(datasets: tuple[str, Path]) -> None:
    name, _ = datasets
    found = minari.load_dataset(name)

    class WithEmpty:
        """The same data set, with an episode that ended before it began."""

        def __getattr__(self, attribute: str) -> Any:
            return getattr(found, attribute)

        def iterate_episodes(self) -> Any:
            *_, last = found.iterate_episodes()
            none = slice(0, 0)
            yield dataclasses.replace(
                last,
                observations=last.observations[:1],
                **{
                    key: getattr(last, key)[none]
                    for key in ("actions", "rewards", "terminations", "truncations")
                },
            )
            yield from found.iterate_episodes()

    whole, rest = OfflineDataset.from_minari(found), OfflineDataset.from_minari(WithEmpty())
    assert np.array_equal(whole.observations, rest.observations)
    assert np.array_equal(whole.terminated, rest.terminated)
