"""The inside of a worker process: it steps its sub-environments whenever it is told to.

Parent and worker share one block of memory (actions in, observations, rewards and flags out) and
two pipes.  One byte starts a step and one byte reports it, so that a step costs two system calls
on either side; whatever does not fit into the arrays (infos, errors, a reset) is pickled and
follows the byte.  A pipe also tells each side that the other is gone: it reads as ended.

This module and what it imports is all that a worker loads: no torch.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from agilerl.components.vector_env import Array, EnvInfos, SubEnvironments

#: What the parent says: step, or reset (its arguments follow).
STEP, RESET = b"s", b"r"
#: What a worker answers: done; done, and the sayings follow; failed, and a ``Failure`` follows.
DONE, SAID, FAILED = b"0", b"1", b"2"


class Layout(NamedTuple):
    """Shapes and dtypes of the arrays in the shared memory."""

    num_envs: int
    workers: int
    state_shape: tuple[int, ...]
    state_dtype: str
    action_shape: tuple[int, ...]
    action_dtype: str

    def fields(self) -> list[tuple[tuple[int, ...], str]]:
        """Return shape and dtype of each array, in the order of ``Shared``."""
        rows = (self.num_envs,)
        return [
            (self.action_shape, self.action_dtype),
            (self.state_shape, self.state_dtype),
            (rows, "f8"),
            (rows, "?"),
            (rows, "?"),
            ((self.workers,), "i8"),
        ]


class Shared(NamedTuple):
    """The arrays in the shared memory, a row for each sub-environment.

    Attributes:
        at: for each worker, which of its sub-environments is at work.
    """

    actions: Array
    observations: Array
    rewards: Array
    terminated: Array
    truncated: Array
    at: Array

    @classmethod
    def over(cls, descriptor: int, layout: Layout) -> Shared:
        """Map the file of that descriptor, enlarged if need be, into this process."""
        arrays, offset = list[tuple[int, tuple[int, ...], str]](), 0
        for shape, dtype in layout.fields():
            arrays.append((offset, shape, dtype))
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            offset += -(-size // 64) * 64  # cache lines are not shared between arrays
        if os.fstat(descriptor).st_size < offset:
            os.ftruncate(descriptor, offset)
        memory = mmap.mmap(descriptor, offset)
        return cls(*(np.ndarray(shape, dtype, memory, start) for start, shape, dtype in arrays))

    def rows(self, first: int, last: int, worker: int) -> Shared:
        """Return what belongs to the worker of sub-environments first..last-1."""
        own = [array[first:last] for array in self[:-1]]
        return Shared._make([*own, self.at[worker : worker + 1]])


class Failure(NamedTuple):
    """An exception in a sub-environment, and where it was."""

    env: int
    error: str
    trace: str


class Order(NamedTuple):
    """What a worker is told first; ``makers`` is pickled apart, because that may fail."""

    layout: Layout
    worker: int
    first: int
    last: int
    makers: bytes


def send(channel: Connection, signal_byte: bytes, value: Any) -> None:
    """Write one byte and then a pickled value, which is pickled before anything is written."""
    message = pickle.dumps(value)
    os.write(channel.fileno(), signal_byte)
    channel.send_bytes(message)


def answer(replies: Connection, work: Callable[[], EnvInfos], own: Shared, first: int) -> None:
    """Do a piece of work and report it, or how it failed."""
    try:
        env_infos = [(first + i, info) for i, info in work()]
        if env_infos:
            send(replies, SAID, env_infos)
        else:
            os.write(replies.fileno(), DONE)
    except OSError:  # the parent is gone, or an environment lacks a file: either way, say so
        send(replies, FAILED, failure(own, first))
    except Exception:
        send(replies, FAILED, failure(own, first))


def failure(own: Shared, first: int) -> Failure:
    """Return the exception that is being handled."""
    text = traceback.format_exc()
    return Failure(first + int(own.at[0]), text.strip().splitlines()[-1], text)


def serve(memory: int, orders_fd: int, replies_fd: int) -> None:
    """Run a worker until its parent closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = Connection(orders_fd, writable=False)
    replies = Connection(replies_fd, readable=False)
    try:
        order: Order = orders.recv()
        own = Shared.over(memory, order.layout).rows(order.first, order.last, order.worker)
        inside: list[SubEnvironments] = []

        def make() -> EnvInfos:
            envs: list[gym.Env[Any, Any]] = []
            for i, maker in enumerate(pickle.loads(order.makers).fn):
                own.at[0] = i
                envs.append(maker())
            inside.append(SubEnvironments(envs, own.at))
            return []

        answer(replies, make, own, order.first)
        if inside:
            _work(orders, replies, inside[0], own, order.first)
            inside[0].close()
    except (EOFError, BrokenPipeError):  # the parent is gone
        pass


def _work(
    orders: Connection, replies: Connection, inside: SubEnvironments, own: Shared, first: int
) -> None:
    def step() -> EnvInfos:
        own.terminated[:] = False
        own.truncated[:] = False
        # a copy: an environment may keep its action, and the parent writes the next one there
        return inside.step(own.actions.copy(), *own[1:-1])

    while byte := os.read(orders.fileno(), 1):
        if byte == STEP:
            answer(replies, step, own, first)
        else:
            seeds, options = orders.recv()
            answer(replies, _reset(inside, seeds, options, own), own, first)


def _reset(
    inside: SubEnvironments, seeds: Sequence[int | None], options: Any, own: Shared
) -> Callable[[], EnvInfos]:
    return lambda: inside.reset(seeds, options, own.observations)
