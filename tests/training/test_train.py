"""``train()``: what it accepts, refuses and hands on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from agilerl.algorithms.dqn import DQN
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import ConfigError, EnvError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from tests.agents import OwnAgent
from tests.envs import CountingEnv, OwnVectorEnv
from tests.runs import FIELDS, Recorder, run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pop": []}, "pop: expected a list of agents, got \\[\\]"),
        ({"pop": [object()]}, "object has no getAction, learn, test"),
        ({"n_episodes": 0}, "n_episodes"),
        ({"max_steps": 2.5}, "max_steps"),
        ({"evo_epochs": -1}, "evo_epochs"),
        ({"evo_loop": 0}, "evo_loop"),
        ({"target": "high"}, "target"),
        ({"eps_start": -1}, "eps_start"),
        ({"eps_decay": 1.5}, "eps_decay"),
        ({"learning_starts": -3}, "learning_starts"),
        (
            {"learning_starts": 21, "memory": ReplayBuffer(5, 20, FIELDS)},
            "learning_starts: the buffer never holds 21",
        ),
        ({"checkpoint": 0}, "checkpoint"),
        ({"accelerator": object()}, "accelerator"),
        ({"seed": -1}, "seed"),
        ({"tournament": TournamentSelection(4, True, 4, 1)}, "more than the population"),
        ({"mutation": Recorder()}, "without a tournament"),
        ({"memory": ReplayBuffer(5, 3, FIELDS)}, "batch_size: 4 is more than the replay buffer"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    pop = changes.pop("pop", [OwnAgent(0), OwnAgent(1)])
    with pytest.raises(ConfigError, match=message):
        run(pop, **changes)


def test_a_mutation_never_makes_the_batch_larger_than_the_buffer() -> None:
    pop = [DQN(1, 100, False, index=i, seed=i, batch_size=16) for i in range(4)]
    mutations = Mutations("DQN", 0, 0, 0, 0, 0, 1, ["batch_size"], 0.1, rand_seed=1)
    _, _, seen = run(
        pop,
        memory=ReplayBuffer(100, 20, FIELDS, seed=1),
        n_episodes=30,
        max_steps=4,
        evo_epochs=1,
        tournament=TournamentSelection(1, False, 4, 1, seed=1),
        mutation=mutations,
    )
    sizes = [row["batch_size"] for generation in seen for row in generation.rows]
    assert max(sizes) == 20
    assert min(sizes) < 16


def test_a_population_of_one_trains_without_a_tournament() -> None:
    final, fitnesses, _ = run([DQN(1, 100, False, seed=1, batch_size=4)], max_steps=20)
    assert len(final) == 1
    assert final[0].learn_count > 10
    assert len(fitnesses) == 2


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_user_s_own_vector_env_is_trained_and_evaluated_in(mode: AutoresetMode) -> None:
    agent = DQN(4, 5, False, seed=1, batch_size=8, learn_step=1)
    final, fitnesses, _ = run([agent], OwnVectorEnv(mode), max_steps=20)
    assert final[0].learn_count > 20
    assert np.isfinite(fitnesses).all()


def test_an_eval_env_is_where_fitness_comes_from() -> None:
    eval_env = CountingEnv()
    env = CountingEnv()
    run([OwnAgent(0), OwnAgent(1)], env, eval_env=eval_env, max_steps=5, eval_max_steps=3)
    assert eval_env.steps_taken == 2 * 2 * 3
    assert env.steps_taken == 2 * 4 * 5


def test_an_id_in_place_of_an_environment_is_named() -> None:
    with pytest.raises(EnvError, match=r"makeVectEnvs\('CartPole-v1'"):
        run([OwnAgent(0)], "CartPole-v1")
