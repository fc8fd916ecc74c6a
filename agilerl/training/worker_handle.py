"""A worker process as its parent sees it; ``training.worker`` is the inside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Pipe

from agilerl.lifeline import BEATS, counter_in
from agilerl.training.crew import LostError, RemoteWorker
from agilerl.training.pickling import loads
from agilerl.training.worker import Reply

#: A fresh interpreter that looks for modules where this one does, and loads no script.
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from agilerl.lifeline import die_with; die_with(int(sys.argv[2]));"
    "from agilerl.training.worker import serve; serve(*map(int, sys.argv[3:]))"
)
#: Seconds that a worker has to close its environments, before it is killed.
PATIENCE = 3.0
#: Variables that say how many threads a process begins with.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerHandle(RemoteWorker):
    """One worker process: a direct child, with nothing of ours but a connection and a counter.

    It is in a process group of its own, so that Ctrl-C in a terminal does not reach it, nor what
    its environments start.

    Args:
        threads: that it begins with.
    """

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.connection, inner = Pipe()
        with inner, tempfile.TemporaryFile(dir=_memory_directory()) as beats:
            os.ftruncate(beats.fileno(), BEATS)
            self._beats = counter_in(beats.fileno())
            passed = (inner.fileno(), beats.fileno())
            paths = json.dumps([path for path in sys.path if isinstance(path, str)])
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, paths, str(os.getpid()), *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=passed,
                process_group=0,
                env={**os.environ, **dict.fromkeys(THREADS, str(threads))},
            )

    def deliver(self, name: str, arguments: bytes) -> None:
        """Ask for something, with pickled arguments; raise ``LostError`` if the worker is gone."""
        try:
            self.connection.send_bytes(name.encode())
            self.connection.send_bytes(arguments)
        except OSError as error:
            raise LostError from error

    def receive(self) -> Reply:
        """Return an answer; raise ``LostError`` if the worker is gone."""
        try:
            reply: Reply = loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise LostError from error
        return reply

    def beats(self) -> int:
        """Return how many pieces of work the process has done."""
        return int(self._beats[0])

    def destroy(self) -> str:
        """Kill the process, and return how it ended."""
        self.kill()
        ended = self.reap()
        self.connection.close()
        return ended

    def kill(self) -> None:
        """Kill the process, and what its environments have started in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Tell the worker to end, where it does nothing; kill it otherwise."""
        self.connection.close()
        if self.doing is not None:
            self.kill()

    def reap(self, patience: float = 0.0) -> str:
        """Wait until the process has ended, kill it after a while, and return how it ended."""
        try:
            self.process.wait(max(0.0, patience))
        except subprocess.TimeoutExpired:
            self.kill()
        code = self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def end(workers: list[WorkerHandle]) -> None:
    """End all workers, and wait until they are gone."""
    for worker in workers:
        worker.stop()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        worker.reap(deadline - time.monotonic())
    workers.clear()


def _memory_directory() -> str | None:
    """Return a directory in memory where there is one: files in it are never written to a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
