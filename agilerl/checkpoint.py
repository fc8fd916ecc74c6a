"""Checkpoint files: written whole or not at all, and read without running anything."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agilerl.errors import CheckpointError

FORMAT = 2

#: What reading a file of any content may raise.
UNREADABLE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def plain(value: Any) -> Any:
    """Return ``value`` with NumPy scalars as Python numbers and arrays as tensors, at any depth."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a new file; then flush it to the disk, and rename it into place.

    A kill at any moment leaves the file that was there before, or the new one whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file; a kill at any moment leaves what was there, or the new one whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save(path: str | os.PathLike[str], payload: dict[str, Any]) -> None:
    """Write ``payload`` (tensors and plain values) atomically to ``path``."""
    buffer = io.BytesIO()
    torch.save(plain({"format": FORMAT, **payload}), buffer)
    write_bytes(path, buffer.getvalue())


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what ``save`` wrote; tensors come on the CPU, and no code in the file is run.

    Raises:
        CheckpointError: if there is no such file, or it is cut off, foreign, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at the checksums
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, it holds more than tensors and plain values (or is no checkpoint at"
            " all); nothing in it was run."
        ) from error
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: can't be read, it may be cut off or of another kind ({error}); use an"
            " earlier checkpoint."
        ) from error
    if not isinstance(payload, dict) or str(payload.get("format")) != str(FORMAT):
        raise CheckpointError(f"{path}: not a checkpoint of this library (format {FORMAT}).")
    return payload
