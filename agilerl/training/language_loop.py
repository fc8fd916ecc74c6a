"""The loop of language runs: a population learns from games, is measured by playing, evolves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from agilerl.algorithms.language_agent import LanguageAgent
from agilerl.errors import ConfigError, check_int
from agilerl.hpo.hyperparameters import HyperParameter
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.seeding import derive
from agilerl.training.evolution import CountedEnv, Evaluator, generations
from agilerl.training.language_config import RunConfig, TrainConfig
from agilerl.training.language_state import RunState, load_state, save_state
from agilerl.training.language_watch import Observer, Watch

#: Ranges of hyper-parameters that only language agents have.
RANGES: dict[str, HyperParameter] = {
    "expectile": HyperParameter(0.5, 0.95),
    "beta": HyperParameter(0.25, 64.0, log=True),
    "cql": HyperParameter(1e-4, 1.0, log=True),
}
#: Games over which a target must be reached, at least.
CHECK_GAMES = 100


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
class LanguageEpisode:
    """Spends one episode of one agent: ``report_every`` updates; returns the games it read."""

    dataset: Any
    train: TrainConfig
    first: int

    def __call__(self, agent: LanguageAgent, episode: int, place: int) -> int:
        """Train ``agent`` and return the number of games."""
        train = self.train
        schedule = Schedule(train.updates, train.warm_up, train.final_lr)
        start = (self.first + episode) * train.report_every
        stop = min(start + train.report_every, train.updates)
        batches = endless(self.dataset, agent.batch_size, agent.steps[-1], agent.index)
        games, losses = 0, []
        for update in range(start, stop):
            batch = next(batches)
            agent.schedule(schedule(update))
            losses.append(agent.learn(batch))
            games += len(batch)
        agent.scores.append(float(np.mean(losses)))
        return games


@dataclass(frozen=True)
class ArenaEvaluator(Evaluator):
    """Fitness is the mean return in an arena; steps are the guesses made there.

    ``earlier`` is the number of generations before, where a run goes on.
    """

    earlier: int = 0

    def fitness(self, agent: Any, generation: int) -> float:
        """Return the agent's fitness; its own ``test`` records it."""
        before = self.env.env.turns
        fitness = float(agent.test(self.env.env, loop=self.loop))
        self.env.count += self.env.env.turns - before
        return fitness

    def check(self, agent: Any, fitness: float, generation: int) -> float | None:
        """Return the mean return over at least 100 other games, once the target is touched."""
        if self.target is None or not fitness >= self.target:
            return None
        arena = self.env.env
        hidden, before, returns = arena.hidden, arena.turns, []
        for round_ in range(-(-CHECK_GAMES // arena.num_games)):
            arena.reset(derive(self.seed, "check", self.earlier + generation, round_))
            returns.append(arena.play(agent.getAction).returns)
        self.env.count += arena.turns - before
        arena.hidden = hidden
        return float(np.concatenate(returns).mean())


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
    names = list(pop.rl_hp_selection or agents[0].hyperparameter_names)
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
        ranges={name: RANGES[name] for name in names if name in RANGES},
    )
    mutation.limit("batch_size", games)
    return tournament, mutation


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Run on so many threads of torch, and restore what was set."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(check_int("train.threads", threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(
    config: RunConfig,
    agents: Sequence[LanguageAgent],
    dataset: Any,
    arena: Any,
    observers: Sequence[Observer] = (),
    verbose: bool = True,
) -> RunState:
    """Train a population; return the state as of its last evaluation.

    ``best.pt`` in the run's directory is the agent of the highest mean return in the arena so
    far, and ``last`` the whole population, from which ``resume`` goes on.  Ctrl-C ends the run
    with what was reached.

    Args:
        config: of the run.
        agents: the population.
        dataset: with ``len`` and ``batches(batch_size, epoch, skip, reader)``.
        arena: a ``TokenArena`` with ``num_games``, ``turns``, ``hidden`` and ``reset(seed)``.
        observers: each is called with every ``Generation``.
        verbose: show progress on stderr.

    Raises:
        ConfigError: on settings that can't be used.
        CheckpointError: if ``resume`` is set and there is nothing to go on from.
    """
    train = check_train(config.train)
    tournament, mutation = evolution(config, agents, len(dataset))
    start = state = RunState(tuple(agents))
    if config.resume:
        start = state = load_state(
            config.directory, type(agents[0]), config.device, tournament, mutation
        )
    total = -(-train.updates // train.report_every)
    watch = Watch(config, total, start, observers, verbose)
    end = "all updates made"
    try:
        with torch_threads(train.threads):
            for generation in generations(
                start.next_population(tournament, mutation),
                LanguageEpisode(dataset, train, start.episode),
                ArenaEvaluator(
                    CountedEnv(arena), False, 1, 1, train.target, config.seed, start.number
                ),
                total - start.episode,
                train.eval_every // train.report_every,
                tournament,
                mutation,
                watch.after_episode,
            ):
                shifted = start.shift(generation)
                state = state.follow(shifted)
                save_state(state, config.directory, tournament, mutation)
                watch(shifted)
                end = "target reached" if shifted.solved else end
    except KeyboardInterrupt:
        end = "interrupted"
    finally:
        watch.close(f"{end}: best mean reward {state.best_fitness:.3f}")
    return state


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
