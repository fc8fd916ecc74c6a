"""Executors whose workers are other processes: who does what, and what is done about losses.

A subclass says how a worker is made, and how it hears and answers.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import EnvError, check_float
from agilerl.seeding import Streams
from agilerl.signals import check
from agilerl.training.batches import Batch, check_travel, chunks, not_made, packed, pickled_task
from agilerl.training.jobs import EpisodeResult, Evaluation, Task
from agilerl.training.pickling import Failure, dumps
from agilerl.training.worker import Reply

#: Losses running of one job that stop a run.
LOSSES = 3
#: Seconds between two looks at workers that say nothing.
LOOK = 0.5

#: What a worker does that loads modules.
STARTING = "starting"
#: What it does that takes over a task, its environments included.
TAKING = "taking over the task"
#: What it does that is told what the buffer has stored since.
TELLING = "bringing the buffer up to date"
#: What may take any time.
READY = (None, STARTING)

logger = logging.getLogger("agilerl")


class LostError(Exception):
    """A worker is gone; the message says why, where that is known."""


class RemoteWorker(ABC):
    """A worker as the driver sees it.

    Attributes:
        doing: the slot of its job, a word for other work, or None.
        task: the number of the task that it was given.
        counter: of its replica of the replay buffer; None where it has none.
    """

    def __init__(self) -> None:
        self.doing: int | str | None = STARTING
        self.task = 0
        self.counter: int | None = None
        self._seen = 0
        self._silent = 0.0
        self._looked = time.monotonic()

    def send(self, name: str, arguments: Any) -> None:
        """Ask for something, with pickled arguments; raise ``LostError`` if the worker is gone."""
        self.deliver(name, arguments)
        self._silent, self._looked = 0.0, time.monotonic()

    @abstractmethod
    def deliver(self, name: str, arguments: Any) -> None:
        """Bring a request to the worker; raise ``LostError`` if it is gone."""

    @abstractmethod
    def receive(self) -> Reply:
        """Return the answer that has come; raise ``LostError`` if the worker is gone."""

    @abstractmethod
    def beats(self) -> int:
        """Return how many pieces of work it has done, as far as that is known here."""

    @abstractmethod
    def destroy(self) -> str:
        """End the worker at once; return how it ended, or nothing if that is not known."""

    def silent(self, longest: float) -> float:
        """Return for how many seconds there was no sign of life, as far as this process looked.

        Args:
            longest: seconds that count at most since the last look: this process may have been
                stopped itself.
        """
        now, beats = time.monotonic(), self.beats()
        if beats != self._seen:
            self._seen, self._silent = beats, 0.0
        else:
            self._silent += min(now - self._looked, longest)
        self._looked = now
        return self._silent


W = TypeVar("W", bound=RemoteWorker)


class Crew(ABC, Generic[W]):
    """An executor that hands jobs to workers, each to whichever is free.

    Args:
        env_timeout: seconds without a vector step or learn step after which a worker is taken to
            hang, and ended; None waits for ever.

    Attributes:
        lost: workers lost so far.
    """

    #: What one worker and several are called.
    names: ClassVar[tuple[str, str]]
    #: Where a worker says what happened to it.
    told: ClassVar[str]

    def __init__(self, env_timeout: float | None) -> None:
        self.env_timeout = (
            None if env_timeout is None else check_float("env_timeout", env_timeout, 0.1)
        )
        self.lost = 0
        self._crew: list[W] = []
        self._task: tuple[Any, Any] | None = None
        self._number = 0
        self._pickled: Any = None
        self._news: tuple[int, int, Any] | None = None
        self._false_starts = 0

    # --------------------------------------------------------------------------- what differs

    @abstractmethod
    def _room(self, population: int) -> int:
        """Return how many workers to have."""

    @abstractmethod
    def _new_worker(self) -> W:
        """Start a worker."""

    @abstractmethod
    def _heard(self, pause: float) -> list[W]:
        """Wait so many seconds for an answer; return the workers that have one, or are gone."""

    @abstractmethod
    def _end(self, workers: list[W]) -> None:
        """End workers, and empty the list."""

    def _connect(self) -> None:
        """Reach the place where workers are."""

    def _shared(self, pickled: bytes) -> Any:
        """Return arguments in the form in which they are sent to several workers."""
        return pickled

    # ---------------------------------------------------------------------- as every executor

    def begin(self, task: Task, population: Sequence[Any], memory: Any) -> None:
        """Start the workers and give them the task; raise if it can't be done by them.

        Raises:
            ConfigError: if an agent or the buffer can't travel, or workers can't be had.
            EnvError: if the environment can't be copied.
        """
        check_travel(population, memory)
        pickled = pickled_task(task)
        self._connect()
        self._pickled, self._news = self._shared(pickled), None
        self._task = task, memory
        self._number += 1
        try:
            self._turn(Batch(), len(population))
            while any(w.task != self._number or w.doing is not None for w in self._crew):
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
        """End all workers; the executor may be used again."""
        self._end(self._crew)
        self._task, self._pickled, self._news, self._false_starts = None, None, None, 0

    # -------------------------------------------------------------------------------- batches

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
        busy = [worker for worker in self._crew if worker.doing not in READY]
        self._crew[:] = [worker for worker in self._crew if worker.doing in READY]
        self._end(busy)

    def _turn(self, batch: Batch, population: int) -> None:
        """Give work to whoever has none, and hear whoever has something to say."""
        check()
        for _ in range(self._room(population) - len(self._crew)):
            self._crew.append(self._new_worker())
        for worker in list(self._crew):
            if worker.doing is None:
                self._give_work(worker, batch)
        limit = self.env_timeout
        pause = LOOK if limit is None else min(LOOK, limit / 4)
        heard = self._heard(pause)
        for worker in list(self._crew):
            if worker in heard:
                self._hear(worker, batch)
            elif limit is None or worker.doing in READY:
                continue
            elif worker.silent(2 * pause) > limit:
                self._lose(worker, batch, f"no sign of life for env_timeout={limit:g} s")

    def _give_work(self, worker: W, batch: Batch) -> None:
        try:
            if worker.task != self._number:
                worker.doing, worker.counter, worker.task = TAKING, None, self._number
                worker.send("take_task", self._pickled)
            elif batch.waiting:
                worker.doing = TELLING
                if batch.memory is not None:
                    self._tell_news(worker, batch.memory)
                slot = worker.doing = batch.waiting.pop(0)
                job = packed(batch.population[slot]), batch.streams[slot], torch.get_num_threads()
                worker.send(batch.name, dumps(job))
        except LostError as loss:
            self._lose(worker, batch, str(loss))

    def _hear(self, worker: W, batch: Batch) -> None:
        try:
            value, records = worker.receive()
        except LostError as loss:
            self._lose(worker, batch, str(loss))
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
            worker.task = 0
            raise not_made(value)
        elif doing == TAKING:
            self._false_starts = 0

    def _lose(self, worker: W, batch: Batch, why: str) -> None:
        """Count a worker that is gone or hangs, and let its job wait again."""
        ended = worker.destroy()
        why = why or ended
        self._crew.remove(worker)
        self.lost += 1
        doing = worker.doing
        if isinstance(doing, int):
            what, count = batch.job(doing), batch.lose(doing, why)
        else:
            self._false_starts += doing is not None
            what, count = str(doing or "waiting"), self._false_starts
        one, many = self.names
        logger.warning("a %s was lost (%s) at: %s; another one goes on", one, why, what)
        if count >= LOSSES:
            raise EnvError(
                f"{what}: {LOSSES} {many} were lost running, the last by: {why}.  What a worker"
                f" said of it is {self.told}; workers=0 runs in this process, where a debugger"
                " reaches it, and a larger env_timeout lets slow steps live."
            )

    def _tell_news(self, worker: W, memory: ReplayBuffer) -> None:
        """Bring a worker's replica of the buffer up to date; it does what it is told in order."""
        known, counter, size = worker.counter, memory.counter, memory.memory_size
        if known == counter:
            return
        if known and known < counter < known + size:
            if self._news is None or self._news[:2] != (known, counter):
                rows = dumps((memory.rows(known, counter), counter, memory.last_call))
                self._news = known, counter, self._shared(rows)
            worker.send("take_rows", self._news[2])
        else:
            worker.send("take_memory", dumps((memory.settings, str(memory.device))))
            held = len(memory)
            for first, last in chunks(memory):
                after = counter if last == held else last
                rows = dumps((memory.rows(first, last), after, memory.last_call))
                worker.send("take_rows", rows)
        worker.counter = counter
