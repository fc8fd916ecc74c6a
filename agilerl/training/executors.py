"""Where the jobs of a run are done: in this process, in worker processes, or in a cluster.

The result of a job depends on its arguments only (see ``training.jobs``), so that an executor
changes how long a run takes, and no number.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from agilerl.errors import ConfigError, check_int
from agilerl.seeding import Streams
from agilerl.threads import cores
from agilerl.training.jobs import EpisodeResult, Evaluation, Task, evaluate_agent, train_agent
from agilerl.training.processes import Processes
from agilerl.training.ray_executor import RayExecutor

__all__ = ["Executor", "InProcess", "Processes", "RayExecutor", "chosen_executor", "worker_count"]


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
