"""How many threads matrix products use, in torch and in NumPy."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch
from threadpoolctl import ThreadpoolController


@functools.lru_cache(maxsize=1)
def blas(modules: int) -> Any:
    """Return the controller of the BLAS libraries that this process has loaded.

    To look for them takes about a millisecond, so that the last controller is kept.  ``modules``,
    the number of imported modules, has it looked for again when an import may have loaded another.
    """
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run products of torch and NumPy on one thread, and restore what was set."""
    torch_threads = torch.get_num_threads()
    with blas(len(sys.modules)).limit(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(torch_threads)
