"""What an agent is given, checked: settings that are counts, and observations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
import torch

from agilerl.errors import ConfigError, EnvError, check_float, check_int, check_sizes

Tensor = torch.Tensor
T = TypeVar("T")
#: A NumPy array or a torch tensor.
Array = Any


class Checked(Generic[T]):
    """An attribute whose value is checked, whatever sets it.

    Args:
        check: returns what is kept, from the attribute's name and a value; raises ``ConfigError``.
    """

    def __init__(self, check: Callable[[str, Any], T]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, agent: None, owner: type) -> Self: ...
    @overload
    def __get__(self, agent: object, owner: type) -> T: ...
    def __get__(self, agent: object | None, owner: type) -> T | Self:
        if agent is None:
            return self
        value: T = agent.__dict__[self.name]
        return value

    def __set__(self, agent: object, value: Any) -> None:
        agent.__dict__[self.name] = self.check(self.name, value)


def fraction(name: str, value: Any) -> float:
    """Return ``value`` as a float in [0, 1]; raise ``ConfigError`` otherwise."""
    return check_float(name, value, 0.0, 1.0)


def weight(name: str, value: Any) -> float:
    """Return ``value`` as a float that is at least 0; raise ``ConfigError`` otherwise."""
    return check_float(name, value, low=0.0)


def check_state_dim(state_dim: Any, one_hot: bool) -> tuple[int, ...]:
    """Return ``state_dim``, a number or a shape, as a shape; of one number where ``one_hot``."""
    if isinstance(state_dim, list | tuple):
        shape = check_sizes("state_dim", state_dim)
    else:
        shape = (check_int("state_dim", state_dim),)
    if one_hot and len(shape) != 1:
        raise ConfigError(
            f"state_dim: one_hot=True needs the number of states n, got {shape}; pass"
            " one_hot=False for vectors and images."
        )
    return shape


def as_numbers(state: Any) -> Array:
    """Return an observation, or a batch of them, as an array or a tensor.

    Raises:
        EnvError: if it does not consist of numbers.
    """
    if isinstance(state, Tensor):
        return state
    try:
        numbers = np.asarray(state)
    except (TypeError, ValueError) as error:
        raise EnvError(f"state: expected an array of numbers, got {state!r}.") from error
    if numbers.dtype.kind not in "biuf":
        raise EnvError(f"state: expected an array of numbers, got {state!r}.")
    return numbers


def to_array(x: Any) -> Any:
    """Return a tensor, on any device, or numbers as a NumPy array; no copy where none is needed."""
    if isinstance(x, np.ndarray):
        return x
    return x.numpy(force=True) if isinstance(x, Tensor) else np.asarray(x)


def joined(inputs: Sequence[Any], dtype: Any) -> Any:
    """Return the inputs of an MLP as one array [B, N]: a second one goes in front of the first."""
    x = to_array(inputs[0])
    if x.ndim != 2:
        x = x.reshape(len(x), -1)
    if x.dtype != dtype:
        x = x.astype(dtype)
    if len(inputs) == 1:
        return x
    return np.concatenate([to_array(inputs[1]).astype(dtype, copy=False), x], axis=1)


def like(x: Any, given: Any) -> Any:
    """Return an array or a tensor as the kind that was given."""
    if isinstance(given, np.ndarray):
        return to_array(x)
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


def check_observations(states: Array, shape: tuple[int, ...]) -> None:
    """Raise ``EnvError`` unless ``states`` are observations of ``shape``, [N, *shape]."""
    if states.shape[1:] != shape:
        raise EnvError(
            f"state: expected observations of shape {shape}, got {tuple(states.shape[1:])}; check"
            " state_dim, and CHANNELS_LAST for images."
        )


def as_floats(x: Array) -> Array:
    """Return a batch as float32."""
    if isinstance(x, np.ndarray):
        return x if x.dtype == np.float32 else x.astype(np.float32)
    return x.float()


def as_observations(states: Array) -> Array:
    """Return a batch of observations as float32; uint8 images stay as they are."""
    images = np.uint8 if isinstance(states, np.ndarray) else torch.uint8
    return states if states.dtype == images else as_floats(states)


def as_integers(x: Array) -> Array:
    """Return the numbers in a batch as integers [B]."""
    x = x.reshape(-1)
    return x.astype(np.int64) if isinstance(x, np.ndarray) else x.long()


def one_hot(states: Array, count: int) -> Array:
    """Return discrete states [N] or [N, 1] as float rows [N, count].

    Raises:
        EnvError: if one is no integer in 0..count-1.
    """
    given = torch.as_tensor(states).reshape(-1)
    integers = given.long()
    if not bool(((integers == given) & (integers >= 0) & (integers < count)).all()):
        raise EnvError(
            f"state: expected integers in 0..{count - 1} (one_hot=True), got"
            f" {given.min().item():g}..{given.max().item():g}."
        )
    rows = torch.nn.functional.one_hot(integers, count).float()
    return rows.numpy() if isinstance(states, np.ndarray) else rows
