"""Data that must be refused, by an error that names the file and the field."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import DatasetError
from tests.data.offline_cases import ROWS, changed, good, with_value, without, write

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a missing key lists what is there": (without("rewards"), r"rewards: missing.*'actions'"),
    "a misspelt key is named": (
        {**without("rewards"), "rewrads": good()["rewards"]},
        r"rewards: missing.*Did you mean 'rewrads'\?",
    ),
    "a key that is in use is not suggested": (
        without("actions"),
        r"actions: missing.*'terminals'\.$",
    ),
    "no ends": (without("terminals"), "terminals: missing, so there is no way to tell"),
    "ends that are never set": (changed(terminals=np.zeros(ROWS, bool)), "terminals: never set"),
    "unequal lengths": (changed(rewards=np.ones(7)), r"(?s)rewards +7.*terminals +12"),
    "NaN": (with_value("observations", 7, np.nan), r"observations: expected finite.*row 7"),
    "infinite": (with_value("rewards", 3, np.inf), r"rewards: expected finite.*row 3"),
    "too large for float32": (with_value("rewards", 3, 1e300), r"rewards: expected finite.*row 3"),
    "strings": (changed(actions=np.array([b"left"] * ROWS)), r"actions: expected numbers"),
    "complex": (changed(rewards=np.ones(ROWS, complex)), r"rewards: expected numbers"),
    "records": (changed(rewards=np.zeros(ROWS, [("a", "f4")])), r"rewards: expected numbers"),
    "no rows": ({k: v[:0] for k, v in good().items()}, "rewards: expected at least one row"),
    "rows of nothing": (changed(observations=np.zeros((ROWS, 0))), "observations.*at least one"),
    "one value": (changed(rewards=np.float32(1)), "rewards: expected one row a step"),
    "wide rewards": (changed(rewards=np.ones((ROWS, 2))), "rewards: expected one number a row"),
    "deep actions": (changed(actions=np.ones((ROWS, 2, 2))), "actions: expected one action a row"),
    "flags of other values": (changed(terminals=np.arange(ROWS)), "terminals: expected 0 or 1.*2"),
    "another successor": (
        changed(next_observations=np.zeros((ROWS, 5))),
        "next_observations: expected the shape",
    ),
    "a NaN successor": (
        changed(next_observations=np.full((ROWS, 4), np.nan)),
        "next_observations: expected finite.*row 0",
    ),
    "nothing but time limits": (
        changed(terminals=np.zeros(ROWS), timeouts=np.ones(ROWS)),
        "observations: none of 12 rows",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_from_a_file_and_from_arrays(name: str, tmp_path: Path) -> None:
    data, message = CASES[name]
    path = write(tmp_path / "bad.h5", data)
    with pytest.raises(DatasetError, match=message) as error:
        OfflineDataset.from_hdf5(path)
    assert str(path) in str(error.value)
    with pytest.raises(DatasetError, match=message):
        OfflineDataset.from_dict(data)


CARTPOLE: dict[str, tuple[dict[str, Any], str]] = {
    "another shape": (changed(observations=np.zeros((ROWS, 3))), r"observations:.*\(4,\).*\(3,\)"),
    "an action too high": (with_value("actions", 4, 2), r"actions:.*0\.\.1.*row 4"),
    "an action too low": (with_value("actions", 4, -1), r"actions:.*0\.\.1.*row 4"),
    "half an action": (with_value("actions", 4, 0.5), r"actions:.*0\.\.1.*row 4"),
    "two actions a row": (changed(actions=np.zeros((ROWS, 2))), r"actions:.*2 numbers a row"),
}


@pytest.mark.parametrize("name", CARTPOLE)
def test_data_of_another_environment_is_refused(name: str, tmp_path: Path) -> None:
    data, message = CARTPOLE[name]
    path = write(tmp_path / "bad.h5", data)
    with pytest.raises(DatasetError, match=message) as error:
        OfflineDataset.from_hdf5(path, env=gym.make("CartPole-v1"))
    assert str(path) in str(error.value)


def test_torques_out_of_bounds_are_refused_but_for_rounding() -> None:
    env = gym.make("Pendulum-v1")
    data = changed(observations=np.zeros((ROWS, 3)), actions=np.full(ROWS, 2.00001))
    assert OfflineDataset.from_dict(data, env).actions.shape == (ROWS, 1)
    data["actions"][5] = -2.1
    with pytest.raises(DatasetError, match=r"actions:.*row 5"):
        OfflineDataset.from_dict(data, env)


def test_states_beyond_the_space_are_refused() -> None:
    env = gym.make("FrozenLake-v1")
    data = changed(observations=np.arange(ROWS) % 16, actions=np.arange(ROWS) % 4)
    assert OfflineDataset.from_dict(data, env).observations.dtype == np.int64
    data["observations"][3] = 16
    with pytest.raises(DatasetError, match=r"observations: expected states 0\.\.15.*row 3"):
        OfflineDataset.from_dict(data, env)


# ---------------------------------------------------------------------------------------- no file


def text_file(path: Path) -> None:
    path.write_text("observations,actions\n1,2\n")


def empty_file(path: Path) -> None:
    path.touch()


def cut_file(path: Path) -> None:
    write(path, changed(observations=np.random.default_rng(0).random((ROWS, 4))))
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file.*agilerl.data.collect"),
        (Path.mkdir, "directory"),
        (empty_file, "empty"),
        (text_file, "expected an HDF5 file"),
        (cut_file, "can't be read"),
    ],
)
def test_what_is_no_data_file_is_refused(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.h5"
    make(path)
    with pytest.raises(DatasetError, match=message) as error:
        OfflineDataset.from_hdf5(path)
    assert str(path) in str(error.value)


def test_a_closed_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a.h5", good()), "r") as file:
        pass
    with pytest.raises(DatasetError, match="closed"):
        OfflineDataset.from_hdf5(file)


def test_a_file_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", good())
    program = f"import h5py; f = h5py.File({str(path)!r}, 'a'); print('open', flush=True); input()"
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "open\n"
        try:
            with pytest.raises(DatasetError, match="another process holds the file") as error:
                OfflineDataset.from_hdf5(path)
        finally:
            writer.communicate("\n")
    assert str(path) in str(error.value)
    assert len(OfflineDataset.from_hdf5(path)) == ROWS
