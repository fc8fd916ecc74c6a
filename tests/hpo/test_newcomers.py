"""Children whose settings all move, and those that begin anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agilerl.errors import ConfigError
from agilerl.hpo.mutation import Mutations
from agilerl.runs.run_settings import mutations_of, settings_of
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.envs import ReachEnv


def population(count: int = 3) -> list[Any]:
    config, settings = {"arch": "mlp", "h_size": [8]}, {"LR": 1e-3, "BATCH_SIZE": 64}
    return initialPopulation("DQN", (4,), 2, False, config, settings, count, seed=1)


def mutations(**changes: Any) -> Mutations:
    chances = {"no_mutation": 0, "architecture": 0, "parameters": 0, "activation": 0, "rl_hp": 1}
    settings: dict[str, Any] = {
        **chances,
        "new_layer_prob": 0.5,
        "rl_hp_selection": ["lr", "batch_size", "tau"],
        "mutation_sd": 0.1,
        "rand_seed": 3,
    }
    return Mutations("DQN", **{**settings, **changes})


def test_all_settings_move_at_once() -> None:
    (agent,) = population(1)
    before = agent.hyperparameters
    (moved,) = mutations(perturb_all=True).mutation([agent])
    changed = {k for k, value in moved.hyperparameters.items() if value != before[k]}
    assert changed == {"lr", "batch_size", "tau"}
    assert [part.split()[0] for part in moved.mut.split(", ")] == ["lr", "batch_size", "tau"]
    assert moved.optimizer.param_groups[0]["lr"] == moved.lr


def test_one_that_begins_anew_takes_the_place_and_has_no_parent() -> None:
    made: list[int] = []

    def newcomer(agent: Any, seed: int) -> Any:
        made.append(seed)
        return initialPopulation(
            "DQN", (4,), 2, False, {"arch": "mlp", "h_size": [16]}, {"LR": 0.1}, 1, seed=seed
        )[0]

    first, second, third = population()
    for agent in (first, second, third):
        agent.steps, agent.parent, agent.fitness = [5, 7], 0, [3.0]
    first.elite = True
    second.index = 9
    new = mutations(restart=1.0, newcomer=newcomer).mutation([first, second, third])
    assert new[0] is first
    assert (new[1].index, new[1].parent, new[1].mut, new[1].elite) == (9, None, "restart", False)
    assert (new[1].steps, new[1].fitness, new[1].scores) == ([5, 7], [], [])
    assert new[1].lr == 0.1
    assert new[1].architecture == "16 relu"
    assert len(set(made)) == 2
    weights = [next(agent.actor.parameters()) for agent in new[1:]]
    assert not torch.equal(*weights)
    new[1].steps.append(1)
    assert second.steps == [5, 7]


def test_restarts_are_drawn_with_their_probability() -> None:
    mutation = mutations(restart=0.25, newcomer=lambda agent, seed: population(1)[0])
    labels = [mutation.mutation(population(1))[0].mut for _ in range(400)]
    assert 70 <= labels.count("restart") <= 130


def test_without_a_maker_nobody_can_begin_anew() -> None:
    with pytest.raises(ConfigError, match="newcomer: restart > 0 needs a function"):
        mutations(restart=0.5)
    with pytest.raises(ConfigError, match=r"restart: expected a finite number in \[0, 1\]"):
        mutations(restart=1.5, newcomer=lambda agent, seed: agent)
    with pytest.raises(ConfigError, match="perturb_all: expected True or False"):
        mutations(perturb_all="yes")


def test_those_of_evolve_are_drawn_as_at_the_start_and_know_the_bounds() -> None:
    settings = {**settings_of(ReachEnv), "seed": 5}
    mutation = mutations_of({**settings, "mutation_params": {**settings["mutation_params"]}}, 5)
    assert mutation.newcomer is not None
    (agent,) = initialPopulation(
        "DDPG", (2,), 1, False, {"arch": "mlp", "h_size": [8]}, {"LR": 1e-3}, 1, seed=1
    )
    agent.adapt_to_env(makeVectEnvs(ReachEnv, num_envs=1))
    drawn = [mutation.newcomer(agent, seed) for seed in range(30)]
    assert all((new.min_action, new.max_action) == ([-2.0], [3.0]) for new in drawn)
    rates = [new.lr for new in drawn]
    assert min(rates) < 1e-4 < 1e-3 < max(rates)
    assert len({new.architecture for new in drawn}) > 20
    assert mutation.newcomer(agent, 3).hyperparameters == drawn[3].hyperparameters
