"""Environments that step all their copies at once, in C++ or in NumPy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from agilerl.components.make_env import current_id
from agilerl.errors import ConfigError, EnvError
from agilerl.seeding import derive


def fast_env(
    env: Any, num_envs: int, seed: int | None, workers: int, backend: str, **kwargs: Any
) -> VectorEnv[Any, Any, Any]:
    """Return what ``makeVectEnvs`` asks another backend for.

    Raises:
        ConfigError: on arguments that do not go together with it.
        EnvError: if the backend has no such environment, or is not installed.
    """
    if not isinstance(env, str):
        raise ConfigError(
            f"backend: {backend!r} needs the id of an environment, got {env!r}; classes and"
            " functions need backend='gymnasium'."
        )
    if workers:
        raise ConfigError(
            f"workers: backend={backend!r} steps all copies at once, without processes; pass"
            " workers=0, or workers to train()."
        )
    if backend == "envpool":
        return EnvPoolVectorEnv(env, num_envs, seed, **kwargs)
    made = make_vectorised(env, num_envs, **kwargs)
    if seed is not None:
        made.reset(seed=derive(seed, "env"))
    return made


def make_vectorised(env_name: str, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """Return gymnasium's own vectorised version of an environment.

    Raises:
        EnvError: if it has none.
    """
    name = current_id(env_name)
    try:
        return gym.make_vec(
            name, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
        )
    except gym.error.Error as error:
        have = [k for k, spec in gym.registry.items() if spec.vector_entry_point is not None]
        raise EnvError(
            f"backend: 'vector' needs an environment with a vector entry point, and {name!r} has"
            f" none ({', '.join(have)} do); use backend='gymnasium'."
        ) from error


class EnvPoolVectorEnv(VectorEnv[Any, Any, Any]):
    """EnvPool's environments (Weng et al. 2022), with NEXT_STEP autoreset.

    A pool takes its seed when it is made, and its ``reset`` ignores one: where a seed is given, the
    pool is made anew, so that episodes repeat.  Copies are made from the arguments.

    Args:
        env_name: an id that EnvPool knows.
        num_envs: number of sub-environments.
        seed: of the first pool; None draws one.
        kwargs: for ``envpool.make``.

    Raises:
        EnvError: if EnvPool is not installed, or does not know the environment.
    """

    def __init__(self, env_name: str, num_envs: int, seed: int | None = None, **kwargs: Any):
        self.env_name, self.num_envs, self.kwargs = env_name, num_envs, kwargs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._seed = derive(seed, "env")
        self._pool = self._made()
        self.single_observation_space = self._pool.observation_space
        self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        known = gym.registry.get(env_name)
        self.spec = None if known is None else gym.spec(env_name)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the pool: a copy makes its own."""
        return {**self.__dict__, "_pool": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the pool of a copy."""
        self.__dict__.update(state)
        self._pool = self._made()

    def _made(self) -> Any:
        """Return a new pool with the present seed."""
        envpool = loaded_envpool()
        if self.env_name not in envpool.list_all_envs():
            raise EnvError(
                f"backend: EnvPool has no environment {self.env_name!r};"
                " envpool.list_all_envs() names those that it has."
            )
        return envpool.make(
            self.env_name,
            env_type="gymnasium",
            num_envs=self.num_envs,
            seed=self._seed,
            **self.kwargs,
        )

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes everywhere; with a seed, in a pool that is made anew."""
        first = seed[0] if isinstance(seed, list) else seed
        if first is not None:
            self._seed = int(first) % 2**31
            self.close_extras()
            self._pool = self._made()
        observation, _ = self._pool.reset()
        return observation, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every sub-environment; one whose episode has ended is reset, its action ignored."""
        dtype = self.single_action_space.dtype
        observation, reward, terminated, truncated, _ = self._pool.step(actions.astype(dtype))
        return observation, reward, terminated, truncated, {}

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the pool."""
        if self._pool is not None and hasattr(self._pool, "close"):
            self._pool.close()
        self._pool = None


def loaded_envpool() -> Any:
    """Return the module ``envpool``; raise ``EnvError`` if it is not installed."""
    try:
        import envpool
    except ImportError as error:
        raise EnvError(
            "backend: 'envpool' needs EnvPool, about 1 GB; install it with `pip install"
            " 'agilerl[envpool]'`, or use backend='gymnasium'."
        ) from error
    return envpool
