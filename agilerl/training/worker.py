"""The inside of a worker process: it does the jobs that it is sent, one after the other.

It holds the task, with environments of its own, and a replica of the replay buffer; agents come
and go.  Nothing of the user's script is imported, and standard output goes nowhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.lifeline import beat, beat_into
from agilerl.seeding import Streams
from agilerl.threads import limited_threads
from agilerl.training.jobs import LOOP_KEEPS, evaluate_agent, train_agent
from agilerl.training.pickling import Failure, Packed, dumps, loads

#: Requests that are not answered: the parent goes on to send.
SILENT = ("take_memory", "take_rows")
#: Environments that a worker closes when it ends, by their names in a task.
CLOSED = ("stream", "eval_env")

logger = logging.getLogger("agilerl")


class Reply(NamedTuple):
    """What a worker answers.

    Attributes:
        value: the result, or a ``Failure``.
        records: what was logged meanwhile.
    """

    value: Any
    records: list[logging.LogRecord]


class Records(logging.Handler):
    """Keeps what is logged, for the parent to log."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, its message complete: arguments may not travel."""
        record.msg, record.args = record.getMessage(), None
        record.exc_info = None
        self.records.append(record)

    def taken(self) -> list[logging.LogRecord]:
        """Return what was kept since the last call."""
        records, self.records = self.records, []
        return records


class Worker:
    """Does jobs; its methods are what the parent asks for."""

    def __init__(self) -> None:
        self.task: Any = None
        self.memory: Any = None
        self._filled = False

    def take_task(self, task: bytes) -> None:
        """Do the jobs of this task from now on; its environments are made here."""
        self.close()
        self.task = None
        self.task = loads(task)

    def take_memory(self, settings: dict[str, Any] | None, device: str) -> None:
        """Begin a replica of a replay buffer; None is no buffer."""
        self.memory, self._filled = None, True
        if settings is not None:
            self.memory = ReplayBuffer(**settings, device=device, seed=0)

    def take_rows(self, rows: list[Any], counter: int, call: int) -> None:
        """Append transitions to the replica."""
        self.memory.extend(rows, counter, call)

    def train(self, packed: Packed, streams: Streams, threads: int) -> tuple[Any, ...]:
        """Return what an episode gave: the agent's state, what the loop keeps in it, the rest."""
        if self._filled:  # its rows came in parts, which are gone by now
            give_back_memory()
            self._filled = False
        agent = packed.unpacked()
        with limited_threads(threads):
            result = train_agent(self.task, agent, self.memory, streams)
        return agent.state_dict(), kept_in(agent), result

    def evaluate(self, packed: Packed, streams: Streams, threads: int) -> tuple[Any, ...]:
        """Return what an evaluation gave, likewise."""
        agent = packed.unpacked()
        with limited_threads(threads):
            result = evaluate_agent(self.task, agent, streams)
        return agent.state_dict(), kept_in(agent), result

    def close(self) -> None:
        """Close the environments."""
        for name in CLOSED:
            env: Any = getattr(self.task, name, None)
            with contextlib.suppress(Exception):  # the environment's own affair
                getattr(env, "env", env).close()


def give_back_memory() -> None:
    """Let the system have the memory that was freed, where the C library knows how (glibc's)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def kept_in(agent: Any) -> dict[str, Any]:
    """Return what the loop keeps in an agent, which one of the user's own may not save."""
    return {name: getattr(agent, name) for name in LOOP_KEEPS}


def serve(connection: int, beats: int) -> None:
    """Do what the parent asks for, until it closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    beat_into(beats)
    records = Records()
    logger.addHandler(records)
    logger.propagate = False
    with contextlib.suppress(EOFError, OSError), Connection(connection) as parent:
        parent.send_bytes(dumps(Reply(None, [])))  # ready
        worker = Worker()
        while True:
            name, arguments = parent.recv_bytes().decode(), parent.recv_bytes()
            answer = done(getattr(worker, name), arguments, records)
            beat()
            if name not in SILENT:
                parent.send_bytes(answer)
    worker.close()


def done(work: Callable[..., Any], arguments: bytes, records: Records) -> bytes:
    """Return the answer to a request, pickled."""
    try:
        value = work(*loads(arguments))
        if work.__name__ in SILENT:
            return b""
        return dumps(Reply(value, records.taken()))
    except BaseException as error:  # SystemExit too: the parent raises what was raised here
        if work.__name__ in SILENT:  # nobody waits for an answer: the parent sees that it is gone
            traceback.print_exc()
            os._exit(1)
        return dumps(Reply(Failure.of(error), records.taken()))
