"""A policy network of the user's own: any torch module of the right shape."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from agilerl.errors import CheckpointError, ConfigError


def own_module(name: str, given: Any) -> nn.Module | None:
    """Return an independent copy of a module that was given, with all its parameters to train.

    Raises:
        CheckpointError: if it is a name, which is what a state holds of such a module.
        ConfigError: if it is no module, or behaves differently in training and evaluation.
    """
    if given is None:
        return None
    if isinstance(given, str):
        raise CheckpointError(
            f"{name}: this agent's policy is a module of your own, {given}, of which only the"
            f" weights are stored; pass policy={given}(...), to load() as well."
        )
    if not isinstance(given, nn.Module):
        raise ConfigError(
            f"{name}: expected a torch.nn.Module, got {type(given).__name__}"
            f"{'; call the class' if isinstance(given, type) else ''}."
        )
    for part in given.modules():
        if isinstance(part, _BatchNorm | _DropoutNd):
            raise ConfigError(
                f"{name}: {type(part).__name__} draws, or keeps statistics, in training only: what"
                " is learnt is then not what acts, and runs do not repeat; use LayerNorm, or none."
            )
    return copy.deepcopy(given)


def check_policy(
    policy: nn.Module, shape: tuple[int, ...], action_dim: int, device: torch.device
) -> None:
    """Raise ``ConfigError`` unless a module maps observations [N, *shape] to [N, action_dim]."""
    expected = (
        f"policy: expected {type(policy).__name__} to map float observations [N,"
        f" {', '.join(map(str, shape))}] to [N, {action_dim}]"
    )
    if not any(p.requires_grad for p in policy.parameters()):
        raise ConfigError(f"policy: {type(policy).__name__} has no parameter that can be trained.")
    try:
        with torch.no_grad():
            found = policy(torch.zeros(2, *shape, device=device))
    except Exception as error:
        raise ConfigError(f"{expected}; it raised {type(error).__name__}: {error}") from error
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != (2, action_dim):
        came = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ConfigError(f"{expected}; for N = 2 it returned {came}.")
