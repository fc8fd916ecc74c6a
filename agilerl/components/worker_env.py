"""A vector environment whose sub-environments step in processes of their own."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper as Bundle

from agilerl.components.vector_env import Array, EnvInfos, SameStepVectorEnv
from agilerl.components.worker_process import (
    DONE,
    FAILED,
    RESET,
    SAID,
    STEP,
    Failure,
    Layout,
    Order,
    Shared,
    send,
)
from agilerl.errors import ConfigError, EnvError, check_int

#: Seconds that a worker has to close its environments, before it is killed.
PATIENCE = 5.0

#: A worker is a fresh interpreter: it loads no script of the user's, and no torch.
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from agilerl.components.worker_process import serve; serve(*map(int, sys.argv[2:]))"
)


@dataclass(frozen=True)
class Worker:
    """One process, the pipes to and from it, and its sub-environments first..last-1."""

    process: subprocess.Popen[bytes]
    orders: Connection
    replies: Connection
    first: int
    last: int


def shut_down(workers: list[Worker]) -> None:
    """End all workers: the end of their pipe tells them to close, and what is left is killed."""
    for worker in workers:
        worker.orders.close()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.replies.close()
    workers.clear()


class WorkerVectorEnv(SameStepVectorEnv):
    """Sub-environments in worker processes over shared memory; see ``SameStepVectorEnv``.

    For one seed and the same actions everything it returns is bit for bit what
    ``InProcessVectorEnv`` returns.  Workers step between ``step_async`` and ``step_wait``, while
    the caller does something else.

    Workers end with ``close()``, when this object is collected, and when its process ends, however
    it does.  They do not see Ctrl-C.

    Args:
        makers: functions that make one single environment each, with equal spaces.  They go to
            the workers by (cloud)pickle.
        workers: number of processes, at most one for each sub-environment.
        seed: of the first ``reset()`` that is given none; sub-environment i gets its own.

    Raises:
        ConfigError: on a number of workers that can't be used.
        EnvError: if a space can't be used or an environment can't be made.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], gym.Env[Any, Any]]],
        workers: int,
        seed: int | None = None,
    ) -> None:
        check_workers(workers, len(makers), minimum=1)
        example = makers[0]()
        try:
            super().__init__(example, len(makers), seed)
        finally:
            example.close()
        layout = Layout(
            self.num_envs,
            workers,
            self._state_shape,
            self._state_dtype.str,
            self._action_shape,
            self._action_dtype.str,
        )
        #: workers whose answer is due
        self._due: list[Worker] = []
        self._stepping = False
        self._workers: list[Worker] = []
        self._finalizer = weakref.finalize(self, shut_down, self._workers)
        with tempfile.TemporaryFile(dir=_shared_directory()) as memory:
            self._shared = Shared.over(memory.fileno(), layout)
            bounds = np.linspace(0, self.num_envs, workers + 1).astype(int).tolist()
            for first, last in itertools.pairwise(bounds):
                self._workers.append(_start(memory.fileno(), first, last))
            try:
                for number, worker in enumerate(self._workers):
                    own: Any = makers[worker.first : worker.last]
                    bundle = pickle.dumps(Bundle(own))
                    worker.orders.send(Order(layout, number, worker.first, worker.last, bundle))
                self._due = list(self._workers)
                self._collect()
            except BaseException:
                self._finalizer()
                raise

    def reset_all(self, seeds: Sequence[int | None], options: Any) -> tuple[Array, EnvInfos]:
        """Reset every sub-environment, all workers at once."""
        self._drain()
        pickle.dumps(options)  # an error here, and not between two workers
        self._shared.at[:] = 0
        for worker in self._workers:
            self._tell(worker, RESET, (list(seeds[worker.first : worker.last]), options))
        env_infos = self._collect()
        return self._shared.observations.copy(), env_infos

    def step_async(self, actions: Any) -> None:
        """Start a step in all workers."""
        if self._stepping:
            raise EnvError("step_async: a step is under way; call step_wait() first.")
        inner = self._inner_actions(actions)
        self._drain()
        self._shared.actions[...] = inner
        self._shared.at[:] = 0
        for worker in self._workers:
            self._tell(worker, STEP)
        self._stepping = True

    def step_wait(self) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Return observations, rewards, terminated, truncated and infos of the step."""
        if not self._stepping:
            raise EnvError("step_wait: no step was started; call reset() and step_async() first.")
        env_infos = self._collect()
        shared = self._shared
        return (
            shared.observations.copy(),
            shared.rewards.copy(),
            shared.terminated.copy(),
            shared.truncated.copy(),
            self._infos(env_infos) if env_infos else {},
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Close every sub-environment and end the workers."""
        self._due, self._stepping = [], False
        self._finalizer()

    # -------------------------------------------------------------------------------------- talking

    def _tell(self, worker: Worker, byte: bytes, arguments: Any = None) -> None:
        """Give a worker something to do."""
        try:
            if arguments is None:
                os.write(worker.orders.fileno(), byte)
            else:
                send(worker.orders, byte, arguments)
        except OSError:
            self._lost(worker)
        self._due.append(worker)

    def _collect(self) -> EnvInfos:
        """Wait for the answers that are due, and return all sayings in the order of the envs."""
        env_infos: EnvInfos = []
        failures: list[Failure] = []
        while self._due:  # one that is interrupted (Ctrl-C) leaves the rest due
            worker = self._due[0]
            try:
                byte = os.read(worker.replies.fileno(), 1)
                if byte not in (DONE, SAID, FAILED):
                    self._lost(worker)
                if byte != DONE:
                    (env_infos if byte == SAID else failures).extend(_listed(worker.replies.recv()))
            except (EOFError, OSError):
                self._lost(worker)
            del self._due[0]
        self._stepping = False
        if failures:
            place, error, trace = failures[0]
            raise EnvError(
                f"sub-environment {place}: {error} (in a worker process; workers=0 steps in this"
                f" one, where a debugger reaches it).\n\n{trace}"
            )
        return env_infos

    def _drain(self) -> None:
        """Wait for a step that nobody collected, and forget it."""
        if not self._workers:
            raise EnvError("env: its workers have ended (close() was called, or one died).")
        while self._due:
            try:
                self._collect()
            except EnvError:
                if not self._workers:
                    raise
        self._stepping = False

    def _lost(self, worker: Worker) -> None:
        """End what is left and say which worker died, and where it was."""
        try:
            code: int | str = worker.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = "unknown"
        number = self._workers.index(worker)
        index = worker.first + int(self._shared.at[number])
        self._due, self._stepping = [], False
        self._finalizer()
        raise EnvError(
            f"sub-environment {index}: its worker process died (exit code {code}; a negative one is"
            f" the signal that killed it) with sub-environments {worker.first} to"
            f" {worker.last - 1}.  Make the vector environment anew; workers=0 steps in this"
            " process."
        ) from None


def check_workers(workers: object, num_envs: int, minimum: int = 0) -> int:
    """Return ``workers`` if so many processes can share ``num_envs`` sub-environments."""
    count = check_int("workers", workers, minimum=minimum)
    if count > num_envs:
        raise ConfigError(
            f"workers: {count} processes are more than the {num_envs} sub-environments; pass at"
            f" most num_envs ({num_envs})."
        )
    if count and os.name != "posix":
        raise ConfigError("workers: worker processes need Linux or macOS; pass workers=0.")
    return count


def _listed(message: Any) -> list[Any]:
    return [message] if isinstance(message, Failure) else message


def _shared_directory() -> str | None:
    """Return a directory in memory where there is one: files in it are never written to a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _start(memory: int, first: int, last: int) -> Worker:
    """Start a worker that shares the file ``memory``.

    It is put into a process group of its own, so that Ctrl-C does not reach it.
    """
    order_in, order_out = os.pipe()
    reply_in, reply_out = os.pipe()
    paths = json.dumps([path for path in sys.path if isinstance(path, str)])
    passed = (memory, order_in, reply_out)
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, paths, *map(str, passed)],
            stdin=subprocess.DEVNULL,
            pass_fds=passed,
            process_group=0,
            env={**single, **os.environ},
        )
    finally:
        os.close(order_in)
        os.close(reply_out)
    orders, replies = Connection(order_out, readable=False), Connection(reply_in, writable=False)
    return Worker(process, orders, replies, first, last)
