"""Workers anywhere in a Ray cluster; ``training.worker`` is the inside of one.

Ray schedules and places the workers, carries what they need, and notices when they or their nodes
are gone (Moritz et al. 2018).  What is here is which job goes where, and that the numbers stay the
same.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from agilerl import __version__
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import ConfigError, EnvError, check_float, check_int
from agilerl.seeding import Streams
from agilerl.signals import check
from agilerl.threads import cores
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
from agilerl.training.pickling import Failure, dumps, loads
from agilerl.training.worker import Records, Worker, done

logger = logging.getLogger("agilerl")

#: Seconds to wait for an answer from the address of a cluster.
PATIENCE = 10.0


@dataclass
class RemoteWorker:
    """A worker as the driver sees it.

    Attributes:
        actor: Ray's handle of it.
        doing: the slot of its job, a word for other work, or None.
        answer: the reference of what it will answer.
        counter: of its replica of the replay buffer; None where it has none.
    """

    actor: Any
    doing: int | str | None = None
    answer: Any = None
    counter: int | None = None


class RayExecutor:
    """Does the jobs in workers of a Ray cluster.

    The numbers are those of ``InProcess``, bit for bit, for any number of workers and nodes, and
    also where a worker or a node was lost: its job is then done again by another one, from the same
    agent and with the same streams.  Every node needs the same versions of Python, torch and this
    library.

    Args:
        address: of a cluster, "auto" for the one that this machine belongs to; None starts Ray on
            this machine, and stops it with ``close()``.
        workers: at most; None takes as many as the cluster has room for, up to one an agent.
        cpus: cores of each worker.
        gpus: GPUs of each worker; a share, 0.25 say, lets four use the same one.

    Attributes:
        lost: workers lost so far.

    Raises:
        ConfigError: if Ray is not installed, or on numbers that can't be used.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        self._ray = loaded_ray()
        self.address = address
        self.workers = None if workers is None else check_int("workers", workers)
        self.cpus = check_float("cpus", cpus, 0.01)
        self.gpus = check_float("gpus", gpus, 0.0)
        self.lost = 0
        self._started = False
        self._task: tuple[Any, Any] | None = None
        self._pickled: Any = None
        self._news: tuple[int, int, Any] | None = None
        self._crew: list[RemoteWorker] = []
        self._false_starts = 0

    # ---------------------------------------------------------------------------- as every executor

    def begin(self, task: Task, population: Sequence[Any], memory: Any) -> None:
        """Start the workers and give them the task; raise if it can't be done by them.

        Raises:
            ConfigError: if there is no cluster at the address, or one of other versions; if an
                agent or the buffer can't travel.
            EnvError: if the environment can't be copied.
        """
        check_travel(population, memory)
        pickled = pickled_task(task)
        self._connect()
        self._dismiss(busy_only=True)
        self._pickled, self._news = self._ray.put(pickled), None
        self._task = task, memory
        try:
            batch = Batch()
            for worker in self._crew:
                self._give_task(worker)
            self._hire(len(population))
            while any(worker.doing is not None for worker in self._crew):
                self._turn(batch, len(population))
        except BaseException:
            self._task = None
            self._dismiss(busy_only=True)
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
        """End all workers, and Ray itself where it was started here."""
        self._dismiss()
        self._task, self._pickled, self._news, self._false_starts = None, None, None, 0
        if self._started:
            self._ray.shutdown()
            self._started = False

    # ------------------------------------------------------------------------------------ the crew

    def _connect(self) -> None:
        """Connect to the cluster, or start Ray here; leave a connection that there is."""
        if self._ray.is_initialized():
            return
        settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        host, _, port = (self.address or "").rpartition(":")
        if self.address is None:
            settings |= {"num_cpus": self.workers or cores(), "include_dashboard": False}
        try:
            if host and port.isdigit():  # Ray itself would try for minutes
                socket.create_connection((host.rpartition("/")[2], int(port)), PATIENCE).close()
            self._ray.init(address=self.address or "local", **settings)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"address: no connection to a Ray cluster at {self.address!r} ({error}); start one"
                " by `ray start --head`, with the same versions of Python and ray as here, or leave"
                " the address out."
            ) from error
        self._started = True

    def _dismiss(self, busy_only: bool = False) -> None:
        """End the workers, all or those that do something."""
        for worker in list(self._crew):
            if worker.doing is not None or not busy_only:
                with contextlib.suppress(Exception):  # the cluster may be gone
                    self._ray.kill(worker.actor)
                self._crew.remove(worker)

    def _room(self, population: int) -> int:
        """Return how many workers to have."""
        resources = self._ray.cluster_resources()
        room = int(resources.get("CPU", 0) / self.cpus)
        if self.gpus:
            room = min(room, int(resources.get("GPU", 0) / self.gpus))
        if not room:
            raise ConfigError(
                f"cpus, gpus: the cluster has no room for a worker of {self.cpus:g} CPUs and"
                f" {self.gpus:g} GPUs: it has {resources.get('CPU', 0):g} and"
                f" {resources.get('GPU', 0):g}."
            )
        return min(room, population, self.workers or population)

    def _hire(self, population: int) -> None:
        """Start the workers that are missing, and give them the task."""
        actor_class = self._ray.remote(RayWorker).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        while len(self._crew) < self._room(population):
            worker = RemoteWorker(actor_class.remote(versions()))
            self._crew.append(worker)
            self._give_task(worker)

    def _give_task(self, worker: RemoteWorker) -> None:
        worker.counter = None
        self._ask(worker, "taking over the task", "take_task", self._pickled)

    def _ask(self, worker: RemoteWorker, doing: int | str, name: str, arguments: Any) -> None:
        worker.doing = doing
        worker.answer = worker.actor.do.remote(name, arguments)

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
            self._dismiss(busy_only=True)
            raise

    def _turn(self, batch: Batch, population: int) -> None:
        """Give work to whoever has none, and hear whoever has something to say."""
        check()
        self._hire(population)
        for worker in self._crew:
            if worker.doing is None and batch.waiting:
                if batch.memory is not None:
                    self._tell_news(worker, batch.memory)
                slot = batch.waiting.pop(0)
                job = packed(batch.population[slot]), batch.streams[slot], torch.get_num_threads()
                self._ask(worker, slot, batch.name, dumps(job))
        asked = {worker.answer: worker for worker in self._crew if worker.doing is not None}
        heard, _ = self._ray.wait(list(asked), num_returns=1, timeout=LOOK) if asked else ([], [])
        for answer in heard:
            self._hear(asked[answer], batch)

    def _hear(self, worker: RemoteWorker, batch: Batch) -> None:
        try:
            value, records = loads(self._ray.get(worker.answer))
        except self._ray.exceptions.RayError as error:
            self._lose(worker, batch, str(error).splitlines()[0])
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
        else:
            self._false_starts = 0

    def _lose(self, worker: RemoteWorker, batch: Batch, why: str) -> None:
        """Count a worker that is gone, and let its job wait again."""
        with contextlib.suppress(Exception):  # it is gone
            self._ray.kill(worker.actor)
        self._crew.remove(worker)
        self.lost += 1
        if isinstance(worker.doing, int):
            what, count = batch.job(worker.doing), batch.lose(worker.doing, why)
        else:
            self._false_starts += 1
            what, count = str(worker.doing), self._false_starts
        logger.warning("a Ray worker was lost (%s) at: %s; another one goes on", why, what)
        if count >= LOSSES:
            raise EnvError(
                f"{what}: {LOSSES} Ray workers were lost running, the last by: {why}.  What a"
                " worker said of it is in Ray's logs; workers=0 runs in this process, where a"
                " debugger reaches it."
            )

    def _tell_news(self, worker: RemoteWorker, memory: ReplayBuffer) -> None:
        """Bring a worker's replica of the buffer up to date; it does what it is told in order."""
        known, counter, size = worker.counter, memory.counter, memory.memory_size
        if known == counter:
            return
        tell = worker.actor.do.remote
        if known and known < counter < known + size:
            if self._news is None or self._news[:2] != (known, counter):
                rows = dumps((memory.rows(known, counter), counter, memory.last_call))
                self._news = known, counter, self._ray.put(rows)
            tell("take_rows", self._news[2])
        else:
            settings = dumps((memory.settings, str(memory.device)))
            tell("take_memory", settings)
            held = len(memory)
            for first, last in chunks(memory):
                after = counter if last == held else last
                rows = dumps((memory.rows(first, last), after, memory.last_call))
                tell("take_rows", rows)
        worker.counter = counter


class RayWorker:
    """What a worker is on its node: it does the jobs that it is sent, one after the other.

    Args:
        expected: the versions that the driver has.

    Raises:
        ConfigError: if this node has others, with which the numbers would differ.
    """

    def __init__(self, expected: dict[str, str]) -> None:
        found = versions()
        self._wrong = {k: (v, found[k]) for k, v in expected.items() if found[k] != v}
        self._worker, self._records = Worker(), Records()
        logging.getLogger("agilerl").addHandler(self._records)

    def do(self, name: str, arguments: bytes) -> bytes:
        """Return the answer to a request, pickled."""
        if self._wrong:
            told = ", ".join(f"{k} {there} and not {v}" for k, (v, there) in self._wrong.items())
            error = ConfigError(f"address: a node has {told}; install the same versions there.")
            return dumps((Failure.of(error), []))
        return done(getattr(self._worker, name), arguments, self._records)


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, "torch": str(torch.__version__), "agilerl": __version__}


def loaded_ray() -> Any:
    """Return the module ``ray``; raise ``ConfigError`` if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "executor: RayExecutor needs Ray; install it with `pip install 'agilerl[ray]'`, or use"
            " workers=N for the cores of this machine."
        ) from error
    return ray
