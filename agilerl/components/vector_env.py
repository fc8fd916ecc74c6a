"""Vector environments with SAME_STEP autoreset: in this process, and in processes of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, Self

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from agilerl.components.spaces import (
    check_action_space,
    check_observation_space,
    single_spaces,
)
from agilerl.errors import EnvError
from agilerl.seeding import derive

Array = np.ndarray[Any, np.dtype[Any]]
#: What sub-environments said: the index of one, and a dict that goes into the infos.
EnvInfos = list[tuple[int, dict[str, Any]]]


def from_zero(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return ``space``, or the Discrete space of the same size that starts at 0."""
    if isinstance(space, spaces.Discrete) and space.start != 0:
        return spaces.Discrete(int(space.n))
    return space


def flag(name: str, value: Any, env: Any) -> bool:
    """Return whether an episode ended; raise ``EnvError`` if ``value`` is no single flag."""
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "bui" and value in (0, 1):
        return bool(value)
    raise EnvError(f"{name}: expected True or False, got {value!r} from {env}; fix its step().")


def a_number(reward: Any, env: Any) -> float:
    """Return a reward as a number; raise ``EnvError`` if it is none."""
    try:
        return float(reward)
    except (TypeError, ValueError) as error:
        raise EnvError(
            f"reward: expected a number, got {reward!r} from {env}; fix its step()."
        ) from error


#: What the methods of an environment return.
RETURNED = {
    "step()": "(observation, reward, terminated, truncated, info)",
    "reset()": "(observation, info)",
}


def parts(method: str, result: Any, count: int, env: Any) -> Any:
    """Return what a method of an environment gave; raise ``EnvError`` if it has other parts."""
    if isinstance(result, tuple) and len(result) == count:
        return result
    got = f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
    raise EnvError(
        f"{method}: expected {RETURNED[method]}, got {got} from {env}; it is not of gymnasium's"
        " present API, see https://gymnasium.farama.org/introduction/migration_guide."
    )


def blame(error: Exception, row: int, method: str, action: Any = None) -> NoReturn:
    """Raise ``EnvError`` about a sub-environment that raised, or gave what it must not."""
    where = f"sub-environment {row}" + ("" if action is None else f", action {action}")
    if isinstance(error, EnvError):
        raise error.located(where)
    raise EnvError(f"{where}: {method} raised {type(error).__name__}: {error}") from error


def check_alike(envs: Sequence[Any]) -> None:
    """Raise ``EnvError`` unless these are different environments with equal spaces."""
    if len(set(map(id, envs))) < len(envs):
        raise EnvError(
            f"envs: {envs[0]} is there more than once, and can play one episode at a time only;"
            " pass one environment for each, or makeVectEnvs the function that makes it."
        )
    first = single_spaces(envs[0])
    for i, env in enumerate(envs):
        for name, one, other in zip(
            ("observation", "action"), first, single_spaces(env), strict=True
        ):
            if one != other:
                raise EnvError(
                    f"envs: the {name} space of sub-environment {i} is {other}, and of the first"
                    f" one {one}; sub-environments must have equal spaces."
                )


class InProcessVectorEnv(VectorEnv[Any, Any, Any]):
    """Sub-environments stepped in turn in this process, with SAME_STEP autoreset.

    An episode that ends is reset within the same step: the observation is the first of the next
    episode, and ``info["final_obs"][i]`` (with the mask ``info["_final_obs"]``) the last of the
    one that ended.  Discrete spaces start at 0 here, whatever they start at inside.

    Args:
        envs: single environments with equal spaces (Box, Discrete or MultiBinary observations).
        seed: of the first ``reset()`` that is given none; sub-environment i gets its own.

    Raises:
        EnvError: if a space can't be used.
    """

    #: the functions that made the sub-environments, and these; None where they were given
    _made: tuple[list[Callable[[], Any]], list[Any]] | None = None

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], seed: int | None = None) -> None:
        self.envs = list(envs)
        self.num_envs = len(self.envs)
        env = self.envs[0]
        observation, action = single_spaces(env)
        check_observation_space(observation)
        check_action_space(action)
        check_alike(self.envs)
        self.metadata = {**(env.metadata or {}), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.spec = env.spec
        self.render_mode = env.render_mode
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

    @classmethod
    def made_by(cls, makers: Sequence[Callable[[], Any]], seed: int | None = None) -> Self:
        """Return one that remembers the functions that made its sub-environments."""
        env = cls([maker() for maker in makers], seed)
        env._made = list(makers), list(env.envs)
        return env

    @property
    def env_fns(self) -> list[Callable[[], Any]] | None:
        """The functions that make these sub-environments, as gymnasium calls them; None: unknown.

        They are unknown, too, where a sub-environment was exchanged later.
        """
        if self._made is None or list(map(id, self._made[1])) != list(map(id, self.envs)):
            return None
        return self._made[0]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes everywhere; ``seed + i`` seeds sub-environment i."""
        if seed is None and self._seed is not None:
            seed = derive(self._seed, "env")
        self._seed = self._actions = None
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + i for i in range(self.num_envs)]
        observations = np.empty((self.num_envs, *self._shape), self._dtype)
        env_infos: EnvInfos = []
        for i, env in enumerate(self.envs):
            try:
                result = env.reset(seed=seed[i], options=options)
                observation, info = parts("reset()", result, 2, env)
                observations[i] = self._check(observation)
            except Exception as error:  # whatever an environment may raise
                blame(error, i, "reset()")
            if info:
                env_infos.append((i, info))
        return observations, self._infos(env_infos)

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
        actions, self._actions = self._actions, None
        observations = np.empty((self.num_envs, *self._shape), self._dtype)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        env_infos: EnvInfos = []
        shape, dtype, first = self._shape, self._dtype, self._first_state
        i, doing = 0, "step()"
        try:
            for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
                result = env.step(action)
                observation, reward, over, cut, info = parts("step()", result, 5, env)
                rewards[i] = a_number(reward, env)
                plain = type(observation) is np.ndarray and observation.dtype is dtype
                if first or not plain or observation.shape != shape:
                    observation = self._check(observation)
                if type(over) is not bool or type(cut) is not bool:
                    over, cut = flag("terminated", over, env), flag("truncated", cut, env)
                if over or cut:
                    terminated[i], truncated[i] = over, cut
                    last = copy.copy(observation)  # the environment may write its next into it
                    env_infos.append((i, {"final_obs": last, "final_info": info}))
                    doing = "reset()"
                    observation, info = parts(doing, env.reset(), 2, env)
                    observation, doing = self._check(observation), "step()"
                observations[i] = observation
                if info:
                    env_infos.append((i, info))
        except Exception as error:  # whatever an environment may raise
            blame(error, i, doing, actions[i])
        infos = self._infos(env_infos) if env_infos else {}
        return observations, rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close every sub-environment."""
        for env in self.envs:
            env.close()

    def _infos(self, env_infos: EnvInfos) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for i, info in env_infos:
            infos = self._add_info(infos, info, i)
        return infos

    def _check(self, observation: Any) -> Any:
        """Return an observation of the right shape, numbered from 0; nothing is broadcast.

        Integers and flags are what they are declared to be; only floats may lose digits.
        """
        if np.shape(observation) != self._shape:
            raise EnvError(
                f"observation: expected shape {self._shape}, as the observation space says, got"
                f" {np.shape(observation)} from {self.envs[0]}; fix its reset() and step(), or its"
                " observation_space."
            )
        values = np.asarray(observation)
        known = values.dtype.kind in "biuf"
        with np.errstate(invalid="ignore"):
            if not known or (
                self._dtype.kind != "f" and not np.array_equal(values.astype(self._dtype), values)
            ):
                raise EnvError(
                    f"observation: expected {self._dtype}, as the observation space says, got"
                    f" {observation!r} from {self.envs[0]}; fix its reset() and step(), or declare"
                    " a space of what it returns."
                )
        return observation - self._first_state if self._first_state else observation


class LastObservation(gym.Wrapper[Any, Any, Any, Any]):
    """Hands out the last observation of an episode as a copy.

    gymnasium keeps it over the reset, in which an environment may write into the same array.
    """

    def step(self, action: Any) -> Any:
        """Step the environment."""
        observation, reward, over, cut, info = self.env.step(action)
        return copy.copy(observation) if over or cut else observation, reward, over, cut, info

    @classmethod
    def made_by(cls, maker: Callable[[], Any]) -> Self:
        """Return one of the environment that ``maker`` makes."""
        return cls(maker())


class ProcessVectorEnv(AsyncVectorEnv):
    """Every sub-environment in a process of its own: gymnasium's, with SAME_STEP autoreset.

    Spaces are what they are in the sub-environments, Discrete ones that do not start at 0 too.

    Args:
        makers: functions that make one single environment each, with equal spaces.
        seed: of the first ``reset()`` that is given none; sub-environment i gets its own.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]], seed: int | None = None) -> None:
        kept = [partial(LastObservation.made_by, maker) for maker in makers]
        super().__init__(kept, autoreset_mode=AutoresetMode.SAME_STEP)
        self._seed = seed

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes everywhere; ``seed + i`` seeds sub-environment i."""
        if seed is None and self._seed is not None:
            seed = derive(self._seed, "env")
        self._seed = None
        return super().reset(seed=seed, options=options)
