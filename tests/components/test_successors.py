import gymnasium as gym
import numpy as np

from agilerl.components.successors import true_next_state
from agilerl.utils.utils import makeVectEnvs


def test_a_time_limit_leaves_its_last_observation_to_be_stored():
    env = makeVectEnvs("CartPole-v1", num_envs=3, seed=0, max_episode_steps=4)
    twin = gym.make("CartPole-v1", max_episode_steps=1000)
    state, _ = env.reset(seed=5)
    twin.reset(seed=6)  # sub-environment i is seeded with seed + i
    action = np.zeros(3, int)
    for step in range(1, 5):
        next_state, _, _, truncated, info = env.step(action)
        expected = twin.step(0)[0]
        stored = true_next_state(next_state, info)
        np.testing.assert_array_equal(stored[1], expected)
        assert truncated.all() == (step == 4)
        assert (stored is next_state) == (step < 4)
    assert not np.array_equal(next_state[1], stored[1])
    assert not np.array_equal(state, next_state)


def test_rows_that_go_on_are_left_alone():
    final = np.array([None, np.full(2, 7.0)], object)
    info = {"final_obs": final, "_final_obs": np.array([False, True])}
    stored = true_next_state(np.zeros((2, 2)), info)
    np.testing.assert_array_equal(stored, [[0, 0], [7, 7]])
