"""Training on games of tokens: how language agents learn and are evaluated, and how they evolve."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agilerl.algorithms.language_agent import LanguageAgent
from agilerl.errors import ConfigError, check_int
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.lifeline import beat
from agilerl.seeding import Streams, derive
from agilerl.training.jobs import CHECK_EPISODES, EpisodeResult, Evaluation
from agilerl.training.language_config import RunConfig, TrainConfig


@dataclass(frozen=True)
class Schedule:
    """Factor on the learning rate: up from 0 over ``warm_up`` updates, then down by a cosine.

    Args:
        updates: in all.
        warm_up: of them, those at the beginning.
        final: the factor at the end.
    """

    updates: int
    warm_up: int
    final: float

    def __call__(self, update: int) -> float:
        """Return the factor of an update, counted from 0."""
        if update < self.warm_up:
            return (update + 1) / self.warm_up
        done = (update - self.warm_up) / max(1, self.updates - self.warm_up)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def endless(dataset: Any, batch_size: int, seen: int, reader: int) -> Iterator[Any]:
    """Yield batches without end, from where an agent is that has learnt from ``seen`` games.

    Each agent reads in an order of its own: with one order for all, an unchanged child would only
    repeat what its parent does.
    """
    epoch, into = divmod(seen, len(dataset))
    skip = -(-into // batch_size)
    while True:
        yield from dataset.batches(batch_size, epoch, skip, reader)
        epoch, skip = epoch + 1, 0


@dataclass(frozen=True)
class LanguageTask:
    """An episode is ``report_every`` updates; fitness is the mean return in an arena.

    Attributes:
        dataset: with ``len`` and ``batches(batch_size, epoch, skip, reader)``.
        arena: a ``TokenArena`` with ``num_games``, ``turns``, ``hidden`` and ``reset(seed)``.
        train: how long, and how the learning rate goes.
    """

    dataset: Any
    arena: Any
    train: TrainConfig

    def train_episode(self, agent: LanguageAgent, memory: Any, streams: Streams) -> EpisodeResult:
        """Train ``agent``; its steps are the games that it read."""
        train = self.train
        schedule = Schedule(train.updates, train.warm_up, train.final_lr)
        start = streams.number * train.report_every
        stop = min(start + train.report_every, train.updates)
        batches = endless(self.dataset, agent.batch_size, agent.steps[-1], agent.index)
        games, losses = 0, []
        for update in range(start, stop):
            batch = next(batches)
            agent.schedule(schedule(update))
            losses.append(agent.learn(batch))
            games += len(batch)
            beat()
        agent.scores.append(float(np.mean(losses)))
        return EpisodeResult(games)

    def evaluate(self, agent: LanguageAgent, streams: Streams) -> Evaluation:
        """Return the mean return of the arena's games; steps are the guesses made there."""
        before = self.arena.turns
        fitness = float(agent.test(self.arena, loop=1))
        return Evaluation(fitness, self.arena.turns - before)

    def check(self, agent: LanguageAgent, streams: Streams, target: float) -> Evaluation:
        """Return the mean return over at least 100 other games, all of them played."""
        arena, returns = self.arena, []
        hidden, before = arena.hidden, arena.turns
        for round_ in range(-(-CHECK_EPISODES // arena.num_games)):
            arena.reset(derive(streams.derive_shared("check"), round_))
            beat()
            returns.append(arena.play(agent.getAction).returns)
        arena.hidden = hidden
        return Evaluation(float(np.concatenate(returns).mean()), arena.turns - before)


def evolution(
    config: RunConfig, agents: Sequence[LanguageAgent], games: int
) -> tuple[TournamentSelection | None, Mutations | None]:
    """Return tournament and mutations of a run; None where the population is one agent.

    Args:
        config: of the run.
        agents: its population.
        games: in the data; a batch never grows beyond.
    """
    pop = config.population
    if check_int("population.size", pop.size) == 1:
        return None, None
    names = list(pop.rl_hp_selection or agents[0].hyperparameters)
    tournament = TournamentSelection(
        pop.tournament, pop.elitism, pop.size, 1, seed=derive(config.seed, "tournament")
    )
    mutation = Mutations(
        agents[0].algo,
        no_mutation=pop.no_mutation,
        architecture=pop.architecture,
        new_layer_prob=pop.new_layer,
        parameters=pop.parameters,
        activation=pop.activation,
        rl_hp=pop.rl_hp,
        rl_hp_selection=names,
        mutation_sd=pop.mutation_sd,
        arch="gpt",
        rand_seed=derive(config.seed, "mutations"),
    )
    mutation.limit("batch_size", games)
    return tournament, mutation


def check_train(train: TrainConfig) -> TrainConfig:
    """Return the settings, ``report_every`` no longer than ``eval_every`` and a part of it."""
    for name in ("updates", "eval_every", "report_every"):
        check_int(f"train.{name}", getattr(train, name))
    check_int("train.warm_up", train.warm_up, minimum=0)
    report = min(train.report_every, train.eval_every)
    if train.eval_every % report:
        raise ConfigError(
            f"train.report_every: {report} does not divide eval_every={train.eval_every}; choose"
            " numbers that do."
        )
    return replace(train, report_every=report)
