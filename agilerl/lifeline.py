"""What ties a worker process to the one that started it: signs of life, and a common end.

This module loads nothing beyond the standard library, so that a worker is tied before it spends
seconds on imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import threading
import time

from agilerl.signals import check

#: Seconds between two looks at whether the parent is still there.
WATCH = 1.0
#: Bytes that a counter of beats takes.
BEATS = 8
#: prctl(PR_SET_PDEATHSIG, signal): Linux ends this process when its parent ends
PR_SET_PDEATHSIG = 1

#: where beats are counted; None where nobody watches
_beats: memoryview | None = None


def beat() -> None:
    """Say that a piece of work was done (a vector step, a learn step); it costs next to nothing.

    Whoever watches this process takes one that is silent for long to hang.  A signal that asks for
    an end is obeyed here.
    """
    check()
    if _beats is not None:
        _beats[0] += 1


def beat_into(descriptor: int) -> memoryview:
    """Count beats in the file of this descriptor, which another process may map too.

    Args:
        descriptor: of a file of at least ``BEATS`` bytes; -1 is memory of this process alone.

    Returns:
        The counter.
    """
    global _beats
    _beats = counter_in(descriptor)
    return _beats


def counter_in(descriptor: int) -> memoryview:
    """Return the counter of beats in a file of at least ``BEATS`` bytes."""
    return memoryview(mmap.mmap(descriptor, BEATS)).cast("Q")


def die_with(parent: int) -> None:
    """End this process when its parent does, however either is occupied at that time.

    Linux sends a signal that can't be caught, also to a process that hangs in C code.  Elsewhere a
    thread looks once a second, which code that never lets go of the interpreter can hold up.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)
