"""Learning runs: each problem is solved by a small population through ``train()``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import evaluate
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.envs import CatchEnv


@dataclass(frozen=True)
class Problem:
    """An environment, what it takes to solve it, and what solved means.

    Attributes:
        target: mean return of the best agent over 100 fresh episodes.
        longest: steps of an evaluation episode at most.
    """

    algo: str
    make: Callable[[int, int], Any]
    target: float
    longest: int
    hp: dict[str, Any]
    net_config: dict[str, Any]
    train: dict[str, Any]
    num_envs: int = 4
    eval_envs: int = 10
    population: int = 4
    memory: int = 50_000
    swap_channels: bool = False
    ranges: dict[str, Any] = field(default_factory=lambda: {"lr": (3e-4, 5e-3)})


def gymnasium_env(name: str, **kwargs: Any) -> Callable[[int, int], Any]:
    return lambda count, seed: makeVectEnvs(name, count, seed=seed, **kwargs)


PROBLEMS = {
    "CartPole": Problem(
        algo="DQN",
        make=gymnasium_env("CartPole-v1"),
        target=475.0,
        longest=500,
        hp={"LR": 2e-3, "BATCH_SIZE": 256, "LEARN_STEP": 1, "TAU": 0.05, "DOUBLE": True},
        net_config={"arch": "mlp", "h_size": [64, 64]},
        train={"n_episodes": 60, "max_steps": 250, "evo_epochs": 2, "eps_decay": 0.7},
        num_envs=16,
        population=3,
    ),
    "Pendulum": Problem(
        algo="DDPG",
        make=gymnasium_env("Pendulum-v1"),
        target=-200.0,
        longest=200,
        hp={"LR": 1e-3, "BATCH_SIZE": 128, "LEARN_STEP": 1, "TAU": 0.01, "GAMMA": 0.98},
        net_config={"arch": "mlp", "h_size": [64, 64]},
        train={"n_episodes": 100, "max_steps": 200, "evo_epochs": 5, "eps_decay": 0.85},
        population=3,
    ),
    "Pendulum with two critics": Problem(
        algo="TD3",
        make=gymnasium_env("Pendulum-v1"),
        target=-200.0,
        longest=200,
        hp={"LR": 1e-3, "BATCH_SIZE": 128, "LEARN_STEP": 1, "TAU": 0.01, "GAMMA": 0.98},
        net_config={"arch": "mlp", "h_size": [64, 64]},
        train={"n_episodes": 100, "max_steps": 200, "evo_epochs": 5, "eps_decay": 0.85},
        population=3,
    ),
    "FrozenLake": Problem(
        algo="DQN",
        make=gymnasium_env("FrozenLake-v1", is_slippery=False),
        target=1.0,
        longest=100,
        hp={"LR": 2e-3, "BATCH_SIZE": 64, "LEARN_STEP": 1, "TAU": 0.02, "GAMMA": 0.95},
        net_config={"arch": "mlp", "h_size": [32]},
        train={"n_episodes": 60, "max_steps": 100, "evo_epochs": 4, "eps_decay": 0.97},
        eval_envs=2,
    ),
    "Catch": Problem(
        algo="DQN",
        make=lambda count, seed: InProcessVectorEnv([CatchEnv() for _ in range(count)], seed=seed),
        target=0.9,
        longest=20,
        hp={"LR": 2e-3, "BATCH_SIZE": 128, "LEARN_STEP": 1, "TAU": 0.01, "GAMMA": 0.9},
        net_config={
            "arch": "cnn",
            "h_size": [64],
            "c_size": [8, 16],
            "k_size": [3, 3],
            "s_size": [1, 1],
            "normalize": True,
        },
        train={"n_episodes": 60, "max_steps": 100, "evo_epochs": 5, "eps_decay": 0.85},
        num_envs=16,
        eval_envs=50,
        population=2,
        swap_channels=True,
    ),
}


def solve(problem: Problem, seed: int) -> tuple[Any, Any]:
    """Train a population; return its best agent and the last generation."""
    env = problem.make(problem.num_envs, seed)
    eval_env = problem.make(problem.eval_envs, seed + 1)
    space, action = env.single_observation_space, env.single_action_space
    one_hot = isinstance(space, gym.spaces.Discrete)
    state_dim = int(space.n) if one_hot else space.shape
    if problem.swap_channels:
        state_dim = (state_dim[2], state_dim[0], state_dim[1])
    discrete = isinstance(action, gym.spaces.Discrete)
    action_dim = int(action.n) if discrete else action.shape[0]
    pop = initialPopulation(
        problem.algo,
        state_dim,
        action_dim,
        one_hot,
        problem.net_config,
        problem.hp,
        problem.population,
        seed=seed,
    )
    fields = ["state", "action", "reward", "next_state", "done"]
    seen: list[Any] = []
    final, _ = train(
        env,
        "learning",
        problem.algo,
        pop,
        ReplayBuffer(action_dim, problem.memory, fields, seed=seed),
        problem.swap_channels,
        eps_start=1.0,
        eps_end=0.1,
        target=problem.target,
        tournament=TournamentSelection(2, True, problem.population, 1, seed=seed),
        mutation=Mutations(
            problem.algo,
            0.4,
            0.2,
            0.2,
            0.1,
            0.1,
            0.2,
            ["lr", "batch_size"],
            0.1,
            arch=problem.net_config["arch"],
            rand_seed=seed,
            ranges={**problem.ranges, "batch_size": (64, 256)},
        ),
        seed=seed,
        callbacks=[seen.append],
        eval_env=eval_env,
        eval_max_steps=problem.longest,
        verbose=True,
        **problem.train,
    )
    return final[0], seen[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_population_solves_it(name: str, seed: int) -> None:
    problem = PROBLEMS[name]
    agent, last = solve(problem, seed)
    assert last.solved
    assert last.check >= problem.target
    again = problem.make(100, 10_000 + seed)  # other episodes than any of the run's
    again.reset()
    act = agent.getAction
    returns = evaluate(act, again, 1, problem.longest, problem.swap_channels)
    spread = float(returns.std()) / np.sqrt(len(returns))
    assert returns.mean() >= problem.target - 3 * spread
    print(
        f"\n{name} seed {seed}: {last.check:.1f}, {returns.mean():.1f} on other episodes,"
        f" {last.global_steps:,} steps, {last.seconds / 60:.2f} min"
    )
