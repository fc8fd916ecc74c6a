"""HDF5 files that deceive: nothing outside them is read, no memory is taken for them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from agilerl.data import read_columns
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import DatasetError
from tests.data.offline_cases import ROWS, good, without, write


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


@pytest.mark.parametrize("options", [{}, {"chunks": True}])
def test_flags_that_were_never_written_are_never_set(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "good.h5", without("timeouts"))
    expected = OfflineDataset.from_hdf5(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("timeouts", (len(file["rewards"]),), bool, **options)
    dataset = OfflineDataset.from_hdf5(path)
    assert np.array_equal(dataset.terminated, expected.terminated)
    assert len(dataset) == len(expected)


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
