"""Truncation: who stays, who is replaced, and by whose child."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agilerl.errors import AgileRLError, CheckpointError, ConfigError
from agilerl.hpo.selection import TruncationSelection
from tests.agents import OwnAgent


def population(fitnesses: list[float], errors: list[float | None] | None = None) -> list[Any]:
    pop: list[Any] = []
    for index, fitness in enumerate(fitnesses):
        agent: Any = OwnAgent(index)
        agent.fitness = [fitness]
        agent.fitness_se = None if errors is None else errors[index]
        pop.append(agent)
    return pop


def test_the_worst_quarter_is_replaced_by_children_of_the_best_quarter() -> None:
    pop = population([5.0, 1.0, 8.0, 3.0, 2.0, 7.0, 6.0, 4.0])
    elite, new = TruncationSelection(8, 0.25, seed=1).select(pop)
    assert elite is pop[2]
    assert [agent.index for agent in new[:6]] == [2, 5, 6, 0, 7, 3]
    assert all(agent.elite for agent in new[:6])
    assert [agent.index for agent in new[6:]] == [8, 9]
    assert {agent.parent for agent in new[6:]} <= {2, 5}
    assert not any(agent.elite for agent in new[6:])


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9),
    st.floats(0.01, 0.5),
    st.integers(0, 99),
)
def test_selection_keeps_its_promises(fitnesses: list[float], fraction: float, seed: int) -> None:
    pop = population(fitnesses)
    elite, new = TruncationSelection(len(pop), fraction, seed=seed).select(pop)
    assert len(new) == len(pop)
    assert elite.fitness[-1] == max(fitnesses)
    assert not {id(agent) for agent in new} & {id(agent) for agent in pop}  # all new clones
    assert len({agent.index for agent in new}) == len(new)
    assert new[0].elite
    assert new[0].index == elite.index
    replaced = [agent for agent in new if not agent.elite]
    assert len(replaced) <= max(1, round(fraction * len(pop)))


def test_inside_the_noise_nobody_is_replaced() -> None:
    pop = population([10.0, 9.0, 8.0, 5.0], [1.0, 1.0, 1.0, 6.0])
    _, new = TruncationSelection(4, seed=1).select(pop)
    assert sorted(agent.index for agent in new) == [0, 1, 2, 3]
    pop = population([10.0, 9.0, 8.0, 5.0], [1.0, 1.0, 1.0, 1.0])
    _, new = TruncationSelection(4, seed=1).select(pop)
    assert sorted(agent.index for agent in new) == [0, 1, 2, 4]


def test_a_population_of_equals_changes_at_every_second_selection() -> None:
    selection = TruncationSelection(4, seed=1)
    pop, replaced = population([9.4] * 4, [0.1] * 4), []
    for _ in range(6):
        _, pop = selection.select(pop)
        replaced.append(sum(not agent.elite for agent in pop))
        selection_again = TruncationSelection(4, seed=5)
        selection_again.load_state_dict(selection.state_dict())
        selection = selection_again
    assert replaced == [0, 1, 0, 1, 0, 1]


def test_equals_go_on_and_agents_that_diverged_do_not() -> None:
    _, new = TruncationSelection(3, seed=1).select(population([1.0, 1.0, 1.0]))
    assert sorted(agent.index for agent in new) == [0, 1, 2]
    pop = population([1.0, float("nan"), float("-inf"), float("inf")])
    elite, new = TruncationSelection(4, seed=1).select(pop)
    assert elite.index == 0
    assert [agent.parent for agent in new] == [0, 0, 0, 0]
    assert len({agent.index for agent in new}) == 4


def test_the_best_that_ever_was_comes_back_when_all_have_fallen_behind_it() -> None:
    selection = TruncationSelection(4, seed=1)
    selection.best_ever = population([50.0])[0]
    selection.best_ever.index = 77
    _, new = selection.select(population([10.0, 9.0, 8.0, 5.0]))
    assert [agent.parent for agent in new if not agent.elite] == [77]
    _, new = selection.select(population([60.0, 9.0, 8.0, 5.0]))
    assert [agent.parent for agent in new if not agent.elite] == [0]


def test_an_index_is_never_given_twice() -> None:
    selection = TruncationSelection(4, 0.5, seed=3)
    pop, given_out = population([4.0, 3.0, 2.0, 1.0]), Counter(range(4))
    for _ in range(20):
        _, pop = selection.select(pop)
        given_out.update(agent.index for agent in pop if not agent.elite)
        for agent, fitness in zip(pop, (1.0, 2.0, 3.0, 4.0), strict=True):
            agent.fitness.append(fitness)
    assert max(given_out.values()) == 1


def test_a_population_of_one_goes_on() -> None:
    _, new = TruncationSelection(1).select(population([3.0]))
    assert [agent.index for agent in new] == [0]


def test_nobody_finite_is_an_error() -> None:
    with pytest.raises(AgileRLError, match="no agent has a finite fitness"):
        TruncationSelection(2).select(population([float("nan"), float("-inf")]))


@pytest.mark.parametrize("arguments", [(0,), (4, 0.6), (4, -0.1), (4, 0.25, 0)])
def test_bad_arguments_are_named(arguments: Any) -> None:
    with pytest.raises(ConfigError, match=r"population_size|fraction|evo_step"):
        TruncationSelection(*arguments)


def test_a_state_goes_on_with_draws_and_indices() -> None:
    one, other = TruncationSelection(8, seed=1), TruncationSelection(8, seed=2)
    pop = population([5.0, 1.0, 8.0, 3.0, 2.0, 7.0, 6.0, 4.0])
    one.select(pop)
    other.load_state_dict(one.state_dict())
    facts = [
        [(agent.index, agent.parent, agent.elite) for agent in selection.select(pop)[1]]
        for selection in (one, other)
    ]
    assert facts[0] == facts[1]
    with pytest.raises(CheckpointError, match="tournament"):
        other.load_state_dict({**one.state_dict(), "last_index": "x"})
