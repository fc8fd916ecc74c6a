"""Reading and writing the HDF5 file of token-level games.  A file is not trusted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agilerl.errors import DatasetError

if TYPE_CHECKING:
    import h5py

FIELDS: Mapping[str, tuple[str, int]] = {
    "tokens": ("iu", 2),
    "lengths": ("iu", 1),
    "action_mask": ("b", 2),
    "rewards": ("f", 2),
    "terminals": ("b", 2),
}
"""Each field's kind of number (i, u: integers, b: booleans, f: floats) and its dimensions."""

_KINDS = {"iu": "integers", "b": "booleans", "f": "floating-point numbers"}
MAX_BYTES = 8 * 2**30
# Deflate can't pack better than 1032 to 1, so a larger claim is a lie.
_MAX_RATIO = 1032


def _field(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """Return a field's dataset after checking all that can be checked without reading it."""
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        found = ", ".join(sorted(file)) or "nothing"
        raise DatasetError(f"{path}: {name}: missing. The file has: {found}.")
    if not isinstance(link, h5py.HardLink):
        raise DatasetError(f"{path}: {name}: expected data in the file itself, got a link.")
    field = file[name]
    if not isinstance(field, h5py.Dataset):
        raise DatasetError(f"{path}: {name}: expected an array, got a group.")
    if field.external or field.is_virtual:
        raise DatasetError(f"{path}: {name}: expected data in the file itself, got other files'.")
    kinds, dimensions = FIELDS[name]
    if field.dtype.kind not in kinds:
        raise DatasetError(f"{path}: {name}: expected {_KINDS[kinds]}, got {field.dtype}.")
    if len(field.shape) != dimensions:
        raise DatasetError(
            f"{path}: {name}: expected {dimensions} dimensions, got shape {field.shape}."
        )
    if field.nbytes > _MAX_RATIO * field.id.get_storage_size():
        raise DatasetError(
            f"{path}: {name}: declares {field.nbytes} bytes of shape {field.shape}, but only "
            f"{field.id.get_storage_size()} are stored. The file is damaged or forged."
        )
    return field


def _check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], total: int) -> None:
    table = "; ".join(f"{name} {shape}" for name, shape in shapes.items())
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise DatasetError(f"{path}: fields have unequal numbers of games: {table}.")
    if len({shape for shape in shapes.values() if len(shape) == 2}) > 1:
        raise DatasetError(f"{path}: fields have unequal numbers of tokens: {table}.")
    if 0 in shapes["tokens"]:
        raise DatasetError(f"{path}: tokens: expected at least one game, got {table}.")
    if total > MAX_BYTES:
        raise DatasetError(f"{path}: {total} bytes; at most {MAX_BYTES} are read. ({table})")


def read_fields(path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the attributes of a file.

    Raises:
        DatasetError: The file is missing, is not HDF5, is held open by another process, or a
            field is missing, a link, of another type or shape, or larger than what is stored.
            Nothing is read, and no memory taken, before all fields are checked.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise DatasetError(
            f"{path}: there is no such file. For Wordle, 'python -m agilerl.wordle.generate "
            f"--out {path}' makes one."
        )
    try:
        with h5py.File(path, "r") as file:
            checked = {name: _field(file, path, name) for name in FIELDS}
            shapes = {name: field.shape for name, field in checked.items()}
            _check_shapes(path, shapes, sum(field.nbytes for field in checked.values()))
            arrays = {name: field[...] for name, field in checked.items()}
            attributes = {
                name: value.item() if isinstance(value, np.generic) else value
                for name, value in file.attrs.items()
            }
    except (OSError, RuntimeError, KeyError) as error:
        raise DatasetError(
            f"{path}: expected an HDF5 file; it can't be read ({error}). "
            "Is it complete, and not open in another process?"
        ) from error
    return arrays, attributes


def write_fields(
    path: str | Path, arrays: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, Any]
) -> None:
    """Write arrays and attributes to ``path``; a kill at any moment leaves what was there."""
    import h5py

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        with h5py.File(temporary, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, chunks=True, compression="lzf", shuffle=True)
            file.attrs.update(attributes)
        with Path(temporary).open("rb+") as written:
            os.fsync(written.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
