"""Worker processes on this machine; ``training.worker`` is the inside of one."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

import torch

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import ConfigError, EnvError, check_float, check_int
from agilerl.seeding import Streams
from agilerl.signals import check
from agilerl.training.batches import (
    LOOK,
    LOSSES,
    Batch,
    check_travel,
    chunks,
    not_made,
    packed,
    pickled_task,
)
from agilerl.training.jobs import EpisodeResult, Evaluation, Task
from agilerl.training.pickling import Failure, dumps
from agilerl.training.worker_handle import STARTING, WorkerHandle, end

logger = logging.getLogger("agilerl")

#: What a worker does that takes over a task, its environments included.
TAKING = "taking over the task"
#: What it does that is told what the buffer has stored since.
TELLING = "bringing the buffer up to date"
#: What may take any time.
READY = (None, STARTING)


class Processes:
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

    def __init__(self, workers: int, env_timeout: float | None = 60.0) -> None:
        self.workers = check_int("workers", workers)
        if os.name != "posix":
            raise ConfigError("workers: worker processes need Linux or macOS; pass workers=0.")
        self.env_timeout = (
            None if env_timeout is None else check_float("env_timeout", env_timeout, 0.1)
        )
        self.lost = 0
        self._task: tuple[Any, Any] | None = None
        self._number = 0
        self._pickled = b""
        self._news: tuple[int, int, bytes] | None = None
        self._false_starts = 0
        self._processes: list[WorkerHandle] = []
        self._finalizer = weakref.finalize(self, end, self._processes)

    @property
    def pids(self) -> list[int]:
        """The ids of the worker processes that run."""
        return [worker.process.pid for worker in self._processes]

    # ---------------------------------------------------------------------------- as every executor

    def begin(self, task: Task, population: Sequence[Any], memory: Any) -> None:
        """Start the workers and give them the task; raise if it can't be done by them.

        Raises:
            ConfigError: if an agent or the buffer can't travel.
            EnvError: if the environment can't be copied.
        """
        check_travel(population, memory)
        self._take(task, memory)
        try:
            self._hire(len(population))
            while any(worker.task != self._number for worker in self._processes):
                self._turn(Batch(), len(population))
        except BaseException:
            self._task = None
            self._abandon()
            raise

    def train(
        self, task: Task, population: Sequence[Any], memory: Any, streams: Sequence[Streams]
    ) -> list[EpisodeResult]:
        """Let every agent spend one episode, as ``train_agent`` does."""
        results: list[EpisodeResult] = self._do(
            task, Batch("train", population, streams, memory), memory
        )
        return results

    def evaluate(
        self, task: Task, population: Sequence[Any], streams: Sequence[Streams]
    ) -> list[Evaluation]:
        """Evaluate every agent, as ``evaluate_agent`` does."""
        memory = None if self._task is None else self._task[1]
        results: list[Evaluation] = self._do(task, Batch("evaluate", population, streams), memory)
        return results

    def close(self) -> None:
        """End all workers, and wait until they are gone."""
        end(self._processes)
        self._task, self._pickled, self._news, self._false_starts = None, b"", None, 0

    # -------------------------------------------------------------------------------------- batches

    def _do(self, task: Task, batch: Batch, memory: Any) -> list[Any]:
        """Have the jobs done, bring the agents home, and return the results by slot."""
        if self._task is None or self._task[0] is not task or self._task[1] is not memory:
            self.begin(task, batch.population, memory)
        try:
            while not batch.done:
                self._turn(batch, len(batch.population))
            return batch.home()
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """End the workers that are in the middle of something."""
        busy = [worker for worker in self._processes if worker.doing not in READY]
        self._processes[:] = [worker for worker in self._processes if worker.doing in READY]
        end(busy)

    def _take(self, task: Task, memory: Any) -> None:
        """Make ``task`` the one that workers do from now on."""
        self._pickled = pickled_task(task)
        self._task = task, memory
        self._number += 1
        self._news = None

    def _hire(self, population: int) -> None:
        """Start the workers that are missing."""
        while len(self._processes) < min(self.workers, population):
            self._processes.append(WorkerHandle(torch.get_num_threads()))

    def _turn(self, batch: Batch, population: int) -> None:
        """Give work to whoever has none, and hear whoever has something to say."""
        check()
        self._hire(population)
        for worker in list(self._processes):
            if worker.doing is None:
                self._give_work(worker, batch)
        limit = self.env_timeout
        pause = LOOK if limit is None else min(LOOK, limit / 4)
        heard = wait([worker.connection for worker in self._processes], pause)
        for worker in list(self._processes):
            if worker.connection in heard:
                self._hear(worker, batch)
            elif worker.silent(2 * pause) > (limit or math.inf) and worker.doing not in READY:
                self._lose(worker, batch, f"no sign of life for env_timeout={limit:g} s")

    def _give_work(self, worker: WorkerHandle, batch: Batch) -> None:
        try:
            if worker.task != self._number:
                worker.doing, worker.counter = TAKING, None
                worker.send_pickled("take_task", self._pickled)
            elif batch.waiting:
                worker.doing = TELLING
                if batch.memory is not None:
                    self._tell_news(worker, batch.memory)
                slot = worker.doing = batch.waiting.pop(0)
                agent, streams = packed(batch.population[slot]), batch.streams[slot]
                worker.send(batch.name, agent, streams, torch.get_num_threads())
        except OSError:
            self._lose(worker, batch)

    def _hear(self, worker: WorkerHandle, batch: Batch) -> None:
        try:
            value, records = worker.receive()
        except (EOFError, OSError):
            self._lose(worker, batch)
            return
        for record in records:
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        doing, worker.doing = worker.doing, None
        if isinstance(doing, int):
            if isinstance(value, Failure):
                batch.fail(doing, value)
            else:
                batch.answers[doing] = value
        elif isinstance(value, Failure):
            raise not_made(value)
        elif doing == TAKING:
            worker.task, self._false_starts = self._number, 0

    def _lose(self, worker: WorkerHandle, batch: Batch, why: str = "") -> None:
        """Count a worker that is gone or hangs, and let its job wait again."""
        worker.kill()
        why = why or worker.reap()
        worker.reap()
        worker.connection.close()
        self._processes.remove(worker)
        self.lost += 1
        doing = worker.doing
        if isinstance(doing, int):
            what, count = batch.job(doing), batch.lose(doing, why)
        else:
            self._false_starts += doing is not None
            what, count = str(doing or "waiting"), self._false_starts
        logger.warning("a worker process was lost (%s) at: %s; another one goes on", why, what)
        if count >= LOSSES:
            raise EnvError(
                f"{what}: {LOSSES} worker processes were lost running, the last by: {why}.  What a"
                " worker said of it is on stderr; workers=0 runs in this process, where a debugger"
                " reaches it, and a larger env_timeout lets slow steps live."
            )

    def _tell_news(self, worker: WorkerHandle, memory: ReplayBuffer) -> None:
        """Bring a worker's replica of the buffer up to date."""
        known, counter, size = worker.counter, memory.counter, memory.memory_size
        if known == counter:
            return
        if known and known < counter < known + size:
            if self._news is None or self._news[:2] != (known, counter):
                rows = memory.rows(known, counter)
                self._news = known, counter, dumps((rows, counter, memory.last_call))
            worker.send_pickled("take_rows", self._news[2])
        else:
            worker.send("take_memory", memory.settings, str(memory.device))
            held = len(memory)
            for first, last in chunks(memory):
                after = counter if last == held else last
                worker.send("take_rows", memory.rows(first, last), after, memory.last_call)
        worker.counter = counter
