"""A run: the one loop that drives online, offline and language training.

A ``Task`` says how an agent is trained for an episode and how it is evaluated; everything else is
here.  The loop trains, evaluates, yields a ``Generation``, and selects and mutates when resumed.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from agilerl import signals
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.seeding import Streams
from agilerl.training.executors import Executor
from agilerl.training.history import Row, fitness_table, rows_of
from agilerl.training.jobs import EpisodeResult, Evaluation, Task, check_agent
from agilerl.training.race import combined, raced
from agilerl.training.run_state import RunState

logger = logging.getLogger("agilerl")

#: As many episodes as this are no limit.
ENDLESS = 10**9


@dataclass(frozen=True)
class Plan:
    """How long a run goes on, and when it evaluates and selects.

    Attributes:
        n_episodes: training episodes of each agent at most.
        evo_epochs: episodes between evaluations; "auto" evaluates when training has taken as many
            steps as the evaluation before.
        target: the run ends when the best agent's mean return over fresh episodes reaches it.
        select_every: evaluations between selections.
        total_steps: the run ends when all agents have taken so many steps, evaluation included.
        time_limit: the run ends so many seconds after it began or went on, or where another
            evaluation would not fit.
        race: rounds of evaluation, after the first, for agents that may be the best.
        confidence: how sure it has to be that the mean return reaches the target; None takes the
            mean as it is.
    """

    n_episodes: int
    evo_epochs: int | Literal["auto"]
    target: float | None = None
    select_every: int = 1
    total_steps: int | None = None
    time_limit: float | None = None
    race: int = 0
    confidence: float | None = None

    def spent(self, state: RunState) -> bool:
        """Return whether the run has used up what it was given."""
        return (
            state.episode >= self.n_episodes
            or (self.total_steps is not None and state.global_steps >= self.total_steps)
            or (self.time_limit is not None and state.seconds_evaluated >= self.time_limit)
        )

    def due(self, state: RunState) -> bool:
        """Return whether the population is to be evaluated before it trains on."""
        if self.evo_epochs == "auto":
            return state.train_steps - state.trained_before >= state.evaluation_steps
        return state.episode % self.evo_epochs == 0

    def ending(self, state: RunState) -> str:
        """Return in words what was used up."""
        if state.episode >= self.n_episodes:
            return "all episodes spent"
        steps = self.total_steps is not None and state.global_steps >= self.total_steps
        return "all steps spent" if steps else "time is up"

    def reached(self, check: Evaluation) -> bool:
        """Return whether a check shows that the target is reached."""
        if self.target is None:
            return False
        doubt = 0.0
        if self.confidence is not None and check.se is not None:
            doubt = NormalDist().inv_cdf(self.confidence) * check.se
        return check.fitness - doubt >= self.target


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
        rows: of the history, in the same order; see ``training.history``.
        check: the best agent's mean return over 100 fresh episodes (20, where these leave no hope),
            where its fitness touched the target, else None.
        solved: whether that reached the target.
        seconds: wall time since the start.
        best_ever: a copy of the best agent of all generations so far; see ``RunState``.
        check_steps: environment steps of the check, which are among the ``eval_steps``.
        evaluation_seconds: wall time that this evaluation took, its check included.
    """

    number: int
    episode: int
    train_steps: int
    eval_steps: int
    population: tuple[Any, ...]
    fitnesses: tuple[float, ...]
    rows: tuple[Row, ...]
    check: float | None
    solved: bool
    seconds: float
    best_ever: Any
    check_steps: int = 0
    evaluation_seconds: float = 0.0

    @property
    def global_steps(self) -> int:
        """Every environment step by any agent, evaluation included."""
        return self.train_steps + self.eval_steps

    @property
    def ranking(self) -> list[int]:
        """The slots of the agents, fittest first."""
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
    """Return the slots of ``fitnesses`` from best to worst; NaN comes last."""
    values = np.nan_to_num(np.asarray(fitnesses, float), nan=-np.inf, posinf=-np.inf)
    return [int(i) for i in np.argsort(-values, kind="stable")]


def train_population(task: Task, state: RunState, executor: Executor) -> None:
    """Let every agent spend one episode, and merge what they have seen into the buffer."""
    streams = state.streams(state.episode)
    results = executor.train(task, state.population, state.memory, streams)
    for agent, result in zip(state.population, results, strict=True):
        agent.steps[-1] += result.steps
        state.train_steps += result.steps
        state.env_restarts += result.restarts
    store(state.memory, results)
    state.episode += 1
    state.evaluated = False


def store(memory: Any, results: Sequence[EpisodeResult]) -> None:
    """Merge what agents have seen into the buffer that they share."""
    if type(memory) is ReplayBuffer:
        memory.merge([result.rows for result in results], [result.counts for result in results])


def evaluate_population(task: Task, state: RunState, executor: Executor, plan: Plan) -> Generation:
    """Evaluate every agent, record what they are, and return the generation."""
    streams = state.streams(state.generation)
    if state.generation == 0:
        warn_of_idle_learners(state)
    rounds = raced(task, state.population, executor, streams, plan.race)
    evaluations = [combined(own) for own in rounds]
    fitnesses = tuple(float(evaluation.fitness) for evaluation in evaluations)
    best = fittest_first(fitnesses)[0]
    check = None
    if plan.target is not None and fitnesses[best] >= plan.target:
        check = checked(task, state.population, best, streams[best], plan.target)
    take_in(state, [evaluation for own in rounds for evaluation in own], check)
    solved = check is not None and plan.reached(check)
    value = fitnesses[best] if check is None else check.fitness  # many episodes tell more than few
    if np.isfinite(value) and (solved or value > state.best_fitness):
        state.best_ever = copy.deepcopy(state.population[best])
        state.best_fitness = value
    new = state.generation % plan.select_every == 0
    rows = rows_of(state.population, fitnesses, state.counters(), new)
    state.history += rows
    state.generation += 1
    state.due, state.evaluated = False, True
    if state.restorable and state.healthy:
        state.good = [agent.state_dict() for agent in state.population]
    return Generation(
        number=state.generation - 1,
        episode=state.episode,
        train_steps=state.train_steps,
        eval_steps=state.eval_steps,
        population=tuple(state.population),
        fitnesses=fitnesses,
        rows=tuple(rows),
        check=None if check is None else check.fitness,
        solved=solved,
        seconds=state.seconds,
        best_ever=state.best_ever,
        check_steps=0 if check is None else check.steps,
    )


def take_in(state: RunState, evaluations: Sequence[Evaluation], check: Evaluation | None) -> None:
    """Count the steps and restarts of evaluations, and keep their transitions for learning."""
    store(state.memory, [evaluation.seen for evaluation in evaluations])
    state.trained_before = state.train_steps
    state.evaluation_steps = sum(evaluation.steps for evaluation in evaluations)
    checks = [] if check is None else [check]
    state.eval_steps += state.evaluation_steps + sum(one.steps for one in checks)
    state.env_restarts += sum(one.restarts for one in (*evaluations, *checks))


def warn_of_idle_learners(state: RunState) -> None:
    """Say so where no agent has learnt anything before its first evaluation."""
    counts = [getattr(agent, "learn_count", None) for agent in state.population]
    if state.episode and all(count == 0 for count in counts):
        held = len(state.memory) if hasattr(state.memory, "__len__") else 0
        logger.warning(
            "no agent has made a single learn step in %d episodes: the buffer holds %d transitions,"
            " batches are of %s and learn_step is %s; lower BATCH_SIZE, LEARN_STEP or"
            " learning_starts, or let episodes (max_steps) be longer",
            state.episode,
            held,
            span(agent.batch_size for agent in state.population),
            span(getattr(agent, "learn_step", 1) for agent in state.population),
        )


def span(values: Iterable[int]) -> str:
    """Return the lowest and the highest of some values in words."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    return str(low) if low == high else f"{low} to {high}"


def checked(
    task: Task, population: Sequence[Any], best: int, streams: Streams, target: float
) -> Evaluation:
    """Return what fresh episodes of the best agent give; if they fail, nobody was evaluated."""
    try:
        return check_agent(task, population[best], streams, target)
    except BaseException:
        for agent in population:
            del agent.fitness[-1:]
        raise


def evolve_population(state: RunState, plan: Plan) -> None:
    """Select parents and mutate their children, if it is time: the population that trains next."""
    state.changing = True
    if state.restorable and not state.healthy:
        state.recover()
    for agent in state.population:
        agent.steps.append(agent.steps[-1])
    if state.generation % plan.select_every:
        state.evaluated = state.changing = False
        return
    if state.tournament is not None:
        if hasattr(state.tournament, "best_ever"):
            state.tournament.best_ever = state.best_ever
        _, state.population = state.tournament.select(state.population)
    if state.mutation is not None:
        state.population = list(state.mutation.mutation(state.population))
    state.evaluated = state.changing = False


def generations(
    task: Task,
    state: RunState,
    plan: Plan,
    executor: Executor,
    after_episode: Callable[[RunState, bool], None] = lambda state, ending: None,
) -> Iterator[Generation]:
    """Train a population and yield it at each evaluation; select and mutate when resumed.

    The last generation that is yielded is final: it is not selected from or mutated.

    Args:
        task: how agents train and are evaluated.
        state: of the run, changed in place.
        plan: when to evaluate, and when to end.
        executor: where agents train and are evaluated.
        after_episode: told the state after each episode (and its evaluation, where one is due), and
            whether the run ends there.
    """
    start = time.perf_counter() - state.seconds
    while state.due or not plan.spent(state):
        if state.evaluated:
            evolve_population(state, plan)
        signals.check()
        if not state.due:
            train_population(task, state, executor)
            state.due = plan.due(state)
        state.seconds = time.perf_counter() - start
        generation = None
        if state.due:
            begun = time.perf_counter()
            generation = evaluate_population(task, state, executor, plan)
            state.evaluation_seconds = time.perf_counter() - begun
            generation = replace(generation, evaluation_seconds=state.evaluation_seconds)
        solved = generation is not None and generation.solved
        after_episode(state, solved or plan.spent(state))
        if generation is not None:
            yield generation
        if solved:
            return
    if not state.evaluated:
        # a longer run would not evaluate here: this is no part of the state that it goes on from
        beyond = replace(state, history=list(state.history))
        yield evaluate_population(task, beyond, executor, plan)


class RunObserver:
    """What watches a run from inside: a subclass overrides what it wants to know."""

    def begin(self, state: RunState) -> None:
        """See the state before the first episode; a run that goes on has a history."""

    def after_episode(self, state: RunState, ending: bool) -> None:
        """See the state between two episodes; ``ending``: the run ends there."""

    def __call__(self, generation: Generation) -> None:
        """See a generation."""

    def close(self, state: RunState, message: str) -> None:
        """See where the run ended, and how."""


@signals.stop_at_signals()
def run(
    task: Task,
    state: RunState,
    plan: Plan,
    executor: Executor,
    observers: Sequence[RunObserver] = (),
    callbacks: Sequence[Callable[[Generation], Any]] = (),
) -> tuple[list[Any], list[list[float]]]:
    """Drive a run to its end; return the population as last evaluated and all fitnesses.

    Ctrl-C and SIGTERM end the run after the step under way, with what was reached; the episode (or
    evaluation) under way is abandoned.  Another exception goes on to the caller, with the
    population as last evaluated in its attribute ``population``.

    Args:
        task: how agents train and are evaluated.
        state: of the run, changed in place.
        plan: when to evaluate, and when to end.
        executor: where agents train and are evaluated.
        observers: told of episodes, generations and the end.
        callbacks: of the user, called with each generation; one that returns True ends the run.

    Returns:
        The population, fittest first, and ``fitnesses[generation][agent]``.
    """
    first = list(state.population)
    for observer in observers:
        observer.begin(state)
    fitnesses = fitness_table(state.history)
    last: Generation | None = None
    ending = "interrupted"

    def after_episode(state: RunState, ends: bool) -> None:
        for observer in observers:
            observer.after_episode(state, ends)

    failure: Exception | None = None
    try:
        for last in generations(task, state, plan, executor, after_episode):
            fitnesses.append(list(last.fitnesses))
            if show(last, observers, callbacks):
                ending = "ended by a callback"
                break
        else:
            ending = "solved" if last is not None and last.solved else plan.ending(state)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        failure, ending = error, "failed"
    failure = close(observers, state, describe_ending(ending, last), failure)
    if failure is not None:
        failure.population = ranked(last, first)  # type: ignore[attr-defined]
        failure.add_note("The population as last evaluated is in this exception's .population.")
        raise failure
    if last is None and state.evaluated:  # a finished run that went on, and had nothing to do
        order = fittest_first(fitnesses[-1])
        return [state.population[slot] for slot in order], fitnesses
    return ranked(last, first), fitnesses


def show(
    generation: Generation,
    observers: Sequence[RunObserver],
    callbacks: Sequence[Callable[[Generation], Any]],
) -> bool:
    """Show a generation to everybody, and return whether a callback asks the run to end."""
    for observer in observers:
        observer(generation)
    answers = [callback(generation) for callback in callbacks]
    return any(answer is True for answer in answers)


def close(
    observers: Sequence[RunObserver], state: RunState, message: str, failure: Exception | None
) -> Exception | None:
    """Close every observer, whatever the others do; return the first failure of the run."""
    for observer in observers:
        try:
            observer.close(state, message)
        except Exception as error:
            failure = failure or error
    return failure


def ranked(last: Generation | None, pop: Sequence[Any]) -> list[Any]:
    """Return the population of a generation, fittest first; ``pop`` where there was none."""
    return list(pop) if last is None else [last.population[slot] for slot in last.ranking]


def describe_ending(ending: str, last: Generation | None) -> str:
    """Return how a run ended, in lines of at most 80 columns."""
    if last is None:
        return f"{ending}: nothing was evaluated yet"
    line = f"{ending}: best fitness {last.best_fitness:.1f}"
    if last.check is not None:
        line += f", {last.check:.1f} over fresh episodes"
    trained, tested, took = last.train_steps, last.eval_steps, clock(last.seconds)
    return f"{line}\n{trained:,} training + {tested:,} evaluation steps in {took}"


def clock(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
