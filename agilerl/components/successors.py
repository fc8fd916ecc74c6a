"""The true successor states, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def true_next_state(next_state: Array, info: Mapping[str, Any]) -> Array:
    """Return ``next_state`` with the last observation of each episode that ended.

    A vector environment in SAME_STEP mode returns the first observation of the next episode; the
    last one of the episode that ended is in ``info``.  Store what this returns, and go on acting
    in ``next_state``.

    Args:
        next_state: observations [N, ...] of ``env.step``.
        info: its last return value.

    Returns:
        The true successors [N, ...]; ``next_state`` itself where no episode ended.
    """
    if "final_obs" not in info:
        return next_state
    successors = next_state.copy()
    for row in np.flatnonzero(info["_final_obs"]):
        successors[row] = info["final_obs"][row]
    return successors
