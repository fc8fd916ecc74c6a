"""The jobs of a run: an episode of training, an evaluation, a check.

A job's result depends on its arguments only: the task, the agent, the buffer and the streams.  That
is why it can be done in any process, and done again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from agilerl.components.replay_buffer import ReplayBuffer, Rows
from agilerl.errors import EnvError
from agilerl.seeding import Streams

Array = np.ndarray[Any, np.dtype[Any]]
Result = TypeVar("Result", "EpisodeResult", "Evaluation")

logger = logging.getLogger("agilerl")

#: Episodes over which a target must be reached.
CHECK_EPISODES = 100


@dataclass
class EpisodeResult:
    """What an episode of one agent gave, beside the agent itself.

    Attributes:
        steps: environment steps (or games) that it took.
        counts: transitions that each vector step stored, [max_steps].
        rows: these transitions.
        restarts: how often an environment was made anew for it.
    """

    steps: int
    counts: Array = field(default_factory=lambda: np.zeros(0, int))
    rows: Rows = field(default_factory=Rows)
    restarts: int = 0

    @classmethod
    def of(cls, steps: Sequence[tuple[Array, ...]]) -> EpisodeResult:
        """Return what vector steps gave: for each its transitions, an array a field."""
        counts = np.array([len(fields[0]) for fields in steps], int)
        rows = Rows(int(counts.sum()))
        if rows.written:
            rows.fields = [np.concatenate(column) for column in zip(*steps, strict=True)]
        return cls(rows.written, counts, rows)


class Evaluation(NamedTuple):
    """A mean return, the environment steps that it took, and its standard error if known.

    ``seen`` has the transitions of the episodes, where they are to be stored; ``restarts`` says how
    often an environment was made anew for it.
    """

    fitness: float
    steps: int
    se: float | None = None
    seen: EpisodeResult = EpisodeResult(0)
    restarts: int = 0


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

    def check(self, agent: Any, streams: Streams, target: float) -> Evaluation:
        """Return the mean return over ``CHECK_EPISODES`` fresh episodes.

        It may be that of fewer, where these show that ``target`` will not be reached.
        """
        ...


#: What the loop itself keeps in an agent.
LOOP_KEEPS = ("scores", "fitness", "steps")


def rng_owners(agent: Any) -> list[Any]:
    """Return whatever draws in ``agent``; a user's own agent need not say."""
    return list(getattr(agent, "rng_owners", ()))


def train_agent(task: Task, agent: Any, memory: Any, streams: Streams) -> EpisodeResult:
    """Let ``agent`` spend one episode; its rows come back, and ``memory`` is left as it was.

    The agent and the buffer draw from the streams of the episode, and have their own back after
    it.  A buffer of the user's own kind is shared directly: the rows stay in it.
    """

    def episode(streams: Streams) -> EpisodeResult:
        with streams.lend("exploration", rng_owners(agent)):
            if type(memory) is not ReplayBuffer:
                return task.train_episode(agent, memory, streams)
            with streams.lend("minibatches", [memory]), memory.view() as rows:
                result = task.train_episode(agent, memory, streams)
        result.rows = rows
        return result

    return done(episode, task, agent, streams, "episode")


def evaluate_agent(task: Task, agent: Any, streams: Streams) -> Evaluation:
    """Evaluate ``agent``; whatever it draws, its own streams stay where they are."""

    def evaluation(streams: Streams) -> Evaluation:
        with streams.lend("evaluation", rng_owners(agent)):
            return task.evaluate(agent, streams)

    return done(evaluation, task, agent, streams, "evaluation")


def check_agent(task: Task, agent: Any, streams: Streams, target: float) -> Evaluation:
    """Return what fresh episodes of ``agent`` give; see ``Task.check``."""
    return done(lambda own: task.check(agent, own, target), task, agent, streams, "check")


def done(
    job: Callable[[Streams], Result], task: Task, agent: Any, streams: Streams, kind: str
) -> Result:
    """Return what a job gives.

    Where its environment fails, that is made anew, the agent put back to where it was, and the job
    begun again with streams of another attempt, as often as the task's ``env_restarts`` allows.

    Args:
        job: does it with the streams that it is given.
        task: the environments belong to.
        agent: the job is done with.
        streams: of the job.
        kind: what the job is, in a word.

    Raises:
        EnvError: if the environment fails once more; the message names agent and episode.
    """
    allowed = int(getattr(task, "env_restarts", 0))
    before = remembered(agent) if allowed else None
    where = f"agent {agent.index}, {kind} {streams.number}"
    restarts = 0
    while True:
        try:
            result = job(replace(streams, attempt=streams.attempt + restarts))
        except EnvError as error:
            error.located(where)
            if before is None or restarts == allowed:
                raise
            restarts += 1
            logger.warning("%s\nThe environment is made anew (%d of %d).", error, restarts, allowed)
            before()
            task.restart()  # type: ignore[attr-defined]
        except Exception as error:
            error.add_note(f"This was raised in: {where}.")
            raise
        else:
            break
    if isinstance(result, EpisodeResult):
        result.restarts = restarts
        return result
    return result._replace(restarts=restarts)


def remembered(agent: Any) -> Callable[[], None]:
    """Return what puts ``agent`` back to where it is now."""
    state = agent.state_dict()
    kept = {name: list(getattr(agent, name)) for name in LOOP_KEEPS}

    def put_back() -> None:
        agent.load_state_dict(state)
        for name, values in kept.items():
            setattr(agent, name, list(values))

    return put_back
