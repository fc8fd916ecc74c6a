"""Losses as pure functions: the mean over a batch, and its gradient.

The gradient is that with respect to the network's outputs.  One implementation serves NumPy arrays
(the CPU kernel) and torch tensors (autograd, any device).  The pairs ``(loss, gradient)`` are
tested against autograd.  B transitions, A actions.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch

from agilerl import compiled

#: A NumPy array or a torch tensor.
Array = Any


def namespace(x: Array) -> ModuleType:
    """Return the library of an array: NumPy or torch."""
    return np if isinstance(x, np.ndarray) else torch


def _compiled(q: Array, *vectors: Array) -> bool:
    """Return whether Q values [B, A] and vectors [B] are such as compiled code reads."""
    rows = q.shape[:1]
    return compiled.serves(q) and all(
        isinstance(x, np.ndarray) and x.shape == rows for x in vectors
    )


def td_target(rewards: Array, dones: Array, next_values: Array, discount: float) -> Array:
    """Return the one-step targets ``r + discount * (1 - done) * V(s')``; all are [B].

    ``done`` is 1 only where the episode *terminated*: a time limit does not cut the bootstrap.
    """
    return rewards + (1 - dones) * (discount * next_values)


def q_targets(
    rewards: Array, dones: Array, next_q: Array, chooser: Array, discount: float
) -> Array:
    """Return the one-step targets [B] of Q-learning.

    Args:
        rewards: [B].
        dones: 1 where the episode terminated, [B].
        next_q: values of the next state's actions, [B, A].
        chooser: values that say which of them is taken, the one of the highest, [B, A]; in double
            Q-learning those of the online network, else ``next_q``.
        discount: of the next state's value.
    """
    if _compiled(next_q, rewards, dones) and np.shape(chooser) == next_q.shape:
        targets = np.empty(len(next_q), np.float32)
        compiled.learning.q_targets(
            compiled.as_read(rewards),
            compiled.as_read(dones),
            compiled.as_read(next_q),
            compiled.as_read(chooser),
            discount,
            targets,
        )
        return targets
    return td_target(rewards, dones, taken(next_q, chooser.argmax(1)), discount)


def q_learning(
    q: Array, actions: Array, targets: Array, huber: bool = False
) -> tuple[Array, Array]:
    """Squared TD error of the Q values of the actions taken (Mnih et al. 2015, without clipping).

    Args:
        q: Q values of all actions, [B, A].
        actions: integer actions taken, [B].
        targets: what their Q values should be, [B].
        huber: Huber's loss in its place: half the square of errors within 1, linear beyond.

    Returns:
        The mean of ``(Q(s, a) - target)**2`` or of Huber's loss [], and its gradient with
        respect to ``q`` [B, A].
    """
    if _compiled(q, actions, targets) and len(q) and actions.dtype.kind in "iu":
        gradient = np.empty(q.shape, np.float32)
        loss = compiled.learning.q_loss(
            compiled.as_read(q),
            compiled.as_read(actions, np.int64),
            compiled.as_read(targets),
            huber,
            gradient,
        )
        return loss, gradient
    where = rows(q), actions
    td_error = q[where] - targets
    gradient = namespace(q).zeros_like(q)
    if huber:
        clipped = td_error.clip(-1, 1)
        gradient[where] = clipped * (1 / len(q))
        return clipped @ (td_error - clipped / 2) / len(q), gradient
    gradient[where] = td_error * (2 / len(q))
    return mean_square(td_error), gradient


def conservative(q: Array, actions: Array) -> tuple[Array, Array]:
    """Penalty of CQL(H) (Kumar et al. 2020, eq. 4): ``logsumexp(Q(s, .)) - Q(s, a)``.

    It pushes down the Q values of actions that the data does not show.

    Args:
        q: Q values of all actions, [B, A].
        actions: integer actions of the data, [B].

    Returns:
        The mean penalty [] and its gradient with respect to ``q`` [B, A].
    """
    xp = namespace(q)
    where = rows(q), actions
    below = q - xp.amax(q, axis=1, keepdims=True)
    weights = xp.exp(below)
    total = weights.sum(axis=1, keepdims=True)
    penalty = xp.log(total[:, 0]) - below[where]
    gradient = weights / total
    gradient[where] -= 1
    return penalty.mean(), gradient * (1 / len(q))


def squared_error(values: Array, targets: Array) -> tuple[Array, Array]:
    """Squared error of a critic, ``values`` and ``targets`` being [B].

    Returns:
        The mean of ``(value - target)**2`` [] and its gradient with respect to ``values`` [B].
    """
    error = values - targets
    return mean_square(error), error * (2 / len(values))


def policy_gradient(values: Array) -> tuple[Array, Array]:
    """Deterministic policy gradient (Lillicrap et al. 2016): the actor minimises ``-Q(s, pi(s))``.

    Returns:
        The mean of ``-values`` [] and its gradient with respect to ``values`` [B].
    """
    return -values.mean(), namespace(values).full_like(values, -1 / len(values))


def taken(q: Array, actions: Array) -> Array:
    """Return the Q values [B] of the actions [B] among those of all actions, [B, A]."""
    return q[rows(q), actions]


def rows(q: Array) -> Array:
    """Return the numbers of the rows of ``q``."""
    return namespace(q).arange(len(q), device=q.device)


def mean_square(x: Array) -> Array:
    """Return the mean of the squares of ``x`` [B]."""
    return x @ x / len(x)
