"""NumPy arrays and torch tensors alike: the same few operations on either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agilerl.errors import EnvError

Tensor = torch.Tensor
#: A NumPy array or a torch tensor.
Array = Any


def to_array(x: Any) -> Any:
    """Return a tensor, on any device, or numbers as a NumPy array; no copy where none is needed."""
    if isinstance(x, np.ndarray):
        return x
    return x.numpy(force=True) if isinstance(x, Tensor) else np.asarray(x)


def like(x: Any, given: Any) -> Any:
    """Return an array or a tensor as the kind that was given."""
    if isinstance(given, np.ndarray):
        return to_array(x)
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


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


def as_floats(x: Array) -> Array:
    """Return a batch as float32."""
    if isinstance(x, np.ndarray):
        return x if x.dtype == np.float32 else x.astype(np.float32)
    return x.float()


def as_integers(x: Array) -> Array:
    """Return the numbers in a batch as integers [B]."""
    x = x.reshape(-1)
    return x.astype(np.int64) if isinstance(x, np.ndarray) else x.long()


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


def as_observations(states: Array, shape: tuple[int, ...]) -> Array:
    """Return observations [N, *shape] as float32; uint8 images stay as they are.

    Raises:
        EnvError: if they have another shape.
    """
    if states.shape[1:] != shape:
        raise EnvError(
            f"state: expected observations of shape {shape}, got {tuple(states.shape[1:])}; check"
            " state_dim, and CHANNELS_LAST for images."
        )
    images = np.uint8 if isinstance(states, np.ndarray) else torch.uint8
    return states if states.dtype == images else as_floats(states)


def one_hot(states: Array, count: int) -> Array:
    """Return discrete states [N] or [N, 1] as float rows [N, count].

    Raises:
        EnvError: if one is no integer in 0..count-1.
    """
    given = states.reshape(-1)
    if not bool(((given >= 0) & (given < count) & (given % 1 == 0)).all()):
        raise EnvError(
            f"state: expected integers in 0..{count - 1} (one_hot=True), got"
            f" {given.min().item():g}..{given.max().item():g}."
        )
    if isinstance(states, Tensor):
        return torch.nn.functional.one_hot(given.long(), count).float()
    rows = np.zeros((len(given), count), np.float32)
    rows[np.arange(len(given)), given.astype(np.int64)] = 1
    return rows
