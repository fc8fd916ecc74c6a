"""DDPG acts in the environment's units, within its bounds."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agilerl.algorithms.ddpg import DDPG
from agilerl.errors import ConfigError, EnvError
from tests.algorithms.known import SATURATED, put_out


def pendulum() -> gym.Env[Any, Any]:
    return gym.make("Pendulum-v1")


def test_test_binds_the_environments_bounds() -> None:
    agent = DDPG(3, 1, False, seed=0)
    assert (agent.min_action, agent.max_action) == ([-1.0], [1.0])
    agent.test(pendulum(), max_steps=2, loop=1)
    assert (agent.min_action, agent.max_action) == ([-2.0], [2.0])
    put_out(agent.actor, SATURATED)
    assert agent.getAction(np.zeros(3, np.float32)).tolist() == [2.0]


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        ({"min_action": -0.5, "max_action": 0.5}, -0.5, 0.5),
        ({"min_action": -0.5}, -0.5, 2.0),
        ({"max_action": [0.5]}, -2.0, 0.5),
    ],
    ids=["both", "low", "high"],
)
def test_bounds_that_were_given_go_before_the_environments(
    given: dict[str, Any], low: float, high: float
) -> None:
    agent = DDPG(3, 1, False, **given)
    for _ in range(2):
        agent.adapt_to_env(pendulum())
        assert (agent.min_action, agent.max_action) == ([low], [high])


def test_bounds_once_bound_stay_and_go_into_clones_and_checkpoints(tmp_path: Any) -> None:
    agent = DDPG(3, 1, False)
    agent.saveCheckpoint(tmp_path / "unbound")
    loaded = DDPG.load(tmp_path / "unbound")
    loaded.adapt_to_env(pendulum())
    assert loaded.max_action == [2.0], "an agent that was not told still takes the environment's"
    loaded.saveCheckpoint(tmp_path / "bound")
    for twin in (loaded.clone(), DDPG.load(tmp_path / "bound")):
        twin.adapt_to_env(gym.wrappers.RescaleAction(pendulum(), np.float32(-1), np.float32(1)))
        assert (twin.min_action, twin.max_action) == ([-2.0], [2.0])


def test_unbounded_actions_are_an_error() -> None:
    env = pendulum()
    env.action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    agent = DDPG(3, 1, False)
    with pytest.raises(EnvError, match=r"unbounded.*RescaleAction"):
        agent.test(env)
    assert agent.fitness == []


def test_discrete_actions_are_an_error() -> None:
    with pytest.raises(EnvError, match="use DQN"):
        DDPG(4, 1, False).test(gym.make("CartPole-v1"))


@pytest.mark.parametrize(
    "bounds",
    [
        {"min_action": 1.0, "max_action": 1.0},
        {"min_action": 2.0},
        {"max_action": math.inf},
        {"max_action": math.nan},
        {"min_action": [-1.0, -1.0, -1.0]},
        {"min_action": "low"},
    ],
    ids=str,
)
def test_bounds_that_are_none_are_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="min_action, max_action: expected"):
        DDPG(3, 2, False, **bounds)
