"""What can be learnt on: the spaces of an environment."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class AgentShape:
    """What an environment asks of an agent.

    Attributes:
        arguments: ``state_dim``, ``action_dim`` and ``one_hot``, for ``initialPopulation``.
        algo: the algorithm for its actions.
        arch: the kind of network for its observations.
        channels_last: images come as [H, W, C].
    """

    arguments: dict[str, Any]
    algo: str
    arch: str
    channels_last: bool


def agent_shape(env: Any) -> AgentShape:
    """Return what a vector environment asks of an agent; raise ``EnvError`` if it can't be used."""
    observation, action = single_spaces(env)
    check_observation_space(observation)
    check_action_space(action)
    one_hot = isinstance(observation, spaces.Discrete)
    shape: Any = int(observation.n) if one_hot else observation.shape  # type: ignore[attr-defined]
    images = not one_hot and len(shape) == 3
    channels_last = images and shape[2] < shape[0]
    if channels_last:
        shape = (shape[2], shape[0], shape[1])
    discrete = isinstance(action, spaces.Discrete)
    width = int(action.n) if discrete else action.shape[0]  # type: ignore[attr-defined, index]
    return AgentShape(
        {"state_dim": shape, "action_dim": width, "one_hot": one_hot},
        "DQN" if discrete else "DDPG",
        "cnn" if images else "mlp",
        channels_last,
    )
