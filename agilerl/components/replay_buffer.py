"""Experience that a population shares."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from agilerl import compiled
from agilerl.components.frame_buffer import FrameBuffer, FrameColumn
from agilerl.devices import check_device
from agilerl.errors import CheckpointError, ConfigError, check_int
from agilerl.finite import finite
from agilerl.seeding import generator, load_stream_state, stream_state

Array = np.ndarray[Any, np.dtype[Any]]

#: Kinds of dtype that can be stored: float, int, unsigned, bool.
NUMBERS = "fiub"
#: Rows of the ring that are set aside at once, before they are overwritten in a view.
BLOCK = 1024


@dataclasses.dataclass
class Rows:
    """Transitions that were stored while a view of a buffer was open, oldest first.

    Attributes:
        written: how many; if that is more than the buffer holds, only the last are kept.
        fields: their values, an array [R, ...] for each field of the buffer.
    """

    written: int = 0
    fields: list[Array] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        """Return how many rows were kept."""
        return len(self.fields[0]) if self.fields else 0


def check_learnable(name: str, values: Array) -> None:
    """Raise ``ConfigError`` on values of a field from which nothing can be learnt."""
    if values.dtype.kind == "f" and not finite(values):
        raise ConfigError(
            f"{name}: expected finite numbers, got NaN or infinity in {values!r}; nothing was"
            " stored."
        )
    if name == "action" and values.dtype.kind == "i" and values.ndim == 1 and (values < 0).any():
        raise ConfigError(
            f"action: expected numbers of actions, from 0, got {values.min()}; nothing was stored."
        )


def different(rng: np.random.Generator, count: int, size: int) -> Array:
    """Return ``count`` different numbers below ``size``, each subset as likely.

    Floyd's algorithm (Bentley 1987): the order is not random.
    """
    uniforms = rng.random(count)
    if compiled.in_use():
        rows = np.empty(count, np.int64)
        compiled.learning.choose(uniforms, size, rows)
        return rows
    last = np.arange(size - count, size)
    rows = np.minimum((uniforms * (last + 1)).astype(np.int64), last)
    chosen: set[int] = set()
    for i, row in enumerate(rows.tolist()):
        if row in chosen:
            rows[i] = row = int(last[i])  # which is free: no draw before reached as far
        chosen.add(row)
    return rows


def taken(column: Array | FrameColumn, rows: Array) -> Array:
    """Return copies of rows [B] of a field, [B, ...]."""
    if isinstance(column, FrameColumn) or not compiled.serves(column):
        return column.take(rows, axis=0)
    out = np.empty((len(rows), *column.shape[1:]), column.dtype)
    compiled.learning.take(column, rows, out)
    return out


class ReplayBuffer:
    """Ring replay buffer in contiguous memory (Lin 1992).

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
        #: while a view is open: what it needs to put the ring back
        self._undo: _Undo | None = None
        #: for rows like those of the last call: where each value goes, its shape and its dtype
        self._plan: list[tuple[Array, tuple[int, ...], np.dtype[Any]]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the plan: it holds views, which a copy would separate from their fields."""
        return {**self.__dict__, "_plan": []}

    def __len__(self) -> int:
        """Return how many transitions can be sampled."""
        return min(self.counter, self.memory_size)

    def save2memory(self, *fields: Any) -> None:
        """Store one transition, its values in the order of ``field_names``.

        Raises:
            ConfigError: on NaN, infinity, a negative action number, or values that do not fit.
        """
        self.save2memoryVectEnvs(*(np.asarray(value)[None] for value in fields))

    def save2memoryVectEnvs(self, *fields: Any) -> None:
        """Store one transition a row: every value has the same first axis, [N, ...].

        Raises:
            ConfigError: on NaN, infinity, a negative action number, or values that do not fit.
        """
        arrays = [np.asarray(value) for value in fields]
        for name, values in zip(self.field_names, arrays, strict=False):
            check_learnable(name, values)
        self.append(arrays)

    def append(self, fields: Sequence[Array]) -> None:
        """Store one transition a row, of values [N, ...] that were checked already."""
        if not self._insert_alike(fields):
            self._insert(fields)

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
        if self._undo is not None:
            self._undo.set_aside(count)
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
        batch = [torch.from_numpy(values) for values in self.draw(batch_size)]
        return tuple(batch if self.device.type == "cpu" else [x.to(self.device) for x in batch])

    def draw(self, batch_size: int) -> list[Array]:
        """Return what ``sample`` does, as arrays."""
        if check_int("batch_size", batch_size) > len(self):
            raise ConfigError(
                f"batch_size: {batch_size} transitions were asked for, the buffer holds"
                f" {len(self)}; store more first, or enlarge memory_size ({self.memory_size})."
            )
        rows = different(self.rng, batch_size, len(self))
        return [taken(field, rows) for field in self._fields]

    # ------------------------------------------------------------------------- shared experience

    @contextmanager
    def view(self) -> Iterator[Rows]:
        """Store transitions for a while only; then the ring is as it was before.

        Within the block the buffer holds what it held and what is stored there, as any ring: the
        oldest rows are overwritten, and samples draw from all of it.

        Yields:
            The rows that were stored in the block, filled in when it ends.
        """
        rows = Rows()
        undo = self._undo = _Undo(self)
        try:
            yield rows
        finally:
            self._undo = None
            rows.written = self.counter - undo.start
            rows.fields = self.rows(max(undo.start, self.counter - self.memory_size), self.counter)
            undo.roll_back()

    def rows(self, start: int, stop: int) -> list[Array]:
        """Return copies of the transitions number ``start`` to ``stop``, counted as ``counter``."""
        numbers = np.arange(start, stop) % self.memory_size
        return [column.take(numbers, axis=0) for column in self._fields]

    @property
    def last_call(self) -> int:
        """Transitions that the last call stored, where observations are stored once; else 0."""
        columns = [column for column in self._fields if isinstance(column, FrameColumn)]
        return columns[0].frames.last_call if columns else 0

    def extend(self, rows: Sequence[Array], counter: int, call: int = 0) -> None:
        """Append rows of another buffer of the same settings.

        Args:
            rows: transitions, an array [R, ...] for each field.
            counter: what ``counter`` is afterwards.
            call: ``last_call`` of the other buffer: observations are shared from call to call.
        """
        count = len(rows[0]) if rows else 0
        for start in range(0, count, call or max(count, 1)):
            self._insert([values[start : start + (call or count)] for values in rows])
        self.counter = counter

    def merge(self, parts: Sequence[Rows], counts: Sequence[Array]) -> None:
        """Store the rows that several agents collected side by side.

        They go in by vector step, then agent, then sub-environment, so that a small ring keeps the
        last steps of all agents, and not those of the last agent.

        Args:
            parts: the rows of each agent.
            counts: for each agent, how many rows each of its vector steps gave, [steps].
        """
        steps = np.concatenate(
            [
                np.repeat(np.arange(len(count)), count)[part.written - len(part) :]
                for part, count in zip(parts, counts, strict=True)
            ]
        )
        order = np.argsort(steps, kind="stable")[-self.memory_size :]
        filled = [part.fields for part in parts if len(part)]
        self.counter += sum(part.written for part in parts) - len(order)
        if not len(order):
            return
        fields = [np.concatenate(columns)[order] for columns in zip(*filled, strict=True)]
        if not self._pairs:
            self._insert(fields)
            return
        ends = np.flatnonzero(np.diff(steps[order])) + 1  # frames are shared between calls
        for rows in zip(*(np.split(column, ends) for column in fields), strict=True):
            self._insert(list(rows))

    # ------------------------------------------------------------------------------------- state

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor arguments, without device and seed."""
        return {
            "action_dim": self.action_dim,
            "memory_size": self.memory_size,
            "field_names": list(self.field_names),
            "next_state_is_next_row": bool(self._pairs),
        }

    def state_dict(self, rows: bool = True) -> dict[str, Any]:
        """Return everything that makes up the buffer, as tensors and plain values.

        Args:
            rows: with the transitions, oldest first; without them the state is small.
        """
        state: dict[str, Any] = {
            "settings": self.settings,
            "counter": self.counter,
            "stream": stream_state(self.rng),
            "last_call": self.last_call,
        }
        if rows:
            kept = self.rows(self.counter - len(self), self.counter)
            state["rows"] = [torch.from_numpy(values) for values in kept]
        return state

    def digest(self) -> str:
        """Return the SHA-256 of all rows, oldest first."""
        digest = hashlib.sha256()
        for start in range(self.counter - len(self), self.counter, BLOCK):
            for values in self.rows(start, min(start + BLOCK, self.counter)):
                digest.update(values.tobytes())
        return digest.hexdigest()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict()`` returned, row for row.

        Raises:
            CheckpointError: if it is that of a buffer with other settings, or does not fit.
        """
        for name, value in self.settings.items():
            if state["settings"].get(name) != value:
                raise CheckpointError(
                    f"replay buffer: {name} is {value!r}, that of the saved buffer was"
                    f" {state['settings'].get(name)!r}; make the buffer as it was made then."
                )
        counter, rows = int(state["counter"]), [np.asarray(values) for values in state["rows"]]
        held = len(rows[0]) if rows else 0
        if held != min(counter, self.memory_size) or any(len(values) != held for values in rows):
            raise CheckpointError(
                f"replay buffer: expected {min(counter, self.memory_size)} rows, got {held}."
            )
        load_stream_state(self.rng, state["stream"])
        self._fields, self._plan, self.counter = [], [], 0
        ring = [np.roll(values, counter if counter > held else 0, axis=0) for values in rows]
        self.extend(ring, counter, int(state["last_call"]))

    def _insert(self, values: Sequence[Array]) -> None:
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
        if self._undo is not None:
            self._undo.set_aside(count)
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
            numbers = (first + np.arange(len(states) - skip)) % self.memory_size
            column.frames.write(numbers, len(self), states[skip:], successors[skip:])

    def _reserved(self, values: Sequence[Array]) -> list[Array | FrameColumn]:
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


class _Undo:
    """What it takes to put a ring back to where it was when this was made."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer = buffer
        self.start = buffer.counter
        self._next = self.start
        self._blocks: list[tuple[slice, list[Array]]] = []
        self._frames = [
            (column.frames, column.frames.bookmark())
            for column in buffer._fields
            if isinstance(column, FrameColumn) and column.column == 0
        ]

    def set_aside(self, count: int) -> None:
        """Copy the rows that the next ``count`` ones overwrite, some more at a time."""
        size = self.buffer.memory_size
        needed = min(self.buffer.counter + count, self.start + size)
        while self._next < needed:
            first = self._next % size
            last = min(first + BLOCK, size, first + self.start + size - self._next)
            rows = slice(first, last)
            if self._next >= size:  # before that the ring is empty there
                plain = [c for c in self.buffer._fields if isinstance(c, np.ndarray)]
                self._blocks.append((rows, [column[rows].copy() for column in plain]))
            self._next += last - first

    def roll_back(self) -> None:
        """Put the ring back."""
        buffer = self.buffer
        plain = [column for column in buffer._fields if isinstance(column, np.ndarray)]
        for rows, copies in self._blocks:
            for column, values in zip(plain, copies, strict=True):
                column[rows] = values
        for frames, bookmark in self._frames:
            frames.go_back(bookmark)
        if not self.start:
            buffer._fields = []  # the first transition that stays sets the shapes
        buffer.counter = self.start
        buffer._plan = []
