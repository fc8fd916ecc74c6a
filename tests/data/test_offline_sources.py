"""Offline data sets: where they come from, and where they go."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.data import offline_dataset
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import ConfigError, DatasetError
from tests.data.offline_cases import (
    EPISODES,
    FIELDS,
    Array,
    equal,
    save,
    scripted,
)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read few rows at once, so that every border between blocks is met."""
    monkeypatch.setattr("agilerl.data.columns.BLOCK_BYTES", 16)


# ------------------------------------------------------------------------------------ the sources


@pytest.mark.parametrize("options", [{}, {"chunks": (4,)}, {"compression": "gzip"}])
def test_the_same_data_comes_from_a_path_an_open_file_and_a_dict(
    tmp_path: Path, options: dict[str, Any], small_blocks: None
) -> None:
    data = scripted()
    if "chunks" in options:
        data = {name: rows for name, rows in data.items() if name != "observations"}
    path = save(tmp_path / "a.h5", data, **options)
    if "chunks" in options:
        with h5py.File(path, "a") as file:
            file.create_dataset("observations", data=scripted()["observations"], chunks=(3, 1))
    expected = OfflineDataset.from_dict(scripted())
    assert equal(OfflineDataset.from_hdf5(path), expected)
    assert equal(OfflineDataset.from_hdf5(str(path)), expected)
    with h5py.File(path, "r") as file:
        assert equal(OfflineDataset.from_hdf5(file), expected)
        assert file["rewards"].shape == (13,)  # it is still open


def test_common_names_are_understood() -> None:
    plain = scripted(EPISODES, next_observations=True)
    names = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
    other = dict(zip(names, plain.values(), strict=True))
    assert equal(OfflineDataset.from_dict(other), OfflineDataset.from_dict(plain))


def test_columns_of_one_number_may_have_a_second_axis() -> None:
    data = scripted()
    tall = {k: v[:, None] if v.ndim == 1 else v for k, v in data.items()}
    assert equal(OfflineDataset.from_dict(tall), OfflineDataset.from_dict(data))


def test_images_stay_uint8_and_float64_becomes_float32() -> None:
    data = scripted()
    data["observations"] = np.zeros((13, 4, 5, 3), np.uint8)
    assert OfflineDataset.from_dict(data).observations.dtype == np.uint8
    data["observations"] = np.zeros((13, 2), np.float64)
    assert OfflineDataset.from_dict(data).observations.dtype == np.float32


def test_continuous_actions_of_one_number_are_rows_of_one() -> None:
    data = scripted()
    data["actions"] = np.linspace(-1, 1, 13)
    assert OfflineDataset.from_dict(data).actions.shape == (10, 1)


@pytest.mark.parametrize("next_observations", [True, False])
def test_what_is_saved_comes_back(tmp_path: Path, next_observations: bool) -> None:
    data = scripted(next_observations=next_observations)
    dataset = OfflineDataset.from_dict(data, attributes={"env_id": "Scripted-v0", "seed": 3})
    path = tmp_path / "new" / "a.h5"
    dataset.save(path, policy="script")
    again = OfflineDataset.from_hdf5(path)
    assert equal(again, dataset)
    assert again.attributes == {"env_id": "Scripted-v0", "seed": 3, "policy": "script"}


def test_the_readme_loop_reads_what_is_saved(tmp_path: Path) -> None:
    episodes = tuple((4, "terminal") for _ in range(6))
    OfflineDataset.from_dict(scripted(episodes)).save(tmp_path / "a.h5")
    memory = ReplayBuffer(2, 100, FIELDS)
    with h5py.File(tmp_path / "a.h5", "r") as dataset:
        for i in range(dataset["rewards"].shape[0] - 1):
            memory.save2memory(
                dataset["observations"][i],
                dataset["actions"][i],
                dataset["rewards"][i],
                dataset["observations"][i + 1],
                bool(dataset["terminals"][i]),
            )
    state, action, reward, next_state, done = (x.numpy() for x in memory.sample(23))
    alive = done[:, 0] == 0
    assert (next_state[alive] == state[alive] + [0, 1]).all()
    assert (reward[:, 0] == 10 * state[:, 0] + state[:, 1]).all()
    assert (action[:, 0] == state[:, 1] % 2).all()
    assert done.sum() == 5


def test_a_recorded_replay_buffer_gives_its_transitions_back() -> None:
    dataset = OfflineDataset.from_dict(scripted(next_observations=True))
    memory = ReplayBuffer(2, 8, FIELDS)
    for start in range(0, 13, 2):  # it wraps around: the first five are overwritten
        rows = slice(start, min(start + 2, 13))
        memory.save2memoryVectEnvs(
            dataset.observations[rows],
            dataset.actions[rows],
            dataset.rewards[rows],
            dataset.next_observations[rows],
            dataset.terminated[rows],
        )
    again = OfflineDataset.from_replay_buffer(memory)
    for name in ("observations", "actions", "rewards", "next_observations", "terminated"):
        assert np.array_equal(getattr(again, name), getattr(dataset, name)[5:]), name
    assert again.actions.dtype == np.int64
    with pytest.raises(DatasetError, match="empty"):
        OfflineDataset.from_replay_buffer(ReplayBuffer(2, 8, FIELDS))


# -------------------------------------------------------------------------------- filling a buffer


def stored(memory: ReplayBuffer) -> Array:
    return memory._fields[0][: len(memory)]


def test_a_buffer_is_filled_with_one_call() -> None:
    dataset = OfflineDataset.from_dict(scripted())
    memory = ReplayBuffer(2, 50, FIELDS)
    calls: list[int] = []
    store = memory.save2memoryVectEnvs
    memory.save2memoryVectEnvs = lambda *f: (calls.append(len(f[0])), store(*f))[1]  # type: ignore[method-assign]
    assert dataset.fill(memory) == 10
    assert calls == [10]
    for field, rows in zip(
        memory._fields,
        (
            dataset.observations,
            dataset.actions,
            dataset.rewards,
            dataset.next_observations,
            dataset.terminated,
        ),
        strict=True,
    ):
        assert np.array_equal(field[:10].reshape(rows.shape), rows)


def test_rows_that_do_not_fit_are_counted_and_the_cure_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = OfflineDataset.from_dict(scripted())
    memory = ReplayBuffer(2, 4, FIELDS)
    with caplog.at_level(logging.WARNING, "agilerl"):
        assert dataset.fill(memory) == 4
    assert "6 of 10 transitions left out" in caplog.text
    assert "all_rows=True" in caplog.text
    kept = stored(memory).tolist()
    assert kept == dataset.observations[[0, 3, 6, 9]].tolist()  # from all over the data


def test_transitions_that_are_overwritten_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    memory = ReplayBuffer(2, 14, FIELDS)
    for _ in range(6):
        filled(memory)
    with caplog.at_level(logging.WARNING, "agilerl"):
        assert OfflineDataset.from_dict(scripted()).fill(memory) == 10
    assert "2 of the 6 transitions that the replay buffer held are overwritten" in caplog.text


def test_all_rows_enlarges_an_empty_buffer_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    dataset = OfflineDataset.from_dict(scripted())
    memory = ReplayBuffer(2, 4, FIELDS)
    assert dataset.fill(memory, all_rows=True) == 10
    assert np.array_equal(stored(memory), dataset.observations)
    assert caplog.text == ""
    with pytest.raises(ConfigError, match=r"all_rows.*empty"):
        dataset.fill(memory=filled(ReplayBuffer(2, 4, FIELDS)), all_rows=True)


def filled(memory: ReplayBuffer) -> ReplayBuffer:
    memory.save2memory(np.zeros(2, np.float32), 0, 0.0, np.zeros(2, np.float32), False)
    return memory


class ImageEnv(gym.Env[Array, np.int64]):
    observation_space = spaces.Box(0, 255, (4, 5, 3), np.uint8)
    action_space = spaces.Discrete(2)


def test_images_are_turned_once_whichever_way_they_come() -> None:
    data = scripted()
    rng = np.random.default_rng(0)
    data["observations"] = rng.integers(0, 255, (13, 4, 5, 3), dtype=np.uint8)
    turned = {**data, "observations": np.moveaxis(data["observations"], -1, 1)}
    memories = []
    for columns in (data, turned):
        dataset = offline_dataset.load(columns, ImageEnv(), swap_channels=True)
        memory = ReplayBuffer(2, 50, FIELDS)
        dataset.fill(memory, ImageEnv(), swap_channels=True)
        memories.append(memory._fields)
    assert memories[0][0].shape == (50, 3, 4, 5)
    assert memories[0][0].dtype == np.uint8
    for a, b in zip(*memories, strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(DatasetError, match="observations"):
        offline_dataset.load(turned, ImageEnv(), swap_channels=False)


def test_whatever_train_takes_is_loaded_alike(tmp_path: Path) -> None:
    expected = OfflineDataset.from_dict(scripted(next_observations=True))
    path = tmp_path / "a.h5"
    expected.save(path)
    memory = ReplayBuffer(2, 50, FIELDS)
    expected.fill(memory)
    with h5py.File(path, "r") as file:
        for source in (path, str(path), file, expected, scripted(next_observations=True)):
            assert equal(offline_dataset.load(source), expected)
    assert np.array_equal(offline_dataset.load(memory).observations, expected.observations)
    with pytest.raises(DatasetError, match="list"):
        offline_dataset.load([1, 2])
