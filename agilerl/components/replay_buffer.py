"""Experience that a population shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agilerl.devices import check_device
from agilerl.errors import ConfigError, check_int
from agilerl.seeding import generator

Array = np.ndarray[Any, np.dtype[Any]]


class ReplayBuffer:
    """A ring of transitions in contiguous memory (Lin 1992).

    Memory is reserved at the first transition, which sets the shape of each field.  Numbers are
    kept as float32; uint8 arrays (images) are kept as they are.

    Args:
        action_dim: number of discrete actions, or width of a continuous one.
        memory_size: transitions that fit; then the oldest are overwritten.
        field_names: what a transition is made of, ``["state", "action", "reward", "next_state",
            "done"]`` say.  States and next states (``name`` and ``next_name``) have one dtype.
        device: where samples go.
        seed: of the samples.

    Attributes:
        counter: transitions ever stored.
    """

    def __init__(
        self,
        action_dim: int,
        memory_size: int,
        field_names: Sequence[str],
        device: str | torch.device | None = None,
        seed: int | None = None,
    ) -> None:
        self.action_dim = action_dim
        self.memory_size = check_int("memory_size", memory_size)
        self.field_names = list(field_names)
        if not self.field_names or len(set(self.field_names)) < len(self.field_names):
            raise ConfigError(f"field_names: expected distinct names, got {self.field_names}.")
        self.device = check_device(device)
        self.rng = generator(seed, "replay buffer")
        self.counter = 0
        self._fields: list[Array] = []

    def __len__(self) -> int:
        """Return how many transitions can be sampled."""
        return min(self.counter, self.memory_size)

    def save2memory(self, *fields: Any) -> None:
        """Store one transition, its values in the order of ``field_names``."""
        self._insert([np.asarray(value)[None] for value in fields])

    def save2memoryVectEnvs(self, *fields: Any) -> None:
        """Store one transition a row: every value has the same first axis, [N, ...]."""
        self._insert([np.asarray(value) for value in fields])

    def sample(self, batch_size: int) -> tuple[torch.Tensor, ...]:
        """Return ``batch_size`` different transitions, one tensor a field, on ``device``.

        Returns:
            Tensors in the order of ``field_names``, float32 (uint8 images stay uint8); fields of
            one number a transition are [B, 1].

        Raises:
            ConfigError: if there are fewer transitions than that.
        """
        if check_int("batch_size", batch_size) > len(self):
            raise ConfigError(
                f"batch_size: {batch_size} transitions were asked for, the buffer holds"
                f" {len(self)}; store more first, or enlarge memory_size ({self.memory_size})."
            )
        rows = self.rng.choice(len(self), batch_size, replace=False, shuffle=False)
        return tuple(
            torch.from_numpy(field.take(rows, axis=0)).to(self.device) for field in self._fields
        )

    def _insert(self, values: list[Array]) -> None:
        if len(values) != len(self.field_names):
            raise ConfigError(
                f"fields: expected {len(self.field_names)} values ({', '.join(self.field_names)}),"
                f" got {len(values)}."
            )
        if not self._fields:
            self._reserve(values)
        count = len(values[0]) if values[0].ndim else 0
        rows = [
            self._rows(name, field, value, count)
            for name, field, value in zip(self.field_names, self._fields, values, strict=True)
        ]
        skip = max(0, count - self.memory_size)  # older rows of one call that would be overwritten
        first = (self.counter + skip) % self.memory_size
        head = min(count - skip, self.memory_size - first)
        for field, value in zip(self._fields, rows, strict=True):
            field[first : first + head] = value[skip : skip + head]
            field[: count - skip - head] = value[skip + head :]
        self.counter += count

    def _reserve(self, values: list[Array]) -> None:
        """Reserve the memory of every field, in the shape of the first transition."""
        fields = []
        for name, value in zip(self.field_names, values, strict=True):
            if value.ndim == 0 or value.dtype.kind not in "fiub":
                raise ConfigError(
                    f"{name}: expected numbers, one row for each transition, got an array of dtype"
                    f" {value.dtype} and shape {value.shape}."
                )
            shape = value.shape[1:] or (1,)
            dtype = np.uint8 if value.dtype == np.uint8 and value.ndim > 1 else np.float32
            fields.append(np.zeros((self.memory_size, *shape), dtype))
        self._fields = fields

    def _rows(self, name: str, field: Array, value: Array, count: int) -> Array:
        """Return ``value`` as rows of ``field``; nothing is broadcast."""
        expected = (count, *field.shape[1:])
        if value.shape == expected:
            rows = value
        elif value.shape == (count,) and expected == (count, 1):
            rows = value[:, None]
        else:
            raise ConfigError(
                f"{name}: expected shape {expected} (transitions first), got {value.shape}; every"
                " transition has the shape of the first one stored."
            )
        if field.dtype == np.uint8 and rows.dtype != np.uint8:
            raise ConfigError(f"{name}: expected uint8, as stored before, got {rows.dtype}.")
        return rows
