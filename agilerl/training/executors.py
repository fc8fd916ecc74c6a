"""The jobs of a run, and where they are done.

A job trains one agent for one episode, or evaluates one.  Its result depends on its arguments only,
so that an executor changes how long a run takes, and no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from agilerl.components.replay_buffer import ReplayBuffer, Rows
from agilerl.seeding import Streams

Array = np.ndarray[Any, np.dtype[Any]]

#: Episodes over which a target must be reached.
CHECK_EPISODES = 100


class Evaluation(NamedTuple):
    """A mean return, and the environment steps that it took."""

    fitness: float
    steps: int


@dataclass
class EpisodeResult:
    """What an episode of one agent gave, beside the agent itself.

    Attributes:
        steps: environment steps (or games) that it took.
        counts: transitions that each vector step stored, [max_steps].
        rows: these transitions.
    """

    steps: int
    counts: Array = field(default_factory=lambda: np.zeros(0, int))
    rows: Rows = field(default_factory=Rows)


class Task(Protocol):
    """What differs between online, offline and language training.

    The same arguments give the same results, in any process.
    """

    def train_episode(self, agent: Any, memory: Any, streams: Streams) -> EpisodeResult:
        """Train ``agent`` for episode ``streams.number``; ``memory`` is what it sees and fills."""
        ...

    def evaluate(self, agent: Any, streams: Streams) -> Evaluation:
        """Evaluate ``agent`` in generation ``streams.number``, and append to its ``fitness``."""
        ...

    def check(self, agent: Any, streams: Streams) -> Evaluation:
        """Return the mean return over at least ``CHECK_EPISODES`` fresh episodes."""
        ...


def rng_owners(agent: Any) -> list[Any]:
    """Return whatever draws in ``agent``; a user's own agent need not say."""
    return list(getattr(agent, "rng_owners", ()))


def train_agent(task: Task, agent: Any, memory: Any, streams: Streams) -> EpisodeResult:
    """Let ``agent`` spend one episode; its rows come back, and ``memory`` is left as it was.

    The agent and the buffer draw from the streams of the episode, and have their own back after
    it.  A buffer of the user's own kind is shared directly: the rows stay in it.
    """
    with streams.lend("exploration", rng_owners(agent)):
        if type(memory) is not ReplayBuffer:
            return task.train_episode(agent, memory, streams)
        with streams.lend("minibatches", [memory]), memory.view() as rows:
            result = task.train_episode(agent, memory, streams)
    result.rows = rows
    return result


def evaluate_agent(task: Task, agent: Any, streams: Streams) -> Evaluation:
    """Evaluate ``agent``; whatever it draws, its own streams stay where they are."""
    with streams.lend("evaluation", rng_owners(agent)):
        return task.evaluate(agent, streams)


class Executor(Protocol):
    """Where the jobs of a population are done; agents change in place, results come by slot."""

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


class InProcess:
    """Does one job after the other, in this process."""

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
