"""The jobs of a population on their way: how they go out to workers, and how agents come home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import AgileRLError, ConfigError, EnvError
from agilerl.seeding import Streams
from agilerl.training.jobs import Task
from agilerl.training.pickling import Failure, Packed, dumps

#: Bytes of a replay buffer that are copied at once.
CHUNK = 1 << 23


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
        """Let all jobs wait; raise ``ConfigError`` if an agent has two."""
        if len(set(map(id, self.population))) < len(self.population):
            raise ConfigError(
                "pop: one agent is in two slots, and can't be trained by two workers; let the"
                " tournament return clones, or pass workers=0."
            )
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

    def lose(self, slot: int, why: str) -> int:
        """Let the job of a worker that was lost wait again; return how often it has been lost."""
        losses = self.losses.setdefault(slot, [])
        losses.append(why)
        if self.failed is None or slot < self.failed[0]:
            self.waiting.insert(0, slot)
        return len(losses)

    def job(self, slot: int) -> str:
        """Return what the job of a slot is, in words."""
        kind = "episode" if self.name == "train" else "evaluation"
        return f"{kind} {self.streams[slot].number} of slot {slot}"

    def home(self) -> list[Any]:
        """Bring the agents home, and return the results by slot; raise what a job raised."""
        if self.failed is not None:
            raise self.failed[1].error()
        results = []
        for slot, agent in enumerate(self.population):
            state, kept, result = self.answers[slot]
            agent.load_state_dict(state)
            for name, value in kept.items():
                setattr(agent, name, value)
            results.append(result)
        return results


def check_travel(population: Sequence[Any], memory: Any) -> None:
    """Raise ``ConfigError`` if an agent or the replay buffer can't travel to a worker."""
    if memory is not None and type(memory) is not ReplayBuffer:
        raise ConfigError(
            f"memory: {type(memory).__name__} is not exactly a ReplayBuffer, and can't be shared"
            " with workers; pass a ReplayBuffer, or workers=0."
        )
    for agent in population:
        missing = [x for x in ("state_dict", "load_state_dict") if not hasattr(agent, x)]
        if missing:
            raise ConfigError(
                f"pop: {type(agent).__name__} has no {' and no '.join(missing)}, by which what it"
                " learns in a worker comes home; add them, or pass workers=0."
            )
        packed(agent)


def pickled_task(task: Task) -> bytes:
    """Return the arguments of ``take_task``; raise ``EnvError`` if an environment can't travel."""
    try:
        return dumps((dumps(task),))
    except Exception as error:  # whatever an object may raise that can't be pickled
        raise EnvError(
            f"env: can't be copied to workers ({type(error).__name__}: {error}); make it by"
            " makeVectEnvs(...) with an id, a class or a function that makes one, or pass"
            " workers=0."
        ) from error


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
