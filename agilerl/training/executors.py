"""Where the jobs of a run are done: in this process, or in worker processes.

The result of a job depends on its arguments only (see ``training.jobs``), so that an executor
changes how long a run takes, and no number.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, Protocol

import torch

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import AgileRLError, ConfigError, EnvError, check_float, check_int
from agilerl.seeding import Streams
from agilerl.signals import check
from agilerl.threads import cores
from agilerl.training.jobs import EpisodeResult, Evaluation, Task, evaluate_agent, train_agent
from agilerl.training.pickling import Failure, Packed, dumps
from agilerl.training.worker_handle import STARTING, WorkerHandle, end

logger = logging.getLogger("agilerl")

#: Losses running of one job that stop a run.
LOSSES = 3
#: Seconds between two looks at workers that say nothing.
LOOK = 0.5
#: Bytes of a replay buffer that are copied at once.
CHUNK = 1 << 26
#: What a worker does that takes over a task, its environments included.
TAKING = "taking over the task"
#: What it does that is told what the buffer has stored since.
TELLING = "bringing the buffer up to date"
#: What may take any time.
READY = (None, STARTING)


class Executor(Protocol):
    """Where the jobs of a population are done; agents change in place, results come by slot."""

    def begin(self, task: Task, population: Sequence[Any], memory: Any) -> None:
        """Get ready for a run; raise if it can't be done here, before anything is trained."""
        ...

    def train(
        self, task: Task, population: Sequence[Any], memory: Any, streams: Sequence[Streams]
    ) -> list[EpisodeResult]:
        """Let every agent spend one episode, as ``train_agent`` does."""
        ...

    def evaluate(
        self, task: Task, population: Sequence[Any], streams: Sequence[Streams]
    ) -> list[Evaluation]:
        """Evaluate every agent, as ``evaluate_agent`` does."""
        ...

    def close(self) -> None:
        """Let go of what belongs to no run; the executor may be used again."""
        ...


class InProcess:
    """Does one job after the other, in this process."""

    def begin(self, task: Task, population: Sequence[Any], memory: Any) -> None:
        """Do nothing: whatever can be trained can be trained here."""

    def train(
        self, task: Task, population: Sequence[Any], memory: Any, streams: Sequence[Streams]
    ) -> list[EpisodeResult]:
        """Let every agent spend one episode, as ``train_agent`` does."""
        before: list[tuple[Any, Any]] = []
        results = []
        try:
            for agent, own in zip(population, streams, strict=True):
                if hasattr(agent, "load_state_dict"):
                    before.append((agent, agent.state_dict()))
                results.append(train_agent(task, agent, memory, own))
        except BaseException:
            for agent, state in before:  # the episode is abandoned: nobody has spent it
                agent.load_state_dict(state)
            raise
        return results

    def evaluate(
        self, task: Task, population: Sequence[Any], streams: Sequence[Streams]
    ) -> list[Evaluation]:
        """Evaluate every agent, as ``evaluate_agent`` does."""
        before = [len(agent.fitness) for agent in population]
        try:
            return [
                evaluate_agent(task, agent, own)
                for agent, own in zip(population, streams, strict=True)
            ]
        except BaseException:
            for agent, count in zip(population, before, strict=True):
                del agent.fitness[count:]
            raise

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


@contextmanager
def chosen_executor(
    workers: object,
    executor: Executor | None,
    env_timeout: float | None,
    population: int,
) -> Iterator[Executor]:
    """Give the executor that a run's arguments ask for; close it, unless it is the user's own.

    Args:
        workers: number of processes, 0 for none, or "auto" for as many as there are cores.
        executor: of the user's own, or None.
        env_timeout: see ``Processes``.
        population: number of agents.

    Raises:
        ConfigError: on arguments that can't be used.
    """
    count = worker_count(workers, population)
    if executor is not None:
        if workers != 0:
            raise ConfigError(
                f"workers: {workers!r} was given beside an executor, which has workers of its own;"
                " pass one of the two."
            )
        yield executor
        return
    chosen = Processes(count, env_timeout) if count else InProcess()
    try:
        yield chosen
    finally:
        chosen.close()


def worker_count(workers: object, population: int) -> int:
    """Return how many worker processes to use; warn where there are fewer cores."""
    if workers == "auto":
        count = min(cores(), population)
        return count if count > 1 else 0
    if isinstance(workers, str) or workers is None:
        raise ConfigError(f"workers: expected an integer >= 0 or 'auto', got {workers!r}.")
    count = min(check_int("workers", workers, minimum=0), population)
    if count > cores():
        warnings.warn(
            f"workers: {count} processes share {cores()} cores, which is slower than one for each"
            f" core; workers='auto' takes {min(cores(), population)}.",
            UserWarning,
            stacklevel=5,
        )
    return count


@dataclass
class Batch:
    """The jobs of a population that are under way.

    Attributes:
        name: what a worker calls them, "train" or "evaluate".
        population: the agents, by slot.
        streams: of each job.
        memory: the replay buffer, or None where the jobs need none.
        waiting: slots whose job no worker does.
        answers: what came back, by slot.
        losses: for each slot, how its workers were lost, one after the other.
        failed: the lowest slot whose job raised, and what it raised; that of no other is told, as
            in one process.
    """

    name: str = ""
    population: Sequence[Any] = ()
    streams: Sequence[Streams] = ()
    memory: Any = None
    waiting: list[int] = field(init=False)
    answers: dict[int, Any] = field(default_factory=dict)
    losses: dict[int, list[str]] = field(default_factory=dict)
    failed: tuple[int, Failure] | None = None

    def __post_init__(self) -> None:
        """Let all jobs wait."""
        self.waiting = list(range(len(self.population)))

    def fail(self, slot: int, failure: Failure) -> None:
        """Note that a job raised: those of higher slots need not be done."""
        if self.failed is None or slot < self.failed[0]:
            self.failed = slot, failure
            self.waiting = [other for other in self.waiting if other < slot]

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for."""
        last = len(self.population) if self.failed is None else self.failed[0]
        return not self.waiting and all(slot in self.answers for slot in range(last))

    def job(self, slot: int) -> str:
        """Return what the job of a slot is, in words."""
        kind = "episode" if self.name == "train" else "evaluation"
        return f"{kind} {self.streams[slot].number} of slot {slot}"


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
        if memory is not None and type(memory) is not ReplayBuffer:
            raise ConfigError(
                f"memory: {type(memory).__name__} is not exactly a ReplayBuffer, and can't be"
                " shared with worker processes; pass a ReplayBuffer, or workers=0."
            )
        for agent in population:
            missing = [x for x in ("state_dict", "load_state_dict") if not hasattr(agent, x)]
            if missing:
                raise ConfigError(
                    f"pop: {type(agent).__name__} has no {' and no '.join(missing)}, by which what"
                    " it learns in a worker process comes home; add them, or pass workers=0."
                )
            packed(agent)
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
        if len(set(map(id, batch.population))) < len(batch.population):
            raise ConfigError(
                "pop: one agent is in two slots, and can't be trained by two workers; let the"
                " tournament return clones, or pass workers=0."
            )
        if self._task is None or self._task[0] is not task or self._task[1] is not memory:
            self.begin(task, batch.population, memory)
        try:
            while not batch.done:
                self._turn(batch, len(batch.population))
            if batch.failed is not None:
                raise batch.failed[1].error()
        except BaseException:
            self._abandon()
            raise
        results = []
        for slot, agent in enumerate(batch.population):
            state, kept, result = batch.answers[slot]
            agent.load_state_dict(state)
            for name, value in kept.items():
                setattr(agent, name, value)
            results.append(result)
        return results

    def _abandon(self) -> None:
        """End the workers that are in the middle of something."""
        busy = [worker for worker in self._processes if worker.doing not in READY]
        self._processes[:] = [worker for worker in self._processes if worker.doing in READY]
        end(busy)

    def _take(self, task: Task, memory: Any) -> None:
        """Make ``task`` the one that workers do from now on."""
        try:
            self._pickled = dumps((dumps(task),))
        except Exception as error:  # whatever an object may raise that can't be pickled
            raise EnvError(
                f"env: can't be copied to worker processes ({type(error).__name__}: {error}); make"
                " it by makeVectEnvs(...) with an id, a class or a function that makes one, or pass"
                " workers=0."
            ) from error
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
            losses = batch.losses.setdefault(doing, [])
            losses.append(why)
            what, count = batch.job(doing), len(losses)
            if batch.failed is None or doing < batch.failed[0]:
                batch.waiting.insert(0, doing)
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


def chunks(memory: ReplayBuffer) -> list[tuple[int, int]]:
    """Return bounds that divide the ring, so that little of it is held twice on its way."""
    held = len(memory)
    row = sum(values.nbytes for values in memory.rows(0, 1)) if held else 1
    size = max(1, CHUNK // max(row, 1))
    return [(first, min(first + size, held)) for first in range(0, held, size)]


def packed(agent: Any) -> Packed:
    """Return ``agent`` pickled; raise ``ConfigError`` if it can't be."""
    try:
        return Packed(dumps(agent))
    except Exception as error:  # whatever an object may raise that can't be pickled
        raise ConfigError(
            f"pop: {type(agent).__name__} can't be copied to worker processes"
            f" ({type(error).__name__}: {error}); leave out of its state what can't be pickled"
            " (__getstate__), or pass workers=0."
        ) from error


def not_made(failure: Failure) -> BaseException:
    """Return what to raise where a worker could not take the task."""
    error = failure.error()
    if isinstance(error, AgileRLError) or not isinstance(error, Exception):
        return error
    told = EnvError(
        f"env: no copy could be made in a worker process ({failure.summary}); give makeVectEnvs an"
        " id, a class or a function that makes one wherever it is called, or pass workers=0."
    )
    told.__cause__ = error
    return told
