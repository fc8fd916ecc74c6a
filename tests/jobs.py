"""Tasks, environments and agents that do odd things in a worker process, for the tests."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agilerl.lifeline import beat
from agilerl.seeding import Streams
from agilerl.training.jobs import EpisodeResult, Evaluation
from tests.agents import OwnAgent, OwnQAgent, evolvable
from tests.envs import CatchEnv, PayEnv


class Savable(OwnAgent):
    """An agent of a user's own whose state can be saved."""

    def state_dict(self) -> dict[str, Any]:
        return {"learnt": self.learnt, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learnt = state["learnt"]
        self.rng.bit_generator.state = state["rng"]


class SavableQAgent(OwnQAgent):
    """Likewise, with networks that it trains; it draws from a stream that nobody lends to."""

    def __init__(self, index: int) -> None:
        super().__init__(index, 4, 2, evolvable)

    def state_dict(self) -> dict[str, Any]:
        parts = (self.actor, self.actor_target, self.optimizer)
        states = [part.state_dict() for part in parts]
        return {"parts": states, "learnt": self.learnt, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        parts: tuple[Any, ...] = (self.actor, self.actor_target, self.optimizer)
        for part, values in zip(parts, state["parts"], strict=True):
            part.load_state_dict(values)
        self.learnt = state["learnt"]
        self.rng.bit_generator.state = state["rng"]


class Task:
    """Counts: an episode teaches an agent its number; a subclass says what happens first."""

    def happen(self, agent: Any, streams: Streams) -> None:
        """Do what a test is about."""

    def train_episode(self, agent: Any, memory: Any, streams: Streams) -> EpisodeResult:
        self.happen(agent, streams)
        agent.learnt += 1
        agent.scores.append(float(streams.number))
        return EpisodeResult(10 * streams.slot + streams.number)

    def evaluate(self, agent: Any, streams: Streams) -> Evaluation:
        self.happen(agent, streams)
        agent.fitness.append(float(streams.slot))
        return Evaluation(float(streams.slot), 1)

    def check(self, agent: Any, streams: Streams) -> Evaluation:
        return Evaluation(0.0, 0)


def wait_for(path: Path) -> None:
    """Return when there is such a file."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.01)


@dataclass
class Meeting(Task):
    """An episode goes on until ``guests`` processes are in one, and writes down when it was."""

    directory: Path
    guests: int

    def happen(self, agent: Any, streams: Streams) -> None:
        start, deadline = time.time(), time.monotonic() + 60
        (self.directory / f"{os.getpid()}.here").touch()
        while len(list(self.directory.glob("*.here"))) < self.guests:
            assert time.monotonic() < deadline, "nobody else came"
            beat()
            time.sleep(0.01)
        path = self.directory / f"{streams.slot}.times"
        path.write_text(f"{os.getpid()} {start} {time.time()}")


@dataclass
class Slow(Task):
    """An episode takes so many seconds, and works all the time."""

    seconds: float

    def happen(self, agent: Any, streams: Streams) -> None:
        over = time.monotonic() + self.seconds
        while time.monotonic() < over:
            beat()
            time.sleep(0.01)


@dataclass
class Mishap(Task):
    """Something happens in the episodes of one slot, ``times`` times."""

    marks: Path
    what: str
    times: int = 1
    slot: int = 1

    def happen(self, agent: Any, streams: Streams) -> None:
        before = len(list(self.marks.glob("mishap*")))
        if streams.slot != self.slot or before >= self.times:
            return
        (self.marks / f"mishap{before}").touch()
        go_wrong(self.what)


def go_wrong(what: str) -> None:
    """Do what must not happen in a process."""
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exits":
        os._exit(7)
    if what == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "hangs":
        time.sleep(600)
    if what == "hangs in C":  # and keeps the interpreter's lock
        ctypes.PyDLL(None).sleep(600)


class Raising(Task):
    """Slots 1 and 2 raise, slot 1 later."""

    def happen(self, agent: Any, streams: Streams) -> None:
        if streams.slot == 1:
            time.sleep(0.2)
            raise OddError("no fuel", 3)
        if streams.slot == 2:
            raise KeyError("slot 2")


class OddError(Exception):
    """An exception whose arguments are not its message."""

    def __init__(self, what: str, count: int) -> None:
        super().__init__(what, count)
        self.count = count


class Stubborn(Task):
    """Raises what can't be pickled."""

    def happen(self, agent: Any, streams: Streams) -> None:
        error = ValueError("stubborn")
        error.frame = sys._getframe()  # type: ignore[attr-defined]
        raise error


class Talking(Task):
    """Warns and prints."""

    def happen(self, agent: Any, streams: Streams) -> None:
        logging.getLogger("agilerl").warning("agent %d says %s", agent.index, "hello")
        print("to nobody")


class Leaving(Task):
    """Ends its process the polite way."""

    def happen(self, agent: Any, streams: Streams) -> None:
        sys.exit("enough")


class DoomedEnv(CatchEnv):
    """Something goes wrong in one step of one episode, once."""

    def __init__(self, marks: Path, what: str) -> None:
        super().__init__()
        self.marks, self.what, self.steps = marks, what, 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        mark = self.marks / "mishap"
        if self.steps == 25 and not mark.exists():
            mark.touch()
            go_wrong(self.what)
        return super().step(action)


class LockedEnv(PayEnv):
    """An environment that can't be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = sys._getframe()


class GrowingEnv(PayEnv):
    """Other spaces each time that one is made."""

    made = 0

    def __init__(self) -> None:
        super().__init__(actions=100 + os.getpid())


class FaultyEnv(PayEnv):
    """Raises in its third step."""

    def step(self, action: Any) -> Any:
        if self.time == 2:
            raise OddError("the rocket has no fuel", 3)
        return super().step(action)
