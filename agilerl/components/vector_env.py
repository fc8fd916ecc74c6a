"""A vector environment that steps its sub-environments in this process, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from agilerl.components.spaces import check_action_space, check_observation_space
from agilerl.errors import EnvError
from agilerl.seeding import derive

Array = np.ndarray[Any, np.dtype[Any]]


def from_zero(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return ``space``, or the Discrete space of the same size that starts at 0."""
    if isinstance(space, spaces.Discrete) and space.start != 0:
        return spaces.Discrete(int(space.n))
    return space


class InProcessVectorEnv(VectorEnv[Any, Any, Any]):
    """Sub-environments stepped in turn, with SAME_STEP autoreset.

    An episode that ends is reset within the same step: the observation is the first of the next
    episode, and ``info["final_obs"][i]`` (with the mask ``info["_final_obs"]``) the last of the
    one that ended.  Discrete spaces start at 0 here, whatever they start at inside.

    Args:
        envs: single environments with equal spaces (Box, Discrete or MultiBinary observations).
        seed: of the first ``reset()`` that is given none; sub-environment i gets its own.

    Raises:
        EnvError: if a space can't be used.
    """

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], seed: int | None = None) -> None:
        self.envs = list(envs)
        self.num_envs = len(self.envs)
        observation, action = self.envs[0].observation_space, self.envs[0].action_space
        check_observation_space(observation)
        check_action_space(action)
        self.metadata = {**(self.envs[0].metadata or {}), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.spec = self.envs[0].spec
        self.render_mode = self.envs[0].render_mode
        self.single_observation_space = from_zero(observation)
        self.single_action_space = from_zero(action)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._first_state = int(getattr(observation, "start", 0))
        self._first_action = int(getattr(action, "start", 0))
        self._shape = tuple(observation.shape or ())
        self._dtype = np.dtype(observation.dtype)
        self._action_shape = (self.num_envs, *(action.shape or ()))
        self._action_dtype = np.dtype(action.dtype)
        self._seed = seed
        self._actions: Array | None = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes everywhere; ``seed + i`` seeds sub-environment i."""
        if seed is None and self._seed is not None:
            seed = derive(self._seed, "env")
        self._seed = None
        self._actions = None
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        observations, infos = self._empty(), dict[str, Any]()
        for i, env in enumerate(self.envs):
            observation, info = env.reset(seed=None if seeds is None else seeds[i], options=options)
            observations[i] = self._check(observation)
            if info:
                infos = self._add_info(infos, info, i)
        return observations, infos

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Step every sub-environment with its row of ``actions``."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Take the actions of the next step; the work is done by ``step_wait``."""
        actions = np.asarray(actions, self._action_dtype)
        if actions.shape != self._action_shape:
            raise EnvError(
                f"actions: expected shape {self._action_shape}, one row for each sub-environment,"
                f" got {actions.shape}."
            )
        self._actions = actions + self._first_action if self._first_action else actions

    def step_wait(self) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Return observations, rewards, terminated, truncated and infos of the step."""
        if self._actions is None:
            raise EnvError("step_wait: no step was started; call reset() and step_async() first.")
        observations, rewards = self._empty(), np.zeros(self.num_envs)
        terminated, truncated = (np.zeros(self.num_envs, bool) for _ in range(2))
        infos: dict[str, Any] = {}
        for i, (env, action) in enumerate(zip(self.envs, self._actions, strict=True)):
            observation, rewards[i], terminated[i], truncated[i], info = env.step(action)
            observation = self._check(observation)
            if terminated[i] or truncated[i]:
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, i)
                observation, info = env.reset()
                observation = self._check(observation)
            observations[i] = observation
            if info:
                infos = self._add_info(infos, info, i)
        self._actions = None
        return observations, rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close every sub-environment."""
        for env in self.envs:
            env.close()

    def _empty(self) -> Array:
        return np.empty((self.num_envs, *self._shape), self._dtype)

    def _check(self, observation: Any) -> Any:
        """Return an observation of the right shape, numbered from 0; nothing is broadcast."""
        if np.shape(observation) != self._shape:
            raise EnvError(
                f"observation: expected shape {self._shape}, as the observation space says, got"
                f" {np.shape(observation)} from {self.envs[0]}; fix its reset() and step(), or its"
                " observation_space."
            )
        return observation - self._first_state if self._first_state else observation
