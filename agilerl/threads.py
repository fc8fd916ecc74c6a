"""How many threads matrix products use, in torch and in NumPy."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch


@functools.cache
def openblas() -> tuple[Any, Any] | None:
    """Return what reads and what sets the threads of NumPy's own OpenBLAS.

    It is found where NumPy's wheels carry it.  None where there is no such library (another build
    of NumPy): its threads are then left as they are.
    """
    package = Path(np.__file__).parent
    folders = package.parent / "numpy.libs", package / ".dylibs"
    for path in (path for folder in folders for path in sorted(folder.glob("*openblas*"))):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))  # loaded already: this gives the same one
            names = "scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads"
            name = next((name for name in names if hasattr(library, name.format("set"))), names[0])
            return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run products of torch and NumPy on one thread, and restore what was set."""
    torch_threads, blas = torch.get_num_threads(), openblas()
    blas_threads = blas[0]() if blas else 0
    torch.set_num_threads(1)
    if blas:
        blas[1](1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        if blas:
            blas[1](blas_threads)
