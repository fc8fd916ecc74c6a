"""HDF5 files: reading one of unknown origin, and writing one whole or not at all.

A file can name other files, declare sizes that are not there, unpack to a thousand times its size,
hold Python objects, and send the HDF5 library round in circles.  All of that is refused before a
row is read or memory is taken.
"""

from __future__ import annotations

import math
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agilerl.checkpoint import replacing
from agilerl.errors import AgileRLError, DatasetError

if TYPE_CHECKING:
    import h5py

#: Most memory that a data set may take by default, in bytes.
MAX_BYTES = 8 * 2**30
#: A field of more bytes than this may not unpack to more than ``MAX_RATIO`` times what is stored.
#: Only constants pack that well (gzip: up to 1030 to 1), and as few as 64 million of them are rare;
#: images of Atari games, which pack better than most observations, are at 50 to 200.
LARGE, MAX_RATIO = 2**28, 500
#: What one chunk may take beyond the whole field, in bytes.
CHUNK_SLACK = 2**26
#: A packed chunk above this is unpacked piece by piece first, to see that it ends where it should;
#: one below can't take more than a GiB.  The chunks that h5py chooses are smaller.
UNCHECKED_CHUNK = 2**20
#: Longest attribute that is read, in bytes.
MAX_ATTRIBUTE = 2**16

#: What reading a damaged file may raise.
_UNREADABLE = (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError, zlib.error)


# ----------------------------------------------------------------------------------------- reading


@contextmanager
def open_group(
    source: str | os.PathLike[str] | h5py.Group, maker: str
) -> Iterator[tuple[str, h5py.Group]]:
    """Open a file, or take one that is open (it stays open), and yield its name and its content.

    Args:
        source: path, or an open ``h5py.File`` or group.
        maker: the module whose command makes such files, for messages.

    Raises:
        DatasetError: if it can't be read; errors of HDF5 in the body of the ``with`` become one.
    """
    import h5py

    if isinstance(source, h5py.Group):
        if not source:
            raise DatasetError("dataset: the h5py.File is closed; open it again, or pass its path.")
        where = str(source.file.filename)
        with _reading(where):
            yield where, source
        return
    path = Path(source)
    _check_file(path, maker)
    with _reading(str(path)), h5py.File(path, "r") as file:
        yield str(path), file


def _check_file(path: Path, maker: str) -> None:
    import h5py

    if path.is_dir():
        raise DatasetError(f"{path}: it is a directory; name a file in it.")
    if not path.is_file():
        raise DatasetError(
            f"{path}: there is no such file; `python -m {maker} --out {path}` makes one."
        )
    if path.stat().st_size == 0:
        raise DatasetError(f"{path}: the file is empty; make it again.")
    if not os.access(path, os.R_OK):
        raise DatasetError(f"{path}: the file may not be read; check its permissions.")
    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            start = file.read(16)
        raise DatasetError(f"{path}: expected an HDF5 file, it starts with {start!r}.")


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn the errors of HDF5 into one that names the file."""
    try:
        yield
    except AgileRLError:
        raise
    except BlockingIOError as error:
        raise DatasetError(
            f"{where}: another process holds the file open for writing; wait for it, or close it."
        ) from error
    except _UNREADABLE as error:
        raise DatasetError(
            f"{where}: can't be read ({error}); it may be cut off, damaged, or open for"
            " writing elsewhere."
        ) from error


def field_names(group: h5py.Group) -> list[str]:
    """Return the names in a group; what is not UTF-8 in them is replaced."""
    return [n if isinstance(n, str) else n.decode("utf-8", "replace") for n in group]


def checked_field(
    where: str, group: h5py.Group, name: str, may_be_unwritten: bool = False
) -> h5py.Dataset:
    """Return the HDF5 dataset ``name``, after checking what can be checked without reading it.

    Args:
        where: name of the file, for messages.
        group: that has ``name``.
        name: of the field.
        may_be_unwritten: it may be declared and not stored (its values are zeros), up to the size
            of the file.

    Raises:
        DatasetError: if it is no array in the file itself, or not of the size that it declares.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DatasetError(
            f"{where}: {name}: it links elsewhere; copy the data into the file itself."
        )
    field = group[name]
    if not isinstance(field, h5py.Dataset):
        raise DatasetError(f"{where}: {name}: expected an array, got {type(field).__name__}.")
    if field.is_virtual or field.external:
        raise DatasetError(
            f"{where}: {name}: its values are in other files; copy them into the file itself."
        )
    if field.shape is None:
        raise DatasetError(f"{where}: {name}: expected an array, it has no values.")
    available = group.file.id.get_filesize()
    _check_size(where, name, field, available, may_be_unwritten)
    if field.chunks:
        _check_chunks(where, name, field, available)
    return field


def _check_size(
    where: str, name: str, field: h5py.Dataset, available: int, may_be_unwritten: bool
) -> None:
    """Raise ``DatasetError`` if a field declares far more than is stored."""
    declared, stored = field.nbytes, field.id.get_storage_size()
    sizes = f"declares {declared:,} bytes (shape {field.shape}), while {stored:,} are stored"
    unwritten = 0 if stored else declared
    if stored > available or unwritten > (available if may_be_unwritten else 0):
        raise DatasetError(
            f"{where}: {name}: {sizes} and the file has {available:,}; it is damaged or forged."
        )
    if stored and declared > max(LARGE, MAX_RATIO * stored):
        raise DatasetError(
            f"{where}: {name}: {sizes}, less than one in {MAX_RATIO}: it looks like a file made to"
            " fill the memory. If you trust it, store the field without compression."
        )


def _check_chunks(where: str, name: str, field: h5py.Dataset, available: int) -> None:
    """Raise ``DatasetError`` if a chunk would take far more memory than the field declares.

    HDF5 unpacks gzip to wherever the stream ends, whatever the size of the chunk, and reads the
    checksum of a chunk that is too short to have one.
    """
    from h5py import h5z

    size = math.prod(field.chunks) * field.dtype.itemsize
    if size > field.nbytes + CHUNK_SLACK:
        raise DatasetError(
            f"{where}: {name}: declares chunks of {size:,} bytes for {field.nbytes:,} bytes of"
            " data; store it with smaller chunks."
        )
    settings = field.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    gzip = filters.index(h5z.FILTER_DEFLATE) if h5z.FILTER_DEFLATE in filters else None
    if gzip is not None and set(filters[gzip + 1 :]) - {h5z.FILTER_FLETCHER32}:
        raise DatasetError(f"{where}: {name}: packed more than once; store it packed once.")
    large: list[tuple[int, ...]] = []
    wrong: list[tuple[int, ...]] = []

    def look(chunk: Any) -> None:
        if not len(filters) * 4 <= chunk.size <= available - chunk.byte_offset:
            wrong.append(chunk.chunk_offset)
        elif (
            gzip is not None and chunk.size > UNCHECKED_CHUNK and not chunk.filter_mask >> gzip & 1
        ):
            large.append(chunk.chunk_offset)

    if filters:
        field.id.chunk_iter(look)
    limit = size + UNCHECKED_CHUNK
    read = field.id.read_direct_chunk
    wrong += [offset for offset in large if not _inflates_within(read(offset)[1], limit)]
    if wrong:
        raise DatasetError(
            f"{where}: {name}: the chunk at {wrong[0]} is not of the {size:,} bytes that it"
            " declares; the file is damaged or forged."
        )


def _inflates_within(packed: bytes, limit: int) -> bool:
    """Return whether a zlib stream unpacks to ``limit`` bytes at most, without unpacking more."""
    inflater, size = zlib.decompressobj(), 0
    while packed and not inflater.eof and size <= limit:
        size += len(inflater.decompress(packed, UNCHECKED_CHUNK))
        packed = inflater.unconsumed_tail
    return size <= limit


def attributes(where: str, group: h5py.Group) -> dict[str, Any]:
    """Return the attributes that are one short text or number; others are left alone.

    Raises:
        DatasetError: if the heap in which HDF5 keeps texts is damaged.
    """
    from h5py import h5t

    found: dict[str, Any] = {}
    heaps_are_whole = False
    for name in group.attrs:
        attribute = group.attrs.get_id(name)
        kind = attribute.get_type()
        if attribute.shape != () or attribute.get_storage_size() > MAX_ATTRIBUTE:
            continue
        if not isinstance(kind, h5t.TypeStringID | h5t.TypeAtomicID | h5t.TypeEnumID):
            continue  # lists of any length, references, records
        if isinstance(kind, h5t.TypeStringID) and kind.is_variable_str() and not heaps_are_whole:
            _check_heaps(where, group)
            heaps_are_whole = True
        value = group.attrs[name]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str | bool | int | float):
            found[str(name)] = value
    return found


def _check_heaps(where: str, group: h5py.Group) -> None:
    """Raise ``DatasetError`` if HDF5 would not come to the end of a global heap of the file.

    HDF5 walks a heap from object to object and trusts their sizes, so that a size of 0 has it go
    round forever.  (A file in memory, which only its owner can have opened, is not checked.)
    """
    path = Path(group.file.filename)
    if not path.is_file() or not path.stat().st_size:
        return
    number = group.file.id.get_create_plist().get_sizes()[1]  # bytes of a length in this file
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(b"GCOL\x01")
        while start >= 0:
            if not _heap_ends(content, start, number):
                raise DatasetError(
                    f"{where}: attributes: the heap at byte {start} is damaged; make the file"
                    " again, or use another copy."
                )
            start = content.find(b"GCOL\x01", start + 1)


def _heap_ends(content: mmap.mmap, start: int, number: int) -> bool:
    """Return whether the objects of the global heap at ``start`` lead to its end.

    The heap is ``GCOL``, a version, 3 bytes, its size; each object an index (2 bytes), 6 bytes, its
    size, its bytes up to a multiple of 8.  Object 0 is free space, and its size is all of it.
    """

    def read(at: int, width: int) -> int:
        return int.from_bytes(content[at : at + width], "little")

    header = -(-(8 + number) // 8) * 8
    end = start + read(start + 8, number)
    at = start + header
    while at + header <= end <= len(content):
        index, size = read(at, 2), read(at + 8, number)
        at += header + -(-size // 8) * 8 if index else size
        if not index and size < header:
            return False
    return at <= end <= len(content)


# ----------------------------------------------------------------------------------------- writing


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], attributes: Mapping[str, Any]
) -> None:
    """Write arrays and attributes; a kill at any moment leaves what was there.

    Data and structure have checksums, so that a flipped bit is an error when the file is read (but
    for texts among the attributes, which HDF5 keeps without).  HDF5 1.10 (2016) or later reads it.
    """
    import h5py

    packing = {"chunks": True, "compression": "lzf", "shuffle": True, "fletcher32": True}
    with (
        replacing(path) as temporary,
        h5py.File(temporary, "w", libver=("v110", "v110")) as file,
    ):
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **packing)
        file.attrs.update(attributes)
