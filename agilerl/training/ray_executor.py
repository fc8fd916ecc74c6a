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
from typing import Any

import torch

from agilerl import __version__
from agilerl.errors import ConfigError, check_float, check_int
from agilerl.lifeline import beat, beat_into
from agilerl.networks import mlp_kernel
from agilerl.threads import cores
from agilerl.training.crew import Crew, LostError, RemoteWorker
from agilerl.training.pickling import Failure, dumps, loads
from agilerl.training.worker import Records, Reply, Worker, done

#: Seconds to wait for an answer from the address of a cluster.
PATIENCE = 10.0
#: What Ray calls the thread of a worker that says how far it is, whatever the jobs do.
PULSE = "pulse"


class RayHandle(RemoteWorker):
    """A worker of a Ray cluster.

    Args:
        ray: the module.
        actor: Ray's handle of the worker.

    Attributes:
        answer: the reference of what it will answer.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        super().__init__()
        self._ray, self.actor = ray, actor
        self.answer = actor.ready.remote()
        self._pulse: Any = None
        self._beats = 0

    def deliver(self, name: str, arguments: Any) -> None:
        """Ask for something, with pickled arguments."""
        self.answer = self.actor.do.remote(name, arguments)

    def receive(self) -> Reply:
        """Return the answer; raise ``LostError`` if the worker is gone."""
        try:
            reply: Reply = loads(self._ray.get(self.answer))
        except self._ray.exceptions.RayError as error:
            raise LostError(str(error).splitlines()[0]) from error
        return reply

    def beats(self) -> int:
        """Return how many pieces of work the worker had done when it was heard last; ask anew."""
        if self._pulse is not None and self._ray.wait([self._pulse], timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):  # its job's answer tells it
                self._beats = self._ray.get(self._pulse)
            self._pulse = None
        if self._pulse is None:
            self._pulse = self.actor.pulse.options(concurrency_group=PULSE).remote()
        return self._beats

    def destroy(self) -> str:
        """Let Ray kill the worker."""
        with contextlib.suppress(Exception):  # it may be gone, and the cluster too
            self._ray.kill(self.actor)
        return ""


class RayExecutor(Crew[RayHandle]):
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
        env_timeout: seconds without a vector step or learn step after which a worker is taken to
            hang, and killed.  Jobs are then done in a thread beside the main one, which is left to
            Ray; with None they are done in the main thread, and nobody watches.

    Attributes:
        lost: workers lost so far.

    Raises:
        ConfigError: if Ray is not installed, or on numbers that can't be used.
    """

    names = "Ray worker", "Ray workers"
    told = "in Ray's logs"

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus: float = 1,
        gpus: float = 0,
        env_timeout: float | None = 60.0,
    ) -> None:
        super().__init__(env_timeout)
        self._ray = loaded_ray()
        self.address = address
        self.workers = None if workers is None else check_int("workers", workers)
        self.cpus = check_float("cpus", cpus, 0.01)
        self.gpus = check_float("gpus", gpus, 0.0)
        self._started = False

    def close(self) -> None:
        """End all workers, and Ray itself where it was started here."""
        super().close()
        if self._started:
            self._ray.shutdown()
            self._started = False

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

    def _new_worker(self) -> RayHandle:
        remote = self._ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            concurrency_groups=None if self.env_timeout is None else {PULSE: 1},
        )
        return RayHandle(self._ray, remote(RayWorker).remote(versions()))

    def _shared(self, pickled: bytes) -> Any:
        return self._ray.put(pickled)

    def _heard(self, pause: float) -> list[RayHandle]:
        asked = {worker.answer: worker for worker in self._crew if worker.doing is not None}
        heard, others = self._ray.wait(list(asked), num_returns=1, timeout=pause)
        if others:
            heard += self._ray.wait(others, num_returns=len(others), timeout=0)[0]
        return [asked[answer] for answer in heard]

    def _end(self, workers: list[RayHandle]) -> None:
        for worker in workers:
            worker.destroy()
        workers.clear()


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
        self._beats = beat_into(-1)
        logging.getLogger("agilerl").addHandler(self._records)

    def ready(self) -> bytes:
        """Answer as soon as the worker has started."""
        return dumps(Reply(None, []))

    def pulse(self) -> int:
        """Return how many pieces of work were done; a thread of its own answers."""
        return int(self._beats[0])

    def do(self, name: str, arguments: bytes) -> bytes:
        """Return the answer to a request, pickled."""
        if self._wrong:
            told = ", ".join(f"{k} {there} and not {v}" for k, (v, there) in self._wrong.items())
            error = ConfigError(f"address: a node has {told}; install the same versions there.")
            return dumps((Failure.of(error), []))
        answer = done(getattr(self._worker, name), arguments, self._records)
        beat()
        return answer


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {
        "python": python,
        "torch": str(torch.__version__),
        "agilerl": __version__,
        "MLP passes": mlp_kernel.kind(),
    }


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
