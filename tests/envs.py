"""Environments whose transitions and returns are known, for the tests."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

Array = np.ndarray[Any, np.dtype[Any]]

#: Lengths of the episodes, each sub-environment starts elsewhere in the list; 1 is an edge case.
LENGTHS = (3, 1, 4, 2, 6, 1, 1, 5)
ACTIONS = 5


def script(identity: int, episode: int) -> tuple[int, bool]:
    """Return the length of an episode, and whether it terminates (else a time limit cuts it)."""
    return LENGTHS[(identity + episode) % len(LENGTHS)], (identity + 2 * episode) % 3 != 0


def reward_of(identity: int, episode: int, time: int, action: int) -> float:
    return identity + 0.1 * time + 0.01 * action + episode % 7


class CountingEnv(gym.Env[Array, np.int64]):
    """Observations say where they are: [identity, episode, time, last action].

    Args:
        identity: tells sub-environments apart.
        in_place: one array is handed out again and again, changed in place.
    """

    def __init__(self, identity: int = 0, in_place: bool = False) -> None:
        self.observation_space = spaces.Box(-1.0, np.inf, (4,), np.float32)
        self.action_space = spaces.Discrete(ACTIONS)
        self.identity, self.episode, self.time = identity, -1, 0
        self.in_place = in_place
        self.array = np.zeros(4, np.float32)
        self.seeds: list[int | None] = []
        self.steps_taken = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        self.seeds.append(seed)
        self.episode += 1
        self.time = 0
        return self.observe(-1), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        reward = reward_of(self.identity, self.episode, self.time, int(action))
        self.time += 1
        self.steps_taken += 1
        length, terminates = script(self.identity, self.episode)
        assert self.time <= length, "stepped on after the end of an episode"
        over = self.time == length
        return self.observe(int(action)), reward, over and terminates, over and not terminates, {}

    def observe(self, action: int) -> Array:
        self.array[:] = (self.identity, self.episode, self.time, action)
        return self.array if self.in_place else self.array.copy()


class OwnVectorEnv(VectorEnv[Array, Array, Array]):
    """A user's own vector environment of counting ones, which reuses its output arrays."""

    def __init__(self, mode: AutoresetMode | None, num_envs: int = 3) -> None:
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.mode = mode
        self.num_envs = num_envs
        self.envs = [CountingEnv(i) for i in range(num_envs)]
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observations = np.zeros((num_envs, 4), np.float32)
        self.rewards = np.zeros(num_envs)
        self.terminated, self.truncated, self.over = np.zeros((3, num_envs), bool)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        for i in np.flatnonzero(mask):
            self.observations[i], _ = self.envs[i].reset()
        self.over[mask] = False
        return self.observations, {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        last = np.zeros((self.num_envs, 4), np.float32)
        for i, env in enumerate(self.envs):
            if self.over[i]:
                assert self.mode is AutoresetMode.NEXT_STEP, "not reset"
                self.observations[i], _ = env.reset()
                self.rewards[i], self.terminated[i], self.truncated[i] = 0.0, False, False
                continue
            result = env.step(actions[i])
            last[i], self.rewards[i], self.terminated[i], self.truncated[i], _ = result
            over = self.terminated[i] or self.truncated[i]
            reset = over and self.mode is AutoresetMode.SAME_STEP
            self.observations[i] = env.reset()[0] if reset else last[i]
        ended = self.terminated | self.truncated
        self.over = ended & (self.mode is not AutoresetMode.SAME_STEP)
        infos = {"final_obs": last, "_final_obs": ended} if ended.any() else {}
        return self.observations, self.rewards, self.terminated, self.truncated, infos


class PayEnv(gym.Env[Array, np.int64]):
    """Episodes of ``length`` steps; the action is the reward.  Observations say the time."""

    def __init__(self, length: int = 1, actions: int = 100) -> None:
        self.observation_space = spaces.Box(0.0, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(actions)
        self.length, self.time, self.episodes = length, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        self.episodes += 1
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return np.full(1, self.time, np.float32), float(action), self.time >= self.length, False, {}


class CorridorEnv(gym.Env[int, int]):
    """Walk from the first of five states to the last; states and actions count from ``start``."""

    def __init__(self, start: int = 0) -> None:
        self.observation_space = spaces.Discrete(5, start=start)
        self.action_space = spaces.Discrete(2, start=start)
        self.start, self.place, self.time = start, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        self.place = self.time = 0
        return self.start, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"action {action} is not in {self.action_space}")
        self.time += 1
        self.place = max(0, self.place + (1 if action - self.start else -1))
        arrived = self.place == 4
        return self.start + self.place, float(arrived), arrived, self.time >= 20, {}


class CatchEnv(gym.Env[Array, np.int64]):
    """Catch a falling ball: images [10, 10, 3] (channels last), uint8.

    Channel 0 shows the ball, channel 1 the paddle in the bottom row, channel 2 is a frame.  The
    paddle moves left, stays, or moves right; the return is 1 for a catch and -1 for a miss.
    """

    SIZE = 10

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (self.SIZE, self.SIZE, 3), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.row = self.column = self.paddle = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.row = 0
        self.column, self.paddle = (int(i) for i in self.np_random.integers(self.SIZE, size=2))
        return self.image(), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.paddle = int(np.clip(self.paddle + int(action) - 1, 0, self.SIZE - 1))
        self.row += 1
        landed = self.row == self.SIZE - 1
        reward = (1.0 if self.column == self.paddle else -1.0) if landed else 0.0
        return self.image(), reward, landed, False, {}

    def image(self) -> Array:
        image = np.zeros((self.SIZE, self.SIZE, 3), np.uint8)
        image[self.row, self.column, 0] = 255
        image[-1, self.paddle, 1] = 255
        image[[0, -1], :, 2] = 128
        return image


class ReachEnv(gym.Env[Array, Array]):
    """Ten steps on a line; the reward is minus the distance of the action from a hidden point."""

    def __init__(self, low: float = -2.0, high: float = 3.0) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.action_space = spaces.Box(np.float32(low), np.float32(high), (1,), np.float32)
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(np.asarray(action, np.float32)), action
        self.time += 1
        observation = self.np_random.uniform(-1, 1, 2)
        return observation, -abs(float(action[0]) - 2.0), False, self.time >= 10, {}
