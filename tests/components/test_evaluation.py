"""The return of whole episodes: which ones count, and how often."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agilerl.algorithms.dqn import DQN
from agilerl.components.transitions import CountedEnv, evaluate
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import ConfigError
from agilerl.utils.utils import makeVectEnvs
from tests.envs import CountingEnv, OwnVectorEnv, PayEnv, reward_of, script


def ones(states: Any) -> Any:
    return np.ones(len(states), int)


def return_of(identity: int, episode: int, cut: int = 10**6) -> float:
    length, _ = script(identity, episode)
    return sum(reward_of(identity, episode, t, 1) for t in range(min(length, cut)))


def fresh(kind: str) -> Any:
    if kind == "in process":
        return InProcessVectorEnv([CountingEnv(i) for i in range(3)])
    family, mode = kind.split()
    if family == "own":
        return OwnVectorEnv(AutoresetMode[mode])
    makers = [functools.partial(CountingEnv, i) for i in range(3)]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode[mode])


KINDS = ["in process", *(f"{f} {mode.name}" for f in ("own", "Sync") for mode in AutoresetMode)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_episodes_of_each_sub_env_count_and_no_others(kind: str) -> None:
    returns = evaluate(ones, fresh(kind), episodes=4, max_steps=100)
    expected = [[return_of(i, episode) for episode in range(4)] for i in range(3)]
    np.testing.assert_allclose(returns, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_is_cut_at_max_steps_and_never_summed_across_a_reset(kind: str) -> None:
    returns = evaluate(ones, fresh(kind), episodes=1, max_steps=2)
    np.testing.assert_allclose(returns[:, 0], [return_of(i, 0, cut=2) for i in range(3)])
    again = evaluate(ones, InProcessVectorEnv([PayEnv(length=7)] * 1), episodes=5, max_steps=3)
    np.testing.assert_allclose(again, [[3.0] * 5])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_an_episode_of_exactly_max_steps_is_whole_in_every_mode(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([functools.partial(PayEnv, 4)] * 2, autoreset_mode=mode)
    np.testing.assert_allclose(evaluate(ones, env, episodes=3, max_steps=4), [[4.0] * 3] * 2)


def test_a_cut_sub_env_waits_and_the_others_finish_their_episodes() -> None:
    env = InProcessVectorEnv([PayEnv(length=1), PayEnv(length=9), PayEnv(length=4)])
    returns = evaluate(ones, env, episodes=3, max_steps=4)
    np.testing.assert_allclose(returns, [[1.0] * 3, [4.0] * 3, [4.0] * 3])


def test_a_cartpole_agent_that_falls_at_once_scores_about_ten() -> None:
    env = makeVectEnvs("CartPole-v1", num_envs=4, seed=1)
    returns = evaluate(ones, env, episodes=5, max_steps=500)
    assert 8 <= returns.min() <= returns.max() <= 11


def test_test_gives_the_mean_return_and_appends_it_once() -> None:
    agent = DQN(1, 100, False, seed=1, net_config={"arch": "mlp", "h_size": [8]})
    env = InProcessVectorEnv([PayEnv(length=1), PayEnv(length=3)])
    state = np.zeros((1, 1), np.float32)
    first = agent.getAction(state)[0]
    returns = evaluate(agent.getAction, env, episodes=2, max_steps=9)
    fitness = agent.test(env, max_steps=9, loop=2)
    twin = agent.clone()
    assert agent.fitness == [fitness] == [returns.mean()]
    assert returns[0].tolist() == [first, first]
    agent.test(env, max_steps=9, loop=1)
    assert agent.fitness == [fitness, fitness]
    assert twin.fitness == [fitness]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_steps_count_every_transition_and_nothing_else(kind: str) -> None:
    env = CountedEnv(fresh(kind))
    for _ in range(2):
        evaluate(ones, env, episodes=3, max_steps=4)
    assert env.count == sum(single.steps_taken for single in env.envs)
    assert copy.copy(env).count == env.count


@pytest.mark.parametrize("bad", [{"episodes": 0}, {"max_steps": 0}, {"episodes": 1.5}])
def test_bad_counts_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"loop|max_steps"):
        evaluate(ones, fresh("in process"), **{"episodes": 1, "max_steps": 5, **bad})
