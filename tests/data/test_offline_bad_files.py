"""Data that must be refused, by an error that names the file and the field."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from agilerl.data import read_columns
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import DatasetError

ROWS = 12


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


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a missing key lists what is there": (without("rewards"), r"rewards: missing.*'actions'"),
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


# ------------------------------------------------------------------------------- files that deceive


def external_link(file: h5py.File, tmp_path: Path) -> None:
    write(tmp_path / "other.h5", good())
    file["observations"] = h5py.ExternalLink("other.h5", "/observations")


def soft_link(file: h5py.File, tmp_path: Path) -> None:
    write(tmp_path / "other.h5", good())
    file["elsewhere"] = h5py.ExternalLink("other.h5", "/")
    file["observations"] = h5py.SoftLink("/elsewhere/observations")


def external_storage(file: h5py.File, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(ROWS * 16))
    outside = [(str(secret), 0, ROWS * 16)]
    file.create_dataset("observations", (ROWS, 4), "f4", external=outside)


def virtual(file: h5py.File, tmp_path: Path) -> None:
    write(tmp_path / "other.h5", good())
    layout = h5py.VirtualLayout((ROWS, 4), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "observations", (ROWS, 4), "f4")
    file.create_virtual_dataset("observations", layout)


def group(file: h5py.File, tmp_path: Path) -> None:
    file.create_group("observations")


def python_objects(file: h5py.File, tmp_path: Path) -> None:
    file.create_dataset("observations", data=["text"] * ROWS, dtype=h5py.string_dtype())


def ragged(file: h5py.File, tmp_path: Path) -> None:
    rows = file.create_dataset("observations", (ROWS,), h5py.vlen_dtype(np.float32))
    rows[0] = [1.0, 2.0]


def no_values(file: h5py.File, tmp_path: Path) -> None:
    file.create_dataset("observations", data=h5py.Empty("f4"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "links elsewhere"),
        (soft_link, "links elsewhere"),
        (external_storage, "in other files"),
        (virtual, "in other files"),
        (group, "expected an array, got Group"),
        (python_objects, "expected numbers"),
        (ragged, "expected numbers"),
        (no_values, "no values"),
    ],
)
def test_a_column_that_is_not_numbers_in_the_file_is_refused(
    make: Callable[[h5py.File, Path], None], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "bad.h5", without("observations"))
    with h5py.File(path, "a") as file:
        make(file, tmp_path)
    with pytest.raises(DatasetError, match=f"observations: .*{message}") as error:
        OfflineDataset.from_hdf5(path)
    assert str(path) in str(error.value)


def declared(path: Path, rows: int, **options: Any) -> Path:
    """Write a file whose columns declare ``rows`` rows and store next to nothing."""
    with h5py.File(path, "w") as file:
        for name, width in (("observations", (8,)), ("actions", ()), ("rewards", ())):
            file.create_dataset(name, (rows, *width), "f4", **options)
        file.create_dataset("terminals", (rows,), "?", **options)
    return path


@pytest.mark.parametrize("options", [{}, {"chunks": True}, {"compression": "gzip"}])
def test_sizes_that_are_not_stored_are_refused_before_memory_is_taken(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = declared(tmp_path / "bad.h5", 10**11, **options)
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"observations: declares .* bytes"):
        OfflineDataset.from_hdf5(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_few_unstored_rows_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="declares"):
        OfflineDataset.from_hdf5(declared(tmp_path / "bad.h5", 20))


def test_chunks_far_larger_than_the_data_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.h5", without("rewards"))
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "rewards", (ROWS,), "f4", maxshape=(None,), chunks=(2**28,), compression="gzip"
        )
        file["rewards"].id.write_direct_chunk((0,), b"\0" * 1000)
    with pytest.raises(DatasetError, match="rewards: declares chunks"):
        OfflineDataset.from_hdf5(path)


def test_more_than_the_limit_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.h5", good())
    with pytest.raises(DatasetError, match=r"observations: 12 rows would take.*max_bytes"):
        OfflineDataset.from_hdf5(path, max_bytes=500)
    assert len(OfflineDataset.from_hdf5(path, max_bytes=1000)) == ROWS
    assert read_columns.MAX_BYTES == 8 * 2**30


def test_only_plain_attributes_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", good())
    with h5py.File(path, "a") as file:
        file.attrs["env_id"] = "CartPole-v1"
        file.attrs["bytes"] = np.bytes_(b"text")
        file.attrs["seed"] = 5
        file.attrs["array"] = np.arange(3)
        file.attrs["file"] = file.ref
    expected = {"env_id": "CartPole-v1", "bytes": "text", "seed": 5}
    assert OfflineDataset.from_hdf5(path).attributes == expected
