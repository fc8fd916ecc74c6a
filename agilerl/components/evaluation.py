"""The return of whole episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from agilerl.components.transitions import TransitionStream
from agilerl.errors import check_int

Array = np.ndarray[Any, np.dtype[Any]]


def evaluate(
    act: Callable[[Array], Array],
    env: Any,
    episodes: int,
    max_steps: int,
    swap_channels: bool = False,
) -> Array:
    """Return the undiscounted returns [num_envs, episodes] of whole episodes.

    The first ``episodes`` episodes of *each* sub-environment count, so short episodes are not
    counted more often than long ones.  One that reaches ``max_steps`` is cut, with its return so
    far; its sub-environment then waits until the others are as far, and all are reset.

    Args:
        act: maps states [num_envs, ...] to actions.
        env: a vector environment, or a single one.
        episodes: of each sub-environment.
        max_steps: longest episode, in steps.
        swap_channels: images come as [H, W, C].

    To choose the episodes, call ``env.reset(seed=...)`` first: what follows is then determined.
    """
    check_int("loop", episodes)
    check_int("max_steps", max_steps)
    stream = TransitionStream(env, swap_channels)
    returns = np.zeros((stream.num_envs, episodes))
    counts, lengths = (np.zeros(stream.num_envs, int) for _ in range(2))
    running = np.zeros(stream.num_envs)
    waiting = np.zeros(stream.num_envs, bool)
    stream.reset()
    while (unfinished := counts < episodes).any():
        if (waiting | ~unfinished).all():
            stream.reset()
            waiting[:] = False
        stream.begin(act(stream.state))
        step = stream.finish()
        live = step.valid & unfinished & ~waiting
        running[live] += step.reward[live]
        lengths[live] += 1
        cut = live & ~step.ended & (lengths >= max_steps)
        over = np.flatnonzero(live & step.ended | cut)
        returns[over, counts[over]] = running[over]
        counts[over] += 1
        running[over] = 0.0
        lengths[over] = 0
        waiting |= cut
    return returns
