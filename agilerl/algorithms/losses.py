"""Losses as pure functions: the mean over a batch, and its gradient by the network's outputs.

The pairs ``(loss, gradient)`` are tested against autograd.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def td_target(rewards: Tensor, dones: Tensor, next_values: Tensor, discount: float) -> Tensor:
    """Return the one-step targets ``r + discount * (1 - done) * V(s')``; all are [B, 1].

    ``done`` is 1 only where the episode *terminated*: a time limit does not cut the bootstrap.
    """
    return torch.addcmul(rewards, torch.rsub(dones, 1), next_values, value=discount)


def q_learning(q: Tensor, actions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Squared TD error of the Q values of the actions taken (Mnih et al. 2015, without clipping).

    Args:
        q: Q values of all actions, [B, A].
        actions: integer actions taken, [B, 1].
        targets: what their Q values should be, [B, 1].

    Returns:
        The mean of ``(Q(s, a) - target)**2`` [] and its gradient by ``q`` [B, A].
    """
    td_error = q.gather(1, actions).sub_(targets)
    gradient = torch.zeros_like(q).scatter_(1, actions, td_error * (2 / q.shape[0]))
    return td_error.square().mean(), gradient


def conservative(q: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Penalty of CQL(H) (Kumar et al. 2020, eq. 4): ``logsumexp(Q(s, .)) - Q(s, a)``.

    It pushes down the Q values of actions that the data does not show.

    Args:
        q: Q values of all actions, [B, A].
        actions: integer actions of the data, [B, 1].

    Returns:
        The mean penalty [] and its gradient by ``q`` [B, A].
    """
    log_softmax = q.log_softmax(1)
    penalty = -log_softmax.gather(1, actions)
    gradient = log_softmax.exp().scatter_add_(1, actions, torch.full_like(penalty, -1.0))
    return penalty.mean(), gradient.div_(q.shape[0])


def squared_error(values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of a critic, ``values`` and ``targets`` being [B, 1].

    Returns:
        The mean of ``(value - target)**2`` [] and its gradient by ``values`` [B, 1].
    """
    error = values - targets
    return error.square().mean(), error * (2 / values.shape[0])


def policy_gradient(values: Tensor) -> tuple[Tensor, Tensor]:
    """Deterministic policy gradient (Lillicrap et al. 2016): the actor minimises ``-Q(s, pi(s))``.

    Returns:
        The mean of ``-values`` [] and its gradient by ``values`` [B, 1].
    """
    return -values.mean(), torch.full_like(values, -1.0 / values.shape[0])
