"""The state of a run: everything that it goes on from."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import AgileRLError, CheckpointError, refusing
from agilerl.seeding import Streams
from agilerl.training.history import Row

logger = logging.getLogger("agilerl")


@dataclass
class RunState:
    """Everything that a run is, between two episodes.

    Attributes:
        population: the agents, by slot.
        memory: the replay buffer that they share, or None.
        tournament: object with ``select(pop) -> (elite, new_pop)``, or None.
        mutation: object with ``mutation(pop) -> pop``, or None.
        seed: of every random stream that the run lends.
        episode: training episodes that each agent has spent.
        generation: evaluations so far.
        train_steps: environment steps of all agents in training.
        eval_steps: environment steps of all evaluations.
        seconds: wall time spent.
        due: whether the population has to be evaluated before it trains again.
        evaluated: whether it was, and is to be selected from before it trains again.
        history: one row for each agent and evaluation.
        best_ever: a copy of the best agent so far: of the highest fitness, or the one whose check
            reached the target.
        best_fitness: its fitness, or the mean of its check where there was one.
        trained_before: ``train_steps`` at the last evaluation.
        evaluation_steps: environment steps that it took.
        env_restarts: how often environments failed, and were made anew.
        attempt: 0, or 1 after all agents had diverged; a key of every stream that the run lends.
        good: the states of the population when it was last evaluated and not all had diverged.
        memory_is_data: the buffer holds a data set, and training stores nothing in it.
        changing: whether the population is just being selected and mutated.
        evaluation_seconds: wall time that the last evaluation took; it is not in ``seconds`` until
            the population has trained again.
        earlier_seconds: wall time spent before a run went on, which counts against no limit.
    """

    #: What is saved as it is; the rest has a state of its own.
    COUNTERS: ClassVar[tuple[str, ...]] = (
        "seed",
        "episode",
        "generation",
        "train_steps",
        "eval_steps",
        "seconds",
        "due",
        "evaluated",
        "best_fitness",
        "trained_before",
        "evaluation_steps",
        "env_restarts",
        "attempt",
    )

    population: list[Any]
    memory: Any = None
    tournament: Any = None
    mutation: Any = None
    seed: int = 0
    episode: int = 0
    generation: int = 0
    train_steps: int = 0
    eval_steps: int = 0
    seconds: float = 0.0
    due: bool = False
    evaluated: bool = False
    history: list[Row] = field(default_factory=list)
    best_ever: Any = None
    best_fitness: float = -float("inf")
    trained_before: int = 0
    evaluation_steps: int = 0
    env_restarts: int = 0
    attempt: int = 0
    good: list[dict[str, Any]] | None = None
    memory_is_data: bool = False
    changing: bool = False
    evaluation_seconds: float = 0.0
    earlier_seconds: float = 0.0

    def state_dict(self, rows: bool = True) -> dict[str, Any]:
        """Return everything that makes up the run, as tensors and plain values.

        Args:
            rows: with the transitions in the replay buffer; a data set is never part of it.
        """
        state: dict[str, Any] = {name: getattr(self, name) for name in self.COUNTERS}
        state["population"] = [agent.state_dict() for agent in self.population]
        state["best_ever"] = None if self.best_ever is None else self.best_ever.state_dict()
        # where the population itself is as it was then, it is not saved twice
        state["good"] = None if self.evaluated and self.healthy else self.good
        state["history"] = [dict(row) for row in self.history]
        for name in ("tournament", "mutation"):
            owner = getattr(self, name)
            state[name] = owner.state_dict() if hasattr(owner, "state_dict") else None
        if type(self.memory) is ReplayBuffer:
            state["memory"] = self.memory.state_dict(rows and not self.memory_is_data)
            state["memory"]["digest"] = self.memory.digest() if self.memory_is_data else None
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned; buffer, tournament and mutation in place.

        Raises:
            CheckpointError: if it does not fit, or was learnt from another data set.
        """
        with refusing("run"):
            if type(self.memory) is ReplayBuffer and not self.memory_is_data:
                self.memory.load_state_dict(state["memory"])
            elif self.memory_is_data and state["memory"]["digest"] != self.memory.digest():
                raise CheckpointError(
                    "dataset: the run learnt from other data than the buffer holds now; give it"
                    " the data set that it began with."
                )
            for name in ("tournament", "mutation"):
                owner = getattr(self, name)
                if owner is not None and state[name] is not None:
                    owner.load_state_dict(state[name])
            prototype = self.population[0]
            saved = [(a, s) for a, s in zip_longest(self.population, state["population"]) if s]
            agents = [copy.deepcopy(prototype) if a is None else a for a, _ in saved]
            for agent, (_, own) in zip(agents, saved, strict=True):
                agent.load_state_dict(own)
            self.population = agents
            if state["best_ever"] is not None:
                self.best_ever = copy.deepcopy(prototype)
                self.best_ever.load_state_dict(state["best_ever"])
            self.good = state["population"] if state["good"] is None else state["good"]
            self.history = [dict(row) for row in state["history"]]
            for name in self.COUNTERS:
                setattr(self, name, state[name])
            self.earlier_seconds = self.seconds

    @property
    def global_steps(self) -> int:
        """Every environment step by any agent, evaluation included."""
        return self.train_steps + self.eval_steps

    @property
    def seconds_evaluated(self) -> float:
        """Wall time since the run began or went on, and that of one evaluation, as the last was."""
        return self.seconds - self.earlier_seconds + self.evaluation_seconds

    @property
    def healthy(self) -> bool:
        """Whether any agent had a finite fitness when the population was evaluated last."""
        return any(np.isfinite(agent.fitness[-1:]).any() for agent in self.population)

    @property
    def restorable(self) -> bool:
        """Whether all agents can be put back to where they were; a user's own need not."""
        return all(hasattr(agent, "load_state_dict") for agent in self.population)

    def streams(self, number: int) -> list[Streams]:
        """Return the random streams of all agents in an episode or a generation."""
        slots = range(len(self.population))
        return [Streams(self.seed, number, slot, self.attempt) for slot in slots]

    def recover(self) -> None:
        """Put all agents back to where they were when not all had diverged, once in a run.

        They go on with half their learning rates and with other random streams.

        Raises:
            AgileRLError: if they never were healthy, or diverge for the second time.
        """
        if self.good is None or self.attempt:
            when = "again" if self.attempt else "before any evaluation"
            raise AgileRLError(
                f"fitness: no agent has a finite fitness: all have diverged {when}, in generation"
                f" {self.generation - 1}. Lower LR, narrow Mutations(ranges={{'lr': ...}}), or set"
                " MAX_GRAD_NORM; rewards of a smaller scale help, too."
            )
        logger.warning(
            "all agents have diverged in generation %d: they go on as they were when they were last"
            " healthy, with half their learning rates",
            self.generation - 1,
        )
        for agent, good in zip(self.population, self.good, strict=False):
            agent.load_state_dict(good)
            if hasattr(agent, "lr"):
                agent.lr = agent.lr / 2
        self.attempt += 1

    def counters(self) -> Row:
        """Return how far the run is, as the history notes it."""
        names = ("generation", "episode", "global_steps", "train_steps", "eval_steps")
        counts = {name: getattr(self, name) for name in names}

        return {
            **counts,
            "seconds": round(self.seconds, 3),
            "env_restarts": self.env_restarts,
            "attempt": self.attempt,
        }
