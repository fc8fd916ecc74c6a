"""Tournament selection: who wins, who survives, and what a child shares with its parent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.algorithms.dqn import DQN
from agilerl.errors import AgileRLError, CheckpointError, ConfigError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection, score
from tests.agents import OwnAgent

BAD = [float("nan"), float("inf"), float("-inf")]


def population(fitnesses: list[Any]) -> list[OwnAgent]:
    """Return agents with the given histories of fitness, or single fitnesses."""
    pop = []
    for index, fitness in enumerate(fitnesses):
        agent = OwnAgent(index)
        agent.fitness = list(fitness) if isinstance(fitness, list) else [fitness]
        pop.append(agent)
    return pop


@given(
    fitnesses=st.lists(st.floats(-100, 100) | st.sampled_from(BAD), min_size=2, max_size=8),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_selection_keeps_its_promises(fitnesses: list[float], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(fitnesses)))
    elitism = data.draw(st.booleans())
    tournament = TournamentSelection(
        size, elitism, len(fitnesses), 1, seed=data.draw(st.integers(0, 99))
    )
    pop = population(fitnesses)
    if not np.isfinite(fitnesses).any():
        with pytest.raises(AgileRLError, match="no agent has a finite fitness"):
            tournament.select(pop)
        return
    best = max(f for f in fitnesses if np.isfinite(f))
    elite, children = tournament.select(pop)
    assert len(children) == len(pop)
    assert elite.fitness == [best]
    assert any(elite is agent for agent in pop)
    assert not {id(child) for child in children} & {id(agent) for agent in pop}
    parents = [pop[child.parent] for child in children]
    assert all(np.isfinite(parent.fitness[0]) for parent in parents)
    assert len({child.index for child in children}) == len(children)
    assert [child.elite for child in children] == [elitism] + [False] * (len(pop) - 1)
    if elitism:
        assert children[0].fitness == [best]
        assert children[0].index == elite.index
    fresh = [child.index for child in children if not child.elite]
    assert min(fresh) > max(agent.index for agent in pop)
    worst_ranks = sorted(np.nan_to_num(fitnesses, nan=-np.inf, posinf=-np.inf))[size - 1]
    assert all(parent.fitness[0] >= worst_ranks for parent in parents)


def test_the_chance_to_win_is_that_of_a_tournament() -> None:
    tournament = TournamentSelection(2, False, 4, 1, seed=5)
    wins: Counter[int] = Counter()
    for _ in range(500):
        wins.update(
            child.parent for child in tournament.select(population([1.0, 4.0, 3.0, 2.0]))[1]
        )
    # of the 6 pairs, the best wins 3, the second 2, the third 1, the worst none
    for index, expected in ((1, 1 / 2), (2, 1 / 3), (3, 1 / 6), (0, 0.0)):
        assert abs(wins[index] / 2000 - expected) < 0.05


def test_the_score_is_the_mean_of_the_last_evo_step_fitnesses() -> None:
    agent = population([[100.0, 1.0, 2.0, 6.0]])[0]
    assert score(agent, 1) == 6.0
    assert score(agent, 3) == 3.0
    assert score(agent, 99) == 109 / 4
    assert score(population([[5.0, float("nan")]])[0], 2) == float("-inf")
    assert score(population([[float("nan"), 5.0]])[0], 1) == 5.0
    assert score(population([[]])[0], 1) == float("-inf")
    steady, lucky = [5.0, 5.0, 5.0], [0.0, 0.0, 9.0]
    assert TournamentSelection(2, True, 2, 3).select(population([steady, lucky]))[0].index == 0
    assert TournamentSelection(2, True, 2, 1).select(population([steady, lucky]))[0].index == 1


@pytest.mark.parametrize("bad", BAD)
def test_nan_or_infinite_fitness_never_wins_and_never_becomes_elite(bad: float) -> None:
    tournament = TournamentSelection(2, True, 3, 1, seed=0)
    for _ in range(50):
        elite, children = tournament.select(population([bad, -7.0, bad]))
        assert elite.fitness == [-7.0]
        assert {child.parent for child in children} == {1}


def test_what_was_best_is_in_the_next_generation_bit_for_bit() -> None:
    pop = [DQN(4, 2, False, index=i, seed=i, batch_size=16) for i in range(4)]
    for agent, fitness in zip(pop, (1.0, 9.0, 3.0, 2.0), strict=True):
        agent.fitness.append(fitness)
    tournament = TournamentSelection(2, True, 4, 1, seed=1)
    mutations = Mutations("DQN", 0, 1, 0.5, 1, 1, 1, ["lr"], 0.5, rand_seed=1)
    weights = {k: v.clone() for k, v in pop[1].actor.state_dict().items()}
    elite, children = tournament.select(pop)
    children = mutations.mutation(children)
    assert elite is pop[1]
    assert children[0] is not elite
    assert (children[0].index, children[0].mut) == (1, "elite")
    assert children[0].hyperparameters == elite.hyperparameters
    for name, value in children[0].actor.state_dict().items():
        assert value.numpy().tobytes() == weights[name].numpy().tobytes()
    assert all(child.mut != "elite" for child in children[1:])


def test_children_share_nothing_with_their_parents() -> None:
    pop = [DQN(4, 2, False, index=i, seed=i) for i in range(2)]
    for agent in pop:
        agent.fitness.append(float(agent.index))
    _, children = TournamentSelection(1, True, 6, 1, seed=0).select(pop)
    owners = [*pop, *children]
    pointers = [p.data_ptr() for a in owners for p in a.actor.parameters()]
    assert len(set(pointers)) == len(pointers)
    for name in ("scores", "fitness", "steps", "net_config"):
        assert len({id(getattr(agent, name)) for agent in owners}) == len(owners)
    draws = {agent.rng.random() for agent in owners}
    assert len(draws) == len(owners), "a clone draws from a stream of its own"


def test_an_elite_of_the_last_generation_is_an_ordinary_agent_in_this_one() -> None:
    pop = population([1.0, 2.0])
    tournament = TournamentSelection(1, True, 2, 1, seed=3)
    for _ in range(3):
        _, pop = tournament.select(pop)
    assert [agent.elite for agent in pop] == [True, False]
    _, without = TournamentSelection(1, False, 2, 1).select(pop)
    assert [agent.elite for agent in without] == [False, False]


def test_one_seed_gives_the_same_parents_and_another_seed_others() -> None:
    def parents(seed: int) -> list[int]:
        tournament = TournamentSelection(2, False, 8, 1, seed=seed)
        pop = population([float(i) for i in range(8)])
        return [child.parent for _ in range(4) for child in tournament.select(pop)[1]]

    assert parents(1) == parents(1)
    assert parents(1) != parents(2)


def test_a_tournament_larger_than_the_population_is_an_error() -> None:
    with pytest.raises(ConfigError, match="tournament_size: 7 is more than the population"):
        TournamentSelection(7, True, 6, 1)
    with pytest.raises(ConfigError, match=r"tournament_size: 3 is more than the population \(2\)"):
        TournamentSelection(3, True, 6, 1).select(population([1.0, 2.0]))


@pytest.mark.parametrize("name", ["tournament_size", "population_size", "evo_step"])
@pytest.mark.parametrize("value", [0, -2, 1.5, "2", None, True])
def test_sizes_are_positive_integers(name: str, value: Any) -> None:
    good = {"tournament_size": 2, "elitism": True, "population_size": 6, "evo_step": 1}
    with pytest.raises(ConfigError, match=name):
        TournamentSelection(**{**good, name: value})


def test_a_state_goes_on_with_the_draws() -> None:
    one, other = (TournamentSelection(2, False, 6, 1, seed=seed) for seed in (1, 2))
    pop = population([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    one.select(pop)
    state = one.state_dict()
    other.load_state_dict(state)
    chosen = [[child.parent for child in each.select(pop)[1]] for each in (one, other)]
    assert chosen[0] == chosen[1]
    assert state["settings"] == other.state_dict()["settings"]
    assert state["settings"] != TournamentSelection(3, False, 6, 1).state_dict()["settings"]


@pytest.mark.parametrize("state", [{}, {"stream": 3}, {"stream": "{}"}], ids=str)
def test_a_malformed_state_changes_nothing(state: dict[str, Any]) -> None:
    tournament = TournamentSelection(2, False, 6, 1, seed=1)
    before = tournament.state_dict()
    with pytest.raises(CheckpointError, match="tournament: incomplete or inconsistent"):
        tournament.load_state_dict(state)
    assert tournament.state_dict() == before
