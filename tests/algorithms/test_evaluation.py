"""``test()``: the mean undiscounted return of whole episodes."""

from __future__ import annotations

import copy
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agilerl.algorithms.dqn import DQN
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import ConfigError, EnvError
from tests.algorithms.known import put_out


class Counting(gym.Env[Any, Any]):
    """Counts its steps; episode i of it has ``lengths[i]`` steps and ends as it is told."""

    observation_space = gym.spaces.Box(-1, 99, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, *lengths: int, reward: float = 1.0, truncates: bool = False) -> None:
        self.lengths, self.reward, self.truncates = lengths, reward, truncates
        self.episode, self.time = -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return np.array([0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        over = self.time == self.lengths[self.episode % len(self.lengths)]
        state = np.array([self.time], np.float32)
        return state, self.reward, over and not self.truncates, over and self.truncates, {}


def agent(**settings: Any) -> DQN:
    return DQN(1, 2, False, seed=0, **settings)


@pytest.mark.parametrize("truncates", [False, True])
def test_the_first_episodes_of_each_sub_environment_count_and_never_sum_across_a_reset(
    truncates: bool,
) -> None:
    envs = [Counting(2, truncates=truncates), Counting(10, truncates=truncates)]
    mine = agent()
    assert mine.test(InProcessVectorEnv(envs), loop=3) == pytest.approx((2 + 10) / 2)
    assert mine.fitness == [6.0]


def test_the_episodes_that_count_are_the_first_ones() -> None:
    env = InProcessVectorEnv([Counting(1, 2, 50), Counting(5, 7, 50)])
    assert agent().test(env, loop=2) == pytest.approx((1 + 2 + 5 + 7) / 4)


def test_an_episode_is_cut_at_max_steps_with_its_return_so_far() -> None:
    env = InProcessVectorEnv([Counting(3, reward=2.0), Counting(1000, reward=2.0)])
    assert agent().test(env, max_steps=4, loop=2) == pytest.approx((6 + 8) / 2)


def test_after_a_cut_the_next_episode_starts_from_a_reset() -> None:
    class Later(Counting):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            state, _, *rest = super().step(action)
            return state, float(self.time), *rest  # later steps of an episode give more

    env = InProcessVectorEnv([Later(1000), Later(2)])
    assert agent().test(env, max_steps=3, loop=2) == pytest.approx(((1 + 2 + 3) + (1 + 2)) / 2)


def test_the_return_is_not_discounted() -> None:
    assert agent(gamma=0.1).test(Counting(9, reward=1.0), loop=1) == 9.0


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
def test_every_autoreset_mode_gives_the_same_score(mode: str) -> None:
    makers: list[Any] = [lambda: Counting(3), lambda: Counting(8)]
    chosen = gym.vector.AutoresetMode[mode]
    env = gym.vector.SyncVectorEnv(makers, autoreset_mode=chosen)
    assert agent().test(env, loop=3) == pytest.approx(5.5)


def test_a_cartpole_agent_that_falls_at_once_scores_about_ten() -> None:
    mine = DQN(4, 2, False, seed=0)
    put_out(mine.actor, 1.0, 0.0)
    for env in (
        gym.make("CartPole-v1"),
        InProcessVectorEnv([gym.make("CartPole-v1") for _ in range(4)]),
    ):
        env.reset(seed=1)
        assert 8 < mine.test(env, max_steps=500, loop=5) < 11


def test_each_test_appends_one_value_to_fitness_and_nothing_to_the_other_histories() -> None:
    mine = agent()
    for expected in (1, 2, 3):
        mine.test(Counting(expected), loop=1)
    assert mine.fitness == [1.0, 2.0, 3.0]
    assert (mine.scores, mine.steps) == ([], [0])
    assert type(mine.fitness[0]) is float


def test_testing_acts_greedily() -> None:
    seen = []
    mine = agent()
    act = mine.getAction
    mine.getAction = lambda state, epsilon=0: seen.append(epsilon) or act(state, epsilon)  # type: ignore[method-assign]
    mine.test(Counting(3), loop=1)
    assert seen == [0, 0, 0]


def test_testing_leaves_torch_in_its_mode_and_grad_enabled() -> None:
    mine = agent()
    mine.test(Counting(3), loop=1)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_an_agent_that_diverged_scores_minus_infinity(weight: float) -> None:
    mine = agent()
    with torch.no_grad():
        mine.actor.layers["output"].weight[0, 0] = weight
    assert mine.test(Counting(3), loop=1) == -math.inf
    assert mine.fitness == [-math.inf]


@pytest.mark.parametrize("arguments", [{"loop": 0}, {"max_steps": 0}, {"loop": 1.5}])
def test_no_episodes_or_no_steps_is_an_error(arguments: dict[str, Any]) -> None:
    mine = agent()
    with pytest.raises(ConfigError, match="expected an integer >= 1"):
        mine.test(Counting(3), **arguments)
    assert mine.fitness == []


def test_images_are_turned_for_testing_as_they_are_for_acting() -> None:
    class Image(Counting):
        observation_space = gym.spaces.Box(0, 255, (6, 5, 3), np.uint8)

        def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
            super().reset(**arguments)
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return self.observation_space.sample(), *super().step(action)[1:]

    config = {"arch": "cnn", "c_size": [4], "k_size": [3], "s_size": [1], "h_size": [8]}
    mine = DQN((3, 6, 5), 2, False, net_config=config, seed=0)
    assert mine.test(Image(4), swap_channels=True, loop=1) == 4.0
    with pytest.raises(EnvError, match="CHANNELS_LAST"):
        mine.test(Image(4), loop=1)


@pytest.mark.parametrize("start", [0, 5])
def test_discrete_observations_are_tested_wherever_they_start(start: int) -> None:
    class Discrete(Counting):
        observation_space = gym.spaces.Discrete(4, start=start)

        def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
            super().reset(**arguments)
            return start, {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return start + self.time % 4, *super().step(action)[1:]

    assert DQN(4, 2, True, seed=0).test(Discrete(6), loop=2) == 6.0


def test_a_dict_observation_is_refused_by_an_error_that_names_a_wrapper() -> None:
    env = Counting(3)
    env.observation_space = gym.spaces.Dict({"a": copy.deepcopy(env.observation_space)})
    with pytest.raises(EnvError, match="FlattenObservation"):
        agent().test(env)
