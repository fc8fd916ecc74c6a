"""From an environment's id to the environment, with errors that say what to do."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium import error as gym_error
from gymnasium.envs.registration import (
    find_highest_version,
    load_env_creator,
    parse_env_id,
)

from agilerl.errors import EnvError


@functools.cache
def current_id(env_name: str) -> str:
    """Return ``env_name``, or the latest version of a retired environment, with one warning."""
    if env_name in gym.registry:
        return env_name
    try:
        namespace, name, version = parse_env_id(env_name)
    except gym_error.Error:
        return env_name
    latest = find_highest_version(namespace, name)
    if version is None or latest is None or version >= latest:
        return env_name
    successor = f"{f'{namespace}/' if namespace else ''}{name}-v{latest}"
    warnings.warn(
        f"{env_name} is retired; {successor} is used in its place.", UserWarning, stacklevel=4
    )
    return successor


def env_maker(env: str | Callable[..., Any], **kwargs: Any) -> Callable[[], gym.Env[Any, Any]]:
    """Return a function that makes an environment, in whichever process.

    Args:
        env: a gymnasium id, or a class or function that makes an environment.
        kwargs: for ``gymnasium.make``, or for the class or function.

    Raises:
        EnvError: if there is no such environment, or a package that it needs is missing.
    """
    if not isinstance(env, str):
        return functools.partial(env, **kwargs)
    example = make_env(env, **kwargs)  # warns here, and once
    example.close()
    assert example.spec is not None
    # the specification itself: other processes do not know what a script has registered
    spec = copy.copy(gym.spec(example.spec.id))
    if isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
        creator: Any = load_env_creator(spec.entry_point)
        spec.entry_point = creator
    return functools.partial(gym.make, spec, disable_env_checker=True, **kwargs)


def cure(error: Exception) -> str:
    """Return how to install what an environment misses."""
    if "box2d" in str(error).lower():
        return "Install it with `pip install 'agilerl[box2d]'`."
    if "mujoco" in str(error).lower():
        return "Install it with `pip install 'gymnasium[mujoco]'`."
    return "Install what the message names."


def make_env(env_name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Return the environment ``env_name``, made without gymnasium's passive checker.

    Args:
        env_name: a gymnasium id; a retired one resolves to its successor, with one warning.
        kwargs: for ``gymnasium.make``.

    Raises:
        EnvError: if there is no such environment, or a package that it needs is missing.
    """
    try:
        return gym.make(current_id(env_name), disable_env_checker=True, **kwargs)
    except (gym_error.DependencyNotInstalled, ImportError) as error:
        raise EnvError(
            f"env_name {env_name!r}: a package that it needs is missing ({error}). {cure(error)}"
        ) from error
    except gym_error.Error as error:
        raise EnvError(
            f"env_name {env_name!r}: {error} If a package brings it, `pip install` that package and"
            " import it first; register an environment of your own with gymnasium.register, or"
            " pass it to train() itself."
        ) from error
