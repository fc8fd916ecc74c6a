"""What an agent is given, checked: settings that are counts, and observations."""

from __future__ import annotations

from typing import Any, Self, overload

import torch

from agilerl.errors import EnvError, check_int, check_sizes

Tensor = torch.Tensor


class PositiveInt:
    """An attribute that is an int >= 1, whatever sets it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, agent: None, owner: type) -> Self: ...
    @overload
    def __get__(self, agent: object, owner: type) -> int: ...
    def __get__(self, agent: object | None, owner: type) -> int | Self:
        return self if agent is None else int(agent.__dict__[self.name])

    def __set__(self, agent: object, value: object) -> None:
        agent.__dict__[self.name] = check_int(self.name, value)


def check_state_dim(state_dim: Any) -> tuple[int, ...]:
    """Return ``state_dim``, a number or a shape, as a shape."""
    if isinstance(state_dim, list | tuple):
        return check_sizes("state_dim", state_dim)
    return (check_int("state_dim", state_dim),)


def check_observations(states: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ``EnvError`` unless ``states`` are observations of ``shape``, [N, *shape]."""
    if states.shape[1:] != shape:
        raise EnvError(
            f"state: expected observations of shape {shape}, got {tuple(states.shape[1:])}; check"
            " state_dim, and CHANNELS_LAST for images."
        )


def one_hot(states: Tensor, count: int) -> Tensor:
    """Return discrete states [N] or [N, 1] as float rows [N, count].

    Raises:
        EnvError: if one is no integer in 0..count-1.
    """
    given = states.reshape(-1)
    states = given.long()
    if not bool(((states == given) & (states >= 0) & (states < count)).all()):
        raise EnvError(
            f"state: expected integers in 0..{count - 1} (one_hot=True), got"
            f" {given.min().item():g}..{given.max().item():g}."
        )
    return torch.nn.functional.one_hot(states, count).float()


def as_columns(values: Any, device: torch.device) -> Tensor:
    """Return values [B] or [B, N] of a batch as float32 [B, 1] or [B, N] on the device."""
    column: Tensor = torch.as_tensor(values)
    if column.dtype != torch.float32 or column.device != device:
        column = column.to(device, torch.float32)
    return column if column.dim() == 2 else column.reshape(len(column), -1)
