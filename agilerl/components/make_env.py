"""From an environment's id to the environment, with errors that say what to do."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import gymnasium as gym
from gymnasium import error as gym_error
from gymnasium.envs.registration import find_highest_version, parse_env_id

from agilerl.errors import EnvError


@functools.cache
def _successor(env_name: str) -> str | None:
    """Return the id of the latest version of a retired environment, and warn once."""
    namespace, name, _ = parse_env_id(env_name)
    version = find_highest_version(namespace, name)
    if version is None:
        return None
    successor = f"{f'{namespace}/' if namespace else ''}{name}-v{version}"
    warnings.warn(
        f"{env_name} is retired; {successor} is used in its place.", UserWarning, stacklevel=4
    )
    return successor


def make_env(env_name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Return the environment ``env_name``, made without gymnasium's passive checker.

    Args:
        env_name: a gymnasium id; a retired one resolves to its successor, with one warning.
        kwargs: for ``gymnasium.make``.

    Raises:
        EnvError: if there is no such environment, or a package that it needs is missing.
    """
    try:
        return gym.make(env_name, disable_env_checker=True, **kwargs)
    except (gym_error.DeprecatedEnv, gym_error.VersionNotFound) as error:
        successor = _successor(env_name)
        if successor is None or successor == env_name:
            raise EnvError(f"env_name {env_name!r}: {error}") from error
        return make_env(successor, **kwargs)
    except (gym_error.DependencyNotInstalled, ImportError) as error:
        raise EnvError(
            f"env_name {env_name!r}: a package that it needs is missing ({error}). Install it with"
            " `pip install 'agilerl[box2d]'`, or the extra that the message names."
        ) from error
    except gym_error.Error as error:
        raise EnvError(
            f"env_name {env_name!r}: {error} For an environment of your own, register it with"
            " gymnasium.register, or pass it to train() itself."
        ) from error
