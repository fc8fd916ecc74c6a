"""Evaluation in rounds: more episodes only for agents that may still be the best.

All agents of a round play the same episodes, so that they are compared like with like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agilerl.seeding import Streams
from agilerl.training.executors import Executor
from agilerl.training.jobs import Evaluation, Task

#: An agent may still be the best whose fitness is within so many standard errors of it.
DOUBT = 1.5


def raced(
    task: Task, population: Sequence[Any], executor: Executor, streams: Sequence[Streams], more: int
) -> list[list[Evaluation]]:
    """Evaluate a population; each agent's ``fitness`` grows by the mean over all its rounds.

    Args:
        task: how agents are evaluated.
        population: the agents, by slot.
        executor: where they are.
        streams: of each evaluation.
        more: rounds at most after the first.

    Returns:
        For each agent the evaluation of every round that it took part in.
    """
    evaluations = executor.evaluate(task, population, streams)
    rounds = [[evaluation] for evaluation in evaluations]
    try:
        for number in range(1, more + 1):
            slots = in_doubt([combined(own) for own in rounds])
            if len(slots) < 2:
                break
            agents = [population[slot] for slot in slots]
            others = [replace(streams[slot], round=number) for slot in slots]
            for slot, result in zip(slots, executor.evaluate(task, agents, others), strict=True):
                rounds[slot].append(result)
    except BaseException:
        for agent, own in zip(population, rounds, strict=True):
            del agent.fitness[-len(own) :]
        raise
    for agent, own in zip(population, rounds, strict=True):
        if len(own) > 1:
            mean = combined(own)
            agent.fitness[-len(own) :] = [mean.fitness]
            agent.fitness_se = mean.se
    return rounds


def combined(rounds: Sequence[Evaluation]) -> Evaluation:
    """Return the mean of rounds of equally many episodes, and its standard error."""
    count = len(rounds)
    errors = [evaluation.se for evaluation in rounds if evaluation.se is not None]
    return Evaluation(
        sum(evaluation.fitness for evaluation in rounds) / count,
        sum(evaluation.steps for evaluation in rounds),
        math.hypot(*errors) / count if len(errors) == count else None,
    )


def in_doubt(evaluations: Sequence[Evaluation]) -> list[int]:
    """Return the slots of the agents that may be the best, which is among them."""
    finite = [x for x in evaluations if math.isfinite(x.fitness)]
    if not finite:
        return []
    best = max(finite, key=lambda evaluation: evaluation.fitness)

    def may_win(other: Evaluation) -> bool:
        if not math.isfinite(other.fitness):
            return False
        if best.se is None or other.se is None:
            return True
        return best.fitness - other.fitness <= DOUBT * math.hypot(best.se, other.se)

    return [slot for slot, evaluation in enumerate(evaluations) if may_win(evaluation)]
