"""Losses as pure functions: the value of each sample, and its gradient by the network's outputs.

Every function returns ``(value [B], gradient)``; a batch's loss is the mean of its values, so
its gradient is ``gradient / B``.  The pairs are tested against autograd.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def td_target(rewards: Tensor, dones: Tensor, next_values: Tensor, discount: float) -> Tensor:
    """Return the one-step targets ``r + discount * (1 - done) * V(s')``; all are [B, 1].

    ``done`` is 1 only where the episode *terminated*: a time limit does not cut the bootstrap.
    """
    return torch.addcmul(rewards, 1 - dones, next_values, value=discount)


def q_learning(q: Tensor, actions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Squared TD error of the Q values of the actions taken (Mnih et al. 2015, without clipping).

    Args:
        q: Q values of all actions, [B, A].
        actions: integer actions taken, [B, 1].
        targets: what their Q values should be, [B, 1].

    Returns:
        ``(Q(s, a) - target)**2`` [B] and its gradient by ``q`` [B, A].
    """
    td_error = q.gather(1, actions) - targets
    gradient = torch.zeros_like(q).scatter_(1, actions, 2 * td_error)
    return td_error.square().squeeze(1), gradient


def conservative(q: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Penalty of CQL(H) (Kumar et al. 2020, eq. 4): ``logsumexp(Q(s, .)) - Q(s, a)``.

    It pushes down the Q values of actions that the data does not show.

    Args:
        q: Q values of all actions, [B, A].
        actions: integer actions of the data, [B, 1].

    Returns:
        The penalty [B] and its gradient by ``q`` [B, A].
    """
    value = q.logsumexp(1) - q.gather(1, actions).squeeze(1)
    gradient = q.softmax(1).scatter_add_(1, actions, -torch.ones_like(actions, dtype=q.dtype))
    return value, gradient


def squared_error(values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of a critic, ``values`` and ``targets`` being [B, 1].

    Returns:
        ``(value - target)**2`` [B] and its gradient by ``values`` [B, 1].
    """
    error = values - targets
    return error.square().squeeze(1), 2 * error


def policy_gradient(values: Tensor) -> tuple[Tensor, Tensor]:
    """Deterministic policy gradient (Lillicrap et al. 2016): the actor minimises ``-Q(s, pi(s))``.

    Returns:
        ``-values`` [B] and its gradient by ``values`` [B, 1].
    """
    return -values.squeeze(1), torch.full_like(values, -1.0)
