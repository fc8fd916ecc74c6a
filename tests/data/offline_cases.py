"""Data whose observations say where they are, for the tests of offline data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agilerl.data.offline_dataset import OfflineDataset

Array = np.ndarray[Any, np.dtype[Any]]
FIELDS = ["state", "action", "reward", "next_state", "done"]

#: Rows of the data that is spoilt to be refused.
ROWS = 12

#: Lengths of the hand-made episodes, and how they end: by themselves, at a time limit, not at all.
EPISODES = ((3, "terminal"), (1, "terminal"), (4, "timeout"), (2, "terminal"), (1, "timeout"))
UNFINISHED = (*EPISODES, (2, "unfinished"))


def scripted(episodes: Any = UNFINISHED, next_observations: bool = False) -> dict[str, Array]:
    """Return columns whose observations say where they are: [episode, time]."""
    columns: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "rewards")}
    following, terminals, timeouts = [], [], []
    for episode, (length, end) in enumerate(episodes):
        for time in range(length):
            last = time == length - 1
            columns["observations"].append((episode, time))
            columns["actions"].append(time % 2)
            columns["rewards"].append(10.0 * episode + time)
            following.append((episode, time + 1))
            terminals.append(last and end == "terminal")
            timeouts.append(last and end == "timeout")
    data = {
        "observations": np.array(columns["observations"], np.float32),
        "actions": np.array(columns["actions"]),
        "rewards": np.array(columns["rewards"], np.float32),
        "terminals": np.array(terminals),
        "timeouts": np.array(timeouts),
    }
    if next_observations:
        data["next_observations"] = np.array(following, np.float32)
    return data


def wrong_rows(dataset: OfflineDataset, episodes: Any = UNFINISHED) -> int:
    """Count the transitions that are not what ``scripted`` says."""
    wrong = 0
    for i in range(len(dataset)):
        episode, time = (int(x) for x in dataset.observations[i])
        length, end = episodes[episode]
        done = end == "terminal" and time == length - 1
        successor = dataset.next_observations[i].tolist()
        expected = (
            dataset.actions[i] == time % 2,
            dataset.rewards[i] == 10 * episode + time,
            dataset.terminated[i] == done,
            successor == [episode, time + 1] or done,
        )
        wrong += not all(expected)
    return wrong


def save(path: Path, data: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file.create_dataset(name, data=values, **options)
    return path


def equal(a: OfflineDataset, b: OfflineDataset) -> bool:
    names = [f.name for f in dataclasses.fields(a) if f.name not in ("report", "attributes")]
    return all(
        getattr(a, n).dtype == getattr(b, n).dtype and np.array_equal(getattr(a, n), getattr(b, n))
        for n in names
    )


def good() -> dict[str, Any]:
    terminals = np.zeros(ROWS, bool)
    terminals[[5, 11]] = True
    return {
        "observations": np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4),
        "actions": np.arange(ROWS) % 2,
        "rewards": np.ones(ROWS, np.float32),
        "terminals": terminals,
    }


def write(path: Path, data: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file.create_dataset(name, data=values)
    return path


def changed(**columns: Any) -> dict[str, Any]:
    return {**good(), **columns}


def without(*names: str) -> dict[str, Any]:
    return {name: rows for name, rows in good().items() if name not in names}


def with_value(name: str, row: int, value: float, **others: Any) -> dict[str, Any]:
    data = good()
    data[name] = data[name].astype(np.float64)
    data[name][row] = value
    return {**data, **others}
