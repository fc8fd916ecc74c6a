"""Evaluation in rounds, and the clocks of a run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import ConfigError
from agilerl.hpo.selection import TruncationSelection
from agilerl.seeding import Streams
from agilerl.training.executors import InProcess
from agilerl.training.jobs import Evaluation
from agilerl.training.race import combined, in_doubt, raced
from agilerl.training.run import Plan
from agilerl.training.run_state import RunState
from agilerl.utils.utils import makeVectEnvs
from tests.agents import OwnAgent
from tests.runs import FIELDS, run, small_population


class Scripted:
    """A task whose evaluations are written down, by agent and round."""

    def __init__(self, means: dict[int, list[float]], se: float | None = 1.0) -> None:
        self.means, self.se = means, se
        self.asked: list[tuple[int, int]] = []

    def evaluate(self, agent: Any, streams: Streams) -> Evaluation:
        self.asked.append((agent.index, streams.round))
        agent.fitness.append(self.means[agent.index][streams.round])
        return Evaluation(agent.fitness[-1], 10, self.se)


def race(task: Any, count: int, more: int) -> tuple[list[Any], list[Evaluation]]:
    pop: list[Any] = [OwnAgent(index) for index in range(count)]
    streams = [Streams(1, 0, slot) for slot in range(count)]
    rounds = raced(task, pop, InProcess(), streams, more)
    return pop, [combined(own) for own in rounds]


def test_only_agents_that_may_be_the_best_play_again() -> None:
    task = Scripted({0: [10.0, 20.0, 30.0], 1: [9.0, 1.0], 2: [2.0]})
    pop, found = race(task, 3, 2)
    # after two rounds 0 is at 15 and 1 at 5, far beyond the noise: nobody plays a third
    assert task.asked == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert [agent.fitness for agent in pop] == [[15.0], [5.0], [2.0]]
    assert [evaluation.steps for evaluation in found] == [20, 20, 10]
    assert found[0].se == pytest.approx(math.sqrt(2) / 2)
    assert pop[0].fitness_se == found[0].se


def test_without_more_rounds_everybody_plays_once() -> None:
    pop, _ = race(Scripted({0: [3.0], 1: [3.0]}), 2, 0)
    assert [agent.fitness for agent in pop] == [[3.0], [3.0]]


def test_noise_that_is_not_known_leaves_doubt_and_infinity_none() -> None:
    known = [Evaluation(10.0, 1, 1.0), Evaluation(7.0, 1, 1.0), Evaluation(8.5, 1, 1.0)]
    assert in_doubt(known) == [0, 2]  # 1.5 standard errors of the difference are 2.1
    assert in_doubt([Evaluation(10.0, 1), Evaluation(-5.0, 1)]) == [0, 1]
    bad = [Evaluation(x, 1, 1.0) for x in (math.inf, math.nan, -math.inf, 3.0)]
    assert in_doubt(bad) == [3]
    assert in_doubt(bad[:3]) == []


def test_a_race_that_is_abandoned_leaves_no_trace() -> None:
    class Fails(Scripted):
        def evaluate(self, agent: Any, streams: Streams) -> Evaluation:
            if streams.round:
                raise KeyboardInterrupt
            return super().evaluate(agent, streams)

    pop: list[Any] = [OwnAgent(0), OwnAgent(1)]
    streams = [Streams(1, 0, slot) for slot in range(2)]
    with pytest.raises(KeyboardInterrupt):
        raced(Fails({0: [1.0], 1: [1.0]}), pop, InProcess(), streams, 1)
    assert [agent.fitness for agent in pop] == [[], []]


# --------------------------------------------------------------------------------------- clocks


def test_selection_comes_at_every_so_many_evaluations() -> None:
    pop = small_population(4, LR=1e-3)
    chosen: list[int] = []

    class Counted(TruncationSelection):
        def select(self, pop: Any) -> Any:
            chosen.append(len(pop))
            return super().select(pop)

    selection = Counted(4, seed=1)
    _, fitnesses, seen = run(
        pop,
        makeVectEnvs("CartPole-v1", 2),
        tournament=selection,
        n_episodes=7,
        evo_epochs=1,
        select_every=3,
    )
    assert len(fitnesses) == 7
    assert chosen == [4, 4]  # after the third and the sixth evaluation
    assert [g.rows[0]["mutation"] is None for g in seen][1:3] == [True, True]


def test_a_run_ends_when_its_steps_are_spent() -> None:
    _, _, seen = run([OwnAgent(0), OwnAgent(1)], n_episodes=100, total_steps=20, evo_epochs=1)
    assert seen[-2].global_steps < 20 <= seen[-1].global_steps


def test_automatic_evaluation_costs_as_much_as_training() -> None:
    _, _, seen = run(
        small_population(2), makeVectEnvs("CartPole-v1", 2), n_episodes=30, evo_epochs="auto"
    )
    trained = [0, *(g.train_steps for g in seen)]
    tested = [0, *(g.eval_steps for g in seen)]
    for number in range(2, len(seen)):
        before = tested[number - 1] - tested[number - 2]
        assert trained[number] - trained[number - 1] >= before or number == len(seen) - 1


def test_a_target_may_have_to_be_reached_by_the_lower_bound() -> None:
    plan = Plan(1, 1, target=19.0, confidence=0.9)
    assert not plan.reached(Evaluation(20.0, 1, 2.0))  # 20 - 1.28 * 2 = 17.4
    assert plan.reached(Evaluation(22.0, 1, 2.0))
    assert Plan(1, 1, target=19.0).reached(Evaluation(20.0, 1, 2.0))
    assert not Plan(1, 1).reached(Evaluation(20.0, 1, 2.0))


def test_what_an_evaluation_has_seen_may_be_stored() -> None:
    counts = []
    env = makeVectEnvs("CartPole-v1", 2)
    for stores in (False, True):
        pop, memory = small_population(2, BATCH_SIZE=4), ReplayBuffer(2, 10_000, FIELDS)
        changes = {"memory": memory, "n_episodes": 2, "evo_epochs": 1, "store_evaluation": stores}
        _, _, seen = run(pop, env, **changes)
        last = seen[-1]
        counts.append((memory.counter, last.train_steps, last.eval_steps))
    assert counts[0][0] == counts[0][1]
    stored, trained, tested = counts[1]
    assert stored == trained + tested


@pytest.mark.parametrize(
    "changes",
    [
        {"select_every": 0},
        {"race": -1},
        {"total_steps": 0},
        {"time_limit": -1.0},
        {"confidence": 1.5},
        {"evo_epochs": "often"},
    ],
)
def test_bad_clocks_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        run([OwnAgent(0)], **changes)


def test_a_run_ends_where_another_evaluation_would_not_fit() -> None:
    plan, state = Plan(100, 1, time_limit=10.0), RunState([OwnAgent(0)], seconds=6.0)
    assert not plan.spent(state)
    state.evaluation_seconds = 3.0
    assert not plan.spent(state)
    state.evaluation_seconds = 4.0
    assert plan.spent(state)
    assert plan.ending(state) == "time is up"


def test_the_agent_whose_check_held_is_the_best_that_ever_was() -> None:
    # agent 0 is lucky at once; agent 1 later reaches the target over many episodes
    pop: list[Any] = [OwnAgent(0, fitnesses=[50.0, 1.0], action=0)]
    pop += [OwnAgent(1, fitnesses=[2.0, 40.0], action=12)]
    _, _, seen = run(pop, target=12.0, n_episodes=2, evo_epochs=1, max_steps=3)
    assert [g.solved for g in seen] == [False, True]
    assert seen[0].best_ever.index == 0
    assert seen[1].best_ever.index == 1
