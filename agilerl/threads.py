"""How many cores there are, and how many threads matrix products use, in torch and in NumPy."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

#: Where Linux says how much processor time a container may take: microseconds, and of how many.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Return how many cores this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):
        quota, period = QUOTA.read_text().split()
        if quota != "max":
            count = min(count or 1, math.ceil(int(quota) / int(period)))
    return max(1, count or 1)


@functools.lru_cache(maxsize=1)
def blas(modules: int) -> Any:
    """Return the controller of the BLAS libraries that this process has loaded.

    To look for them takes about a millisecond, so that the last controller is kept.  ``modules``,
    the number of imported modules, has it looked for again when an import may have loaded another.
    """
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Run products of torch and NumPy on ``count`` threads, and restore what was set."""
    torch_threads = torch.get_num_threads()
    with blas(len(sys.modules)).limit(limits=count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(torch_threads)


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Run products of torch and NumPy on one thread, and restore what was set.

    For training loops of one's own: small matrix products hardly gain from a second thread.
    """
    return limited_threads(1)
