"""Experience that a population shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agilerl.components.frame_buffer import FrameBuffer, FrameColumn
from agilerl.devices import check_device
from agilerl.errors import ConfigError, check_int
from agilerl.seeding import generator

Array = np.ndarray[Any, np.dtype[Any]]

#: Kinds of dtype that can be stored: float, int, unsigned, bool.
NUMBERS = "fiub"


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
        next_state_is_next_row: store an observation once, where the next state of one row is the
            state of the next row of that sub-environment; samples are the same, inserting takes
            longer.  For images, which then need half the memory.

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
        next_state_is_next_row: bool = False,
    ) -> None:
        self.action_dim = action_dim
        self.memory_size = check_int("memory_size", memory_size)
        self.field_names = list(field_names)
        if not self.field_names or len(set(self.field_names)) < len(self.field_names):
            raise ConfigError(f"field_names: expected distinct names, got {self.field_names}.")
        self.device = check_device(device)
        self.rng = generator(seed, "replay buffer")
        self.counter = 0
        self._fields: list[Array | FrameColumn] = []
        #: the fields of which each observation is stored once: a state and its successor
        self._pairs = [
            (name, f"next_{name}")
            for name in self.field_names
            if next_state_is_next_row
            and f"next_{name}" in self.field_names
            and not name.startswith("next_")
        ]
        if next_state_is_next_row and not self._pairs:
            raise ConfigError(
                "next_state_is_next_row: expected a field and its successor in field_names, 'state'"
                f" and 'next_state' say, got {self.field_names}."
            )
        #: for rows like those of the last call: where each value goes, its shape and its dtype
        self._plan: list[tuple[Array, tuple[int, ...], np.dtype[Any]]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the plan: it holds views, which a copy would separate from their fields."""
        return {**self.__dict__, "_plan": []}

    def __len__(self) -> int:
        """Return how many transitions can be sampled."""
        return min(self.counter, self.memory_size)

    def save2memory(self, *fields: Any) -> None:
        """Store one transition, its values in the order of ``field_names``."""
        self._insert([np.asarray(value)[None] for value in fields])

    def save2memoryVectEnvs(self, *fields: Any) -> None:
        """Store one transition a row: every value has the same first axis, [N, ...]."""
        if not self._insert_alike(fields):
            self._insert([np.asarray(value) for value in fields])

    def _insert_alike(self, fields: Sequence[Any]) -> bool:
        """Store rows of the same kind as in the last call; return whether they were.

        Training stores rows of one kind, thousands of times a second: what was found out about
        them is not found out again.
        """
        plan = self._plan
        if not plan or len(plan) != len(fields):  # nor where some fields share observations
            return False
        for (_, shape, dtype), value in zip(plan, fields, strict=True):
            if type(value) is not np.ndarray or value.shape != shape or value.dtype is not dtype:
                return False
        count = plan[0][1][0]
        first = self.counter % self.memory_size
        last = first + count
        if last > self.memory_size:
            return False
        for (target, _, _), value in zip(plan, fields, strict=True):
            target[first:last] = value
        self.counter += count
        return True

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
        batch = [torch.from_numpy(field.take(rows, axis=0)) for field in self._fields]
        return tuple(batch if self.device.type == "cpu" else [x.to(self.device) for x in batch])

    def _insert(self, values: list[Array]) -> None:
        if len(values) != len(self.field_names):
            raise ConfigError(
                f"fields: expected {len(self.field_names)} values ({', '.join(self.field_names)}),"
                f" got {len(values)}."
            )
        fields = self._fields or self._reserved(values)
        count = len(values[0]) if values[0].ndim else 0
        rows = [
            self._rows(name, field, value, count)
            for name, field, value in zip(self.field_names, fields, values, strict=True)
        ]
        self._fields = fields  # only now: values that are refused reserve nothing
        skip = max(0, count - self.memory_size)  # older rows of one call that would be overwritten
        first = (self.counter + skip) % self.memory_size
        head = min(count - skip, self.memory_size - first)
        for field, value in zip(self._fields, rows, strict=True):
            if isinstance(field, np.ndarray):
                field[first : first + head] = value[skip : skip + head]
                field[: count - skip - head] = value[skip + head :]
        if self._pairs:
            self._write_frames(skip, first, rows)
        self.counter += count
        self._plan = [
            (field if value.ndim == field.ndim else field[:, 0], value.shape, value.dtype)
            for field, value in zip(self._fields, values, strict=True)
            if isinstance(field, np.ndarray)
        ]

    def _write_frames(self, skip: int, first: int, rows: list[Array]) -> None:
        """Store the rows, without the first ``skip``, of the fields that share observations."""
        named = dict(zip(self.field_names, zip(self._fields, rows, strict=True), strict=True))
        for names in self._pairs:
            (column, states), (_, successors) = (named[name] for name in names)
            assert isinstance(column, FrameColumn)
            places = (first + np.arange(len(states) - skip)) % self.memory_size
            column.frames.write(places, len(self), states[skip:], successors[skip:])

    def _reserved(self, values: list[Array]) -> list[Array | FrameColumn]:
        """Return the memory of every field, in the shape of the first transition."""
        named = dict(zip(self.field_names, values, strict=True))
        for name, value in named.items():
            if value.ndim == 0 or value.dtype.kind not in NUMBERS:
                raise ConfigError(
                    f"{name}: expected numbers, one row for each transition, got an array of dtype"
                    f" {value.dtype} and shape {value.shape}."
                )
        images = {n for n, v in named.items() if v.dtype == np.uint8 and v.ndim > 1}
        for name in self.field_names:  # a state and its successor have one dtype
            pair = {name, f"next_{name}"}
            if pair <= named.keys() and not pair <= images:
                images -= pair
        reserved: dict[str, Array | FrameColumn] = {}
        for name, value in named.items():
            shape, dtype = value.shape[1:] or (1,), np.uint8 if name in images else np.float32
            shared = [names for names in self._pairs if name in names]
            if not shared:
                reserved[name] = np.zeros((self.memory_size, *shape), dtype)
            elif name not in reserved:
                frames = FrameBuffer(self.memory_size, shape, dtype)
                reserved.update({n: FrameColumn(frames, i) for i, n in enumerate(shared[0])})
        return [reserved[name] for name in self.field_names]

    def _rows(self, name: str, field: Array | FrameColumn, value: Array, count: int) -> Array:
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
        if rows.dtype.kind not in NUMBERS:
            raise ConfigError(f"{name}: expected numbers, got an array of dtype {rows.dtype}.")
        if field.dtype == np.uint8 and rows.dtype != np.uint8:
            raise ConfigError(f"{name}: expected uint8, as stored before, got {rows.dtype}.")
        return rows
