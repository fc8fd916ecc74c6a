"""Stopping a run: the first Ctrl-C or SIGTERM waits for the next step, the second does not.

The first signal only sets a flag, so that no instant exists at which it could lose a population or
leave an environment out of step.  Work looks at the flag after each step (``check``), and stops by
an exception that whoever drives it turns into an ordinary end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MESSAGE = b"\nstopping after this step; once more stops at once\n"

#: the signal that asked for an end and was not yet obeyed, or 0
_asked = 0
#: the signal that ended the run which was driven last, or 0
_ended_by = 0


class Stopped(KeyboardInterrupt):
    """A signal asked for an end."""


def check() -> None:
    """Raise ``Stopped`` if a signal has asked for an end; it costs next to nothing."""
    if _asked:
        raise Stopped


def exit_code() -> int:
    """Return what a script should exit with: 130 or 143 if a signal ended the last run, else 0."""
    return 128 + _ended_by if _ended_by else 0


@contextmanager
def stop_at_signals() -> Iterator[None]:
    """Let a first signal set the flag within this block, and a second one end everything.

    Signals reach the main thread only; elsewhere, and within another such block, nothing changes.
    """
    global _asked, _ended_by
    main = threading.current_thread() is threading.main_thread()
    if not main or any(signal.getsignal(number) is _on_signal for number in SIGNALS):
        yield
        return
    _asked = _ended_by = 0
    before: dict[signal.Signals, Any] = {}
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell's background jobs ask for
            before[number] = signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        _ended_by, _asked = _asked, 0


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _asked
    if _asked:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    _asked = number
    os.write(2, MESSAGE)  # print() may be interrupted in the middle of itself
