"""Opening an HDF5 file of unknown origin.

A file can name other files, claim sizes that are not there, and hold Python objects.  All of that
is refused from what the file declares, before a row is read or memory is taken.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agilerl.data.columns import FLAGS, Source, find_names
from agilerl.errors import DatasetError

if TYPE_CHECKING:
    import h5py

#: Deflate can't pack better than 1032 to 1, so a larger claim is no data.
MAX_RATIO = 1032
#: What one chunk may take beyond the whole field, in bytes.
CHUNK_SLACK = 2**26
#: Longest attribute that is read, in bytes.
MAX_ATTRIBUTE = 2**16


@contextmanager
def open_source(source: str | os.PathLike[str] | h5py.Group) -> Iterator[Source]:
    """Open a file, or take one that is open, and yield its columns, checked but not read.

    A file that was open stays open.

    Raises:
        DatasetError: if it can't be read, or a column is missing, links elsewhere, or is larger
            than what is stored; also on errors of HDF5 in the body of the ``with``.
    """
    import h5py

    if isinstance(source, h5py.Group):
        if not source:
            raise DatasetError("dataset: the h5py.File is closed; open it again, or pass its path.")
        where = str(source.file.filename)
        with _reading(where):
            yield _find(where, source)
        return
    path = Path(source)
    _check_file(path)
    with _reading(str(path)), h5py.File(path, "r") as file:
        yield _find(str(path), file)


def _check_file(path: Path) -> None:
    import h5py

    if path.is_dir():
        raise DatasetError(f"{path}: dataset: it is a directory; name a file in it.")
    if not path.is_file():
        raise DatasetError(
            f"{path}: dataset: there is no such file; `python -m agilerl.data.collect --out {path}`"
            " makes one."
        )
    if path.stat().st_size == 0:
        raise DatasetError(f"{path}: dataset: the file is empty; make it again.")
    if not os.access(path, os.R_OK):
        raise DatasetError(f"{path}: dataset: the file may not be read; check its permissions.")
    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            start = file.read(16)
        raise DatasetError(f"{path}: dataset: expected an HDF5 file, it starts with {start!r}.")


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn the errors of HDF5 into one that names the file."""
    try:
        yield
    except DatasetError:
        raise
    except BlockingIOError as error:
        raise DatasetError(
            f"{where}: dataset: another process holds the file open for writing; wait for it, or"
            " close it."
        ) from error
    except (OSError, RuntimeError, KeyError) as error:
        raise DatasetError(
            f"{where}: dataset: can't be read ({error}); it may be cut off, damaged, or open for"
            " writing elsewhere."
        ) from error


def _find(where: str, group: h5py.Group) -> Source:
    names = find_names(where, group)
    columns = {name: _column(where, group, actual, name in FLAGS) for name, actual in names.items()}
    return Source(where, columns, names, _attributes(group))


def _column(where: str, group: h5py.Group, name: str, flags: bool) -> h5py.Dataset:
    """Return the dataset ``name`` after checking what can be checked without reading it.

    Flags that were never written are never set; other columns must be stored.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DatasetError(
            f"{where}: {name}: it links elsewhere; copy the data into the file itself."
        )
    column = group[name]
    if not isinstance(column, h5py.Dataset):
        raise DatasetError(f"{where}: {name}: expected an array, got {type(column).__name__}.")
    if column.is_virtual or column.external:
        raise DatasetError(
            f"{where}: {name}: its values are in other files; copy them into the file itself."
        )
    if column.shape is None:
        raise DatasetError(f"{where}: {name}: expected an array, it has no values.")
    stored, available = column.id.get_storage_size(), group.file.id.get_filesize()
    limit = available if flags and not stored else MAX_RATIO * stored
    if stored > available or column.nbytes > limit:
        raise DatasetError(
            f"{where}: {name}: declares {column.nbytes:,} bytes (shape {column.shape}), while"
            f" {stored:,} are stored and the file has {available:,}; it is damaged or forged."
        )
    chunk = math.prod(column.chunks or (0,)) * column.dtype.itemsize
    if chunk > column.nbytes + CHUNK_SLACK:
        raise DatasetError(
            f"{where}: {name}: declares chunks of {chunk:,} bytes for {column.nbytes:,} bytes of"
            " data; store it with smaller chunks."
        )
    return column


def _attributes(group: h5py.Group) -> dict[str, Any]:
    """Return the attributes that are one short text or number; others are left alone."""
    found: dict[str, Any] = {}
    for name in group.attrs:
        attribute = group.attrs.get_id(name)
        if attribute.shape != () or attribute.get_storage_size() > MAX_ATTRIBUTE:
            continue
        value = group.attrs[name]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str | bool | int | float):
            found[name] = value
    return found
