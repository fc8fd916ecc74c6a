"""What can be learnt on: the spaces of an environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from agilerl.errors import EnvError

_HINTS: dict[type, str] = {
    spaces.Dict: "wrap it in gymnasium.wrappers.FlattenObservation",
    spaces.Tuple: "wrap it in gymnasium.wrappers.FlattenObservation",
    spaces.MultiDiscrete: "wrap it in gymnasium.wrappers.FlattenObservation",
}
_ACTION_HINT = (
    "wrap the environment in a gymnasium.ActionWrapper that maps one Discrete (or bounded Box)"
    " action to it"
)


def single_spaces(env: Any) -> tuple[Space[Any], Space[Any]]:
    """Return the observation and action space of one sub-environment, or of a single one."""
    try:
        if hasattr(env, "num_envs"):
            return env.single_observation_space, env.single_action_space
        return env.observation_space, env.action_space
    except AttributeError as error:
        raise EnvError(
            f"env: expected a gymnasium environment with observation_space and action_space, got"
            f" {type(env).__name__}."
        ) from error


def check_observation_space(space: Space[Any]) -> None:
    """Raise ``EnvError`` unless observations are a Box, Discrete or MultiBinary."""
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiBinary):
        cure = _HINTS.get(type(space), "wrap it so that observations are one array")
        raise EnvError(
            f"observation space: expected Box, Discrete or MultiBinary, got {space}; {cure}."
        )


def check_action_space(space: Space[Any]) -> None:
    """Raise ``EnvError`` unless actions are Discrete or a Box of rank 1."""
    if isinstance(space, spaces.Discrete):
        return
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise EnvError(
            f"action space: expected Discrete or a Box of shape (n,), got {space}; {_ACTION_HINT}."
        )


def check_discrete_actions(env: Any, count: int) -> None:
    """Raise ``EnvError`` unless ``env`` has exactly ``count`` discrete actions."""
    _, space = single_spaces(env)
    if not isinstance(space, spaces.Discrete):
        raise EnvError(
            f"action space: this algorithm needs Discrete actions, got {space}; use DDPG for a"
            f" bounded Box, or {_ACTION_HINT}."
        )
    if space.n != count:
        raise EnvError(
            f"action space: the environment has {space.n} actions, the agent {count}; pass"
            f" action_dim={space.n}."
        )


def continuous_bounds(
    env: Any, width: int
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the lowest and highest actions [width] of ``env``.

    Raises:
        EnvError: if the actions are no bounded Box of that width.
    """
    _, space = single_spaces(env)
    if not isinstance(space, spaces.Box) or space.shape != (width,):
        raise EnvError(
            f"action space: the agent needs a Box of shape ({width},), got {space}; use DQN for"
            " Discrete actions."
        )
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise EnvError(
            f"action space: {space} is unbounded; wrap the environment in"
            " gymnasium.wrappers.RescaleAction or ClipAction with finite bounds."
        )
    return space.low.astype(np.float32), space.high.astype(np.float32)
