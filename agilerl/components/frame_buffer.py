"""Observations stored once, where the next state of one row is the state of another."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class FrameBuffer:
    """The states and successors of a ring of transitions, without the copies.

    A transition holds two numbers of frames.  Its state is *compared* with the successor that the
    same sub-environment (the same row in the call before) gave last, or with that of the row
    before it in the same call; only where they are equal, bit for bit, is the frame shared.  So
    what comes out is what went in, whatever the order of the rows: at the end of an episode, where
    the true successor is not the next state, and where rows were left out, a frame more is stored.

    A frame that no transition refers to any more is used again.  Room for two frames a transition
    is reserved, but an operating system gives memory to pages that are written only; low numbers
    are written first.

    Args:
        memory_size: transitions in the ring.
        shape: of one observation.
        dtype: of the observations.
    """

    def __init__(self, memory_size: int, shape: tuple[int, ...], dtype: Any) -> None:
        self._frames = np.zeros((2 * memory_size, *shape), dtype)
        number = np.int32 if 2 * memory_size < 2**31 else np.int64
        #: for each transition the frame of its state and that of its successor
        self._pairs = np.zeros((memory_size, 2), number)
        #: how often transitions refer to each frame
        self._uses = np.zeros(2 * memory_size, np.uint8)
        self._spare = np.zeros(0, number)
        self._touched = 0
        #: where the rows of the last call are
        self._latest = np.zeros(0, np.intp)
        #: since ``bookmark``: what was overwritten, for ``go_back``; None where there is none
        self._overwritten: list[tuple[Array, Array, Array]] | None = None

    @property
    def frames(self) -> int:
        """How many frames were ever written to: what the memory holds."""
        return self._touched

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        written = self._touched * (self._frames[0].nbytes + self._uses.itemsize)
        return int(written + self._pairs.nbytes + self._spare.nbytes)

    @property
    def last_call(self) -> int:
        """Rows of the last call."""
        return len(self._latest)

    def bookmark(self) -> Any:
        """Return what ``go_back`` needs; until then, overwritten frames are set aside."""
        self._overwritten = []
        return self._uses.copy(), self._spare, self._touched, self._latest

    def go_back(self, bookmark: Any) -> None:
        """Put everything back to where it was at ``bookmark``."""
        for target, numbers, values in reversed(self._overwritten or []):
            target[numbers] = values
        self._uses, self._spare, self._touched, self._latest = bookmark
        self._overwritten = None

    def _set(self, target: Array, numbers: Array, values: Array) -> None:
        """Write to rows of ``target``; keep what was there where it may be asked back."""
        if self._overwritten is not None:
            self._overwritten.append((target, numbers, target[numbers]))
        target[numbers] = values

    def write(self, positions: Array, filled: int, states: Array, successors: Array) -> None:
        """Store a call's rows, [N, ...] each.

        Args:
            positions: where in the ring they go, [N], all different.
            filled: transitions that the ring holds; positions from there on are empty.
            states: in the dtype of the buffer, or one that converts to it.
            successors: likewise.
        """
        states, successors = (
            np.ascontiguousarray(rows, self._frames.dtype) for rows in (states, successors)
        )
        pairs = np.full((len(positions), 2), -1, self._pairs.dtype)
        self._share_with_latest(pairs, states)
        shared = pairs[pairs[:, 0] >= 0, 0]
        np.add.at(self._uses, shared, 1)  # before their old transitions may let them go
        self._release(self._pairs[positions[positions < filled]])
        pairs[:, 1] = self._fresh(successors)
        alone = np.flatnonzero(pairs[:, 0] < 0)
        follows = alone[alone > 0]
        follows = follows[_equal(states[follows], successors[follows - 1])]
        pairs[follows, 0] = pairs[follows - 1, 1]
        np.add.at(self._uses, pairs[follows, 0], 1)
        alone = np.flatnonzero(pairs[:, 0] < 0)
        pairs[alone, 0] = self._fresh(states[alone])
        self._set(self._pairs, positions, pairs)
        self._latest = positions

    def take(self, positions: Array, column: int) -> Array:
        """Return the states (column 0) or the successors (column 1) of transitions, copied."""
        rows: Array = self._frames.take(self._pairs[positions, column], axis=0)
        return rows

    def _share_with_latest(self, pairs: Array, states: Array) -> None:
        """Let rows begin with the frame in which the same row of the call before ended."""
        count = min(len(self._latest), len(states))
        ends = self._pairs[self._latest[:count], 1]
        equal = _equal(states[:count], self._frames[ends])
        pairs[:count, 0][equal] = ends[equal]

    def _release(self, pairs: Array) -> None:
        """Forget transitions: frames that none refers to any more are spare."""
        np.subtract.at(self._uses, pairs, 1)
        numbers = np.unique(pairs)
        self._spare = np.concatenate([self._spare, numbers[self._uses[numbers] == 0]])

    def _fresh(self, rows: Array) -> Array:
        """Store rows in frames of their own, and return the numbers."""
        reused = min(len(rows), len(self._spare))
        left = len(self._spare) - reused
        numbers = np.arange(self._touched - reused, self._touched - reused + len(rows))
        numbers[:reused] = self._spare[left:]
        self._spare = self._spare[:left]
        self._touched += len(rows) - reused
        self._set(self._frames, numbers[:reused], rows[:reused])
        self._frames[numbers[reused:]] = rows[reused:]
        self._uses[numbers] = 1
        return numbers


class FrameColumn:
    """The states (column 0) or the successors (column 1) of a ``FrameBuffer``, read like an array.

    Rows can't be written one column at a time: ``frames.write`` takes both.
    """

    def __init__(self, frames: FrameBuffer, column: int) -> None:
        self.frames = frames
        self.column = column
        self.shape: tuple[int, ...] = (len(frames._pairs), *frames._frames.shape[1:])
        self.dtype = frames._frames.dtype

    def take(self, rows: Array, axis: int = 0) -> Array:
        """Return copies of rows."""
        return self.frames.take(rows, self.column)

    def __getitem__(self, rows: Any) -> Array:
        """Return copies of what a slice or an array of numbers chooses."""
        return self.frames.take(rows, self.column)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]


def _equal(one: Array, other: Array) -> Array:
    """Return which rows are the same, bit for bit; both are contiguous and of one dtype."""
    if not len(one):
        return np.zeros(0, bool)
    rows = (a.reshape(len(a), -1).view(np.uint8) for a in (one, np.ascontiguousarray(other)))
    return np.asarray(np.equal(*rows).all(axis=1))
