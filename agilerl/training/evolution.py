"""The generation loop: train, evaluate, yield, select, mutate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from agilerl.components.evaluation import evaluate
from agilerl.lineage import Ancestor
from agilerl.seeding import derive

#: Episodes over which a target must be reached.
CHECK_EPISODES = 100


@dataclass(frozen=True)
class Generation:
    """A population as it was evaluated, before selection.

    Attributes:
        number: of the generation, from 0.
        episode: training episodes that each agent has spent.
        train_steps: environment steps of all agents in training so far.
        eval_steps: environment steps of all evaluations so far.
        population: the agents.
        fitnesses: their fitnesses, in the same order.
        records: what they are, in the same order.
        check: the best agent's mean return over 100 fresh episodes, where its fitness touched the
            target, else None.
        solved: whether that reached the target.
        seconds: wall time since the start.
    """

    number: int
    episode: int
    train_steps: int
    eval_steps: int
    population: tuple[Any, ...]
    fitnesses: tuple[float, ...]
    records: tuple[Ancestor, ...]
    check: float | None
    solved: bool
    seconds: float

    @property
    def global_steps(self) -> int:
        """Every environment step by any agent, evaluation included."""
        return self.train_steps + self.eval_steps

    @property
    def ranking(self) -> list[int]:
        """The places of the agents, fittest first."""
        return fittest_first(self.fitnesses)

    @property
    def best(self) -> Any:
        """The fittest agent."""
        return self.population[self.ranking[0]]

    @property
    def best_fitness(self) -> float:
        """The fitness of the fittest agent: NaN and infinity are only there if all are so."""
        return self.fitnesses[self.ranking[0]]


def fittest_first(fitnesses: Sequence[float]) -> list[int]:
    """Return the places of ``fitnesses`` from best to worst; NaN comes last."""
    values = np.nan_to_num(np.asarray(fitnesses, float), nan=-np.inf, posinf=-np.inf)
    return [int(i) for i in np.argsort(-values, kind="stable")]


class CountedEnv:
    """A vector environment that counts the transitions of every sub-environment.

    A NEXT_STEP row that only resets an episode is no transition, and is not counted.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.count = 0
        mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode")
        self._next_step = mode in (AutoresetMode.NEXT_STEP, AutoresetMode.NEXT_STEP.value)
        self._resetting = 0

    def reset(self, **kwargs: Any) -> Any:
        """Reset the environment."""
        self._resetting = 0
        return self.env.reset(**kwargs)

    def step(self, actions: Any) -> Any:
        """Step the environment and count."""
        result = self.env.step(actions)
        self.count += int(self.env.num_envs) - self._resetting
        if self._next_step:
            self._resetting = int(np.logical_or(result[2], result[3]).sum())
        return result

    def __getattr__(self, name: str) -> Any:
        """Return what the environment itself has under ``name``."""
        if name.startswith("__"):  # Python asks for these when it copies an object
            raise AttributeError(name)
        return getattr(self.env, name)


@dataclass(frozen=True)
class Evaluator:
    """How a population is evaluated.

    All agents of a generation see the same episodes where a seed is given, so that they are
    compared like with like.
    """

    env: CountedEnv
    swap_channels: bool
    max_steps: int
    loop: int
    target: float | None
    seed: int | None

    def _restart(self, *keys: int | str) -> None:
        if self.seed is not None:
            self.env.reset(seed=derive(self.seed, *keys))

    def fitness(self, agent: Any, generation: int) -> float:
        """Return the agent's fitness; its own ``test`` records it."""
        self._restart("evaluation", generation)
        return float(agent.test(self.env, self.swap_channels, self.max_steps, self.loop))

    def check(self, agent: Any, fitness: float, generation: int) -> float | None:
        """Return the mean return over 100 fresh episodes, once ``fitness`` touches the target."""
        if self.target is None or not fitness >= self.target:
            return None
        self._restart("check", generation)
        rounds = -(-CHECK_EPISODES // self.env.num_envs)
        returns = evaluate(
            lambda states: agent.getAction(states, 0),
            self.env,
            rounds,
            self.max_steps,
            self.swap_channels,
        )
        return float(returns.T.ravel()[:CHECK_EPISODES].mean())


def record(agent: Any, generation: int, fitness: float) -> Ancestor:
    """Return what ``agent`` is, and append it to its lineage."""
    names = ("lr", "batch_size", "learn_step")
    own = {name: getattr(agent, name) for name in names if hasattr(agent, name)}
    ancestor = Ancestor(
        generation=generation,
        index=agent.index,
        parent=getattr(agent, "parent", None),
        mutation=getattr(agent, "mut", None),
        fitness=fitness,
        steps=int(agent.steps[-1]),
        hyperparameters=dict(getattr(agent, "hyperparameters", own)),
        architecture=str(getattr(agent, "architecture", "")),
    )
    agent.lineage = (*getattr(agent, "lineage", ()), ancestor)
    return ancestor


def generations(
    pop: Sequence[Any],
    spend_episode: Callable[[Any, int, int], int],
    evaluator: Evaluator,
    n_episodes: int,
    evo_epochs: int,
    tournament: Any = None,
    mutation: Any = None,
    after_episode: Callable[[int, int, Sequence[Any]], None] = lambda *_: None,
) -> Iterator[Generation]:
    """Train a population and yield it at each evaluation; select and mutate when resumed.

    The last generation that is yielded is final: it is not selected from or mutated.

    Args:
        pop: agents; the list is left as it is, they are trained in place until the first selection.
        spend_episode: ``(agent, episode, place) -> environment steps`` trains one agent for one
            episode.
        evaluator: how fitness comes about, and when the target is reached.
        n_episodes: training episodes of each agent at most.
        evo_epochs: episodes between evaluations.
        tournament: object with ``select(pop) -> (elite, new_pop)``, or None.
        mutation: object with ``mutation(pop) -> pop``, or None.
        after_episode: told ``(episodes done, global steps, pop)`` after each episode.
    """
    pop = list(pop)
    start = time.perf_counter()
    train_steps = number = 0
    for episode in range(1, n_episodes + 1):
        for place, agent in enumerate(pop):
            taken = spend_episode(agent, episode - 1, place)
            agent.steps[-1] += taken
            train_steps += taken
        after_episode(episode, train_steps + evaluator.env.count, pop)
        if episode % evo_epochs and episode < n_episodes:
            continue
        fitnesses = [evaluator.fitness(agent, number) for agent in pop]
        best = fittest_first(fitnesses)[0]
        check = evaluator.check(pop[best], fitnesses[best], number)
        solved = check is not None and evaluator.target is not None and check >= evaluator.target
        yield Generation(
            number=number,
            episode=episode,
            train_steps=train_steps,
            eval_steps=evaluator.env.count,
            population=tuple(pop),
            fitnesses=tuple(fitnesses),
            records=tuple(
                record(agent, number, fitness)
                for agent, fitness in zip(pop, fitnesses, strict=True)
            ),
            check=check,
            solved=solved,
            seconds=time.perf_counter() - start,
        )
        if solved or episode == n_episodes:
            return
        number += 1
        for agent in pop:
            agent.steps.append(agent.steps[-1])
        if tournament is not None:
            _, pop = tournament.select(pop)
        if mutation is not None:
            pop = mutation.mutation(pop)
