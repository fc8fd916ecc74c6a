"""Losses of language agents on the token-level decision process, as pure functions.

A *step* is one token that the agent chose.  A batch of games has ``N`` of them (see
``language_agent.Steps``); ``A`` is the number of tokens an agent may choose.  Every loss returns
one value for each step, ``[N]``, and is differentiated by autograd; what is marked as a target gets
no gradient.

The losses of ILQL are those of Snell et al. 2022, "Offline RL for Natural Language Generation with
Implicit Language Q Learning" (arXiv 2206.11871, section 4), built on IQL (arXiv 2110.06169), CQL
(arXiv 2006.04779) and AWAC (arXiv 2006.09359).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def behavioural_cloning(logits: Tensor, actions: Tensor) -> Tensor:
    """Negative log-likelihood of the actions, ``-log pi(a|s)``.

    Args:
        logits: of the policy, [N, A].
        actions: taken, [N].
    """
    return F.cross_entropy(logits, actions, reduction="none")


def advantage_weighted(
    logits: Tensor, actions: Tensor, advantages: Tensor, sharpness: float, highest: float
) -> Tensor:
    """Policy term of AWAC: ``-min(exp(sharpness * A), highest) * log pi(a|s)``.

    With ``sharpness`` 0 it is behavioural cloning.

    Args:
        logits: of the policy, [N, A].
        actions: taken, [N].
        advantages: ``Q(s, a) - V(s)``, [N]; a target.
        sharpness: the inverse of AWAC's temperature.
        highest: no weight is larger.
    """
    weights = (sharpness * advantages.detach()).exp().clamp(max=highest)
    return weights * behavioural_cloning(logits, actions)


def expectile(values: Tensor, targets: Tensor, level: float) -> Tensor:
    """Asymmetric squared error of IQL: ``|level - 1(target < value)| * (target - value)**2``.

    At ``level`` 1/2 the value goes to the mean of its targets (times 1/2); towards 1 it goes to
    the largest target that the data shows.

    Args:
        values: ``V(s)``, [N].
        targets: ``min(Q1(s, a), Q2(s, a))`` of the target heads, [N]; a target.
        level: the expectile, in (0, 1); ``tau`` in the papers.
    """
    error = targets.detach() - values
    return torch.where(error < 0, 1 - level, level) * error.square()


def td_targets(rewards: Tensor, next_values: Tensor, gamma: float) -> Tensor:
    """Return ``r + gamma * V(s')`` [N], without gradient.

    Args:
        rewards: of the steps, [N].
        next_values: value of the state before the agent's next token, [N]; 0 where the game ended.
        gamma: discount of one step.
    """
    return rewards + gamma * next_values.detach()


def q_learning(q: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
    """Squared error ``(Q(s, a) - target)**2``.

    Args:
        q: values of all actions, [N, A].
        actions: taken, [N].
        targets: of their values, [N]; a target.
    """
    return (q.gather(1, actions[:, None])[:, 0] - targets.detach()).square()


def conservative(q: Tensor, actions: Tensor) -> Tensor:
    """Penalty of CQL on tokens: ``logsumexp(Q(s, .)) - Q(s, a)``.

    It is the cross-entropy of the action under ``softmax(Q)``, and pushes down the values of
    tokens that the data does not show.

    Args:
        q: values of all actions, [N, A].
        actions: taken, [N].
    """
    return F.cross_entropy(q, actions, reduction="none")


def perturbed(
    logits: Tensor, q: Tensor, values: Tensor, beta: float, min_probability: float
) -> Tensor:
    """Return the logits of ILQL's policy, ``log pi(a|s) + beta * (Q(s, a) - V(s))``, [N, A].

    Tokens with ``pi(a|s) < min_probability`` are left out (-inf): the data hardly shows them, so
    their Q values are not learnt.  The likeliest token always stays.

    Args:
        logits: of the cloned policy, [N, A]; -inf where a token is forbidden.
        q: values of all actions, [N, A].
        values: ``V(s)``, [N].  It moves all tokens of a state alike, and with them nothing.
        beta: how far values outweigh likelihood; 0 is the cloned policy.
        min_probability: in [0, 1).
    """
    log_pi = logits.log_softmax(-1)
    likeliest = log_pi.amax(-1, keepdim=True)
    rare = (log_pi.exp() < min_probability) & (log_pi < likeliest)
    return (log_pi + beta * (q - values[:, None])).masked_fill(rare, -torch.inf)
