"""Worker processes on this machine; ``training.worker`` is the inside of one."""

from __future__ import annotations

import os
import weakref
from multiprocessing.connection import wait

import torch

from agilerl.errors import ConfigError, check_int
from agilerl.training.crew import Crew
from agilerl.training.worker_handle import WorkerHandle, end


class Processes(Crew[WorkerHandle]):
    """Does the jobs in worker processes on this machine; see ``training.worker``.

    The numbers are those of ``InProcess``, bit for bit, for any number of workers, and also where a
    worker was lost: killed from outside, out of memory, or hanging.  Its job is then done again by
    another one, from the same agent and with the same streams.

    Workers start when a run begins, and end with ``close()``, when this object is collected, and
    when this process ends, however it does.

    Args:
        workers: processes; more than the population has agents are not started.
        env_timeout: seconds without a vector step or learn step after which a worker is taken to
            hang, and killed; None waits for ever.

    Attributes:
        lost: workers lost so far.

    Raises:
        ConfigError: on a number that can't be used.
    """

    names = "worker process", "worker processes"
    told = "on stderr"

    def __init__(self, workers: int, env_timeout: float | None = 60.0) -> None:
        self.workers = check_int("workers", workers)
        if os.name != "posix":
            raise ConfigError("workers: worker processes need Linux or macOS; pass workers=0.")
        super().__init__(env_timeout)
        self._finalizer = weakref.finalize(self, end, self._crew)

    @property
    def pids(self) -> list[int]:
        """The ids of the worker processes that run."""
        return [worker.process.pid for worker in self._crew]

    def _room(self, population: int) -> int:
        return min(self.workers, population)

    def _new_worker(self) -> WorkerHandle:
        return WorkerHandle(torch.get_num_threads())

    def _heard(self, pause: float) -> list[WorkerHandle]:
        ready = wait([worker.connection for worker in self._crew], pause)
        return [worker for worker in self._crew if worker.connection in ready]

    def _end(self, workers: list[WorkerHandle]) -> None:
        end(workers)
