"""From columns to arrays: one pass over the data, in pieces, straight to where it stays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from agilerl.components.spaces import single_spaces
from agilerl.data.columns import (
    FLAGS,
    OLD_DONE,
    Source,
    check_actions,
    check_declared,
    check_observation_shape,
    check_state_numbers,
)
from agilerl.data.dataset_report import make_report
from agilerl.data.episodes import Ends, find_ends, whole_transitions
from agilerl.errors import DatasetError

Array = np.ndarray[Any, np.dtype[Any]]

#: Most that a data set may take in memory, if nothing else is said.
MAX_BYTES = 8 * 2**30
#: What is read at once, in bytes.
PIECE = 2**22


def read(
    source: Source, env: Any, max_episode_steps: int | None, max_bytes: int | None
) -> dict[str, Any]:
    """Return the fields of an ``OfflineDataset``; everything declared is checked first.

    Args:
        source: the columns.
        env: check shapes and values against its spaces, if not None.
        max_episode_steps: time limit where no column marks time limits; else that of ``env``.
        max_bytes: most memory to take.

    Raises:
        DatasetError: that names the file and the column.
    """
    rows = check_declared(source)
    where, columns, names, attributes = source
    observation_space, action_space = (None, None) if env is None else single_spaces(env)
    if observation_space is not None:
        shape = tuple(columns["observations"].shape[1:])
        check_observation_shape(where, names["observations"], shape, observation_space, True)
    _check_size(source, rows, max_bytes)

    ends = _ends(source, env, max_episode_steps)
    actions = _actions(source, action_space)
    if action_space is not None:
        check_actions(where, names["actions"], actions, action_space)
    rewards = _column(source, "rewards").reshape(rows)
    keep, dropped = whole_transitions(ends, "next_observations" in columns)
    if not keep.any():
        raise DatasetError(
            f"{where}: {names['observations']}: none of {rows} rows is a whole transition"
            f" ({dropped}); store next_observations."
        )
    observations, next_observations, breaks = _states(source, ends, keep, observation_space)
    report, ended = make_report(source, ends, keep, dropped, rewards, breaks)
    kept = slice(None) if keep.all() else keep
    return {
        "observations": observations,
        "actions": actions[kept],
        "rewards": rewards[kept],
        "next_observations": next_observations,
        "terminated": ends.terminated[kept],
        "ended": ended,
        "report": report,
        "attributes": dict(attributes),
    }


def _ends(source: Source, env: Any, max_episode_steps: int | None) -> Ends:
    """Return where the episodes end."""
    if max_episode_steps is None:
        max_episode_steps = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    return find_ends(
        source.where,
        {name: _flags(source, name) for name in FLAGS if name in source.columns},
        source.names.get("terminals") in OLD_DONE,
        "next_observations" in source.columns,
        max_episode_steps,
    )


def _dtype(column: Any) -> np.dtype[Any]:
    """Return the type in which observations stay."""
    if column.dtype == np.uint8 and len(column.shape) > 2:
        return np.dtype(np.uint8)
    one_number = len(column.shape) == 1 or tuple(column.shape[1:]) == (1,)
    return np.dtype(np.int64 if column.dtype.kind in "iu" and one_number else np.float32)


def _check_size(source: Source, rows: int, max_bytes: int | None) -> None:
    """Raise ``DatasetError`` if the arrays would take too much memory."""
    observations, actions = source.columns["observations"], source.columns["actions"]
    states = math.prod(observations.shape) * _dtype(observations).itemsize
    needed = 2 * states + 8 * math.prod(actions.shape) + 6 * rows
    if max_bytes is not None and needed > max_bytes:
        raise DatasetError(
            f"{source.where}: {source.names['observations']}: {rows:,} rows would take"
            f" {needed / 2**30:.1f} GiB, more than max_bytes ({max_bytes / 2**30:.1f} GiB); pass"
            " OfflineDataset.from_hdf5(path, max_bytes=...) if you trust it."
        )


def _pieces(column: Any) -> Iterator[slice]:
    """Yield slices that cover a column, each of whole chunks of the file."""
    row_bytes = max(1, math.prod(column.shape[1:]) * column.dtype.itemsize)
    chunk = (getattr(column, "chunks", None) or (1,))[0]
    step = max(1, PIECE // row_bytes // chunk) * chunk
    for start in range(0, column.shape[0], step):
        yield slice(start, min(start + step, column.shape[0]))


def _check_finite(source: Source, name: str, first: int, rows: Array) -> None:
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        bad = np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(1))[0]
        raise DatasetError(
            f"{source.where}: {source.names[name]}: expected finite numbers (in float32), got"
            f" {rows[bad].tolist()} in row {first + int(bad)}; remove that episode."
        )


def _cast(source: Source, name: str, first: int, rows: Array, dtype: Any) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = np.asarray(rows).astype(dtype, copy=False)
    _check_finite(source, name, first, cast)
    return cast


def _column(source: Source, name: str, dtype: Any = np.float32) -> Array:
    """Return a whole column."""
    column = source.columns[name]
    whole = np.empty(column.shape, dtype)
    for piece in _pieces(column):
        whole[piece] = _cast(source, name, piece.start, column[piece], dtype)
    return whole


def _flags(source: Source, name: str) -> Array:
    """Return a column of flags; raise ``DatasetError`` if one is neither 0 nor 1."""
    column = source.columns[name]
    flags = np.empty(column.shape[0], bool)
    for piece in _pieces(column):
        rows = np.asarray(column[piece]).reshape(-1)
        bad = (rows != 0) & (rows != 1)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise DatasetError(
                f"{source.where}: {source.names[name]}: expected 0 or 1, got {rows[first]} in row"
                f" {piece.start + first}."
            )
        flags[piece] = rows != 0
    return flags


def _actions(source: Source, space: Any) -> Array:
    """Return the actions: [N] whole numbers, or [N, action_dim] floats."""
    column = source.columns["actions"]
    whole = column.dtype.kind in "iub"
    actions = _column(source, "actions", np.int64 if whole else np.float32)
    if isinstance(space, spaces.Box):
        return actions.reshape(len(actions), -1).astype(np.float32, copy=False)
    if isinstance(space, spaces.Discrete) and math.prod(actions.shape[1:]) == 1:
        actions = actions.reshape(-1)
        if not whole and (actions == np.floor(actions)).all():
            actions = actions.astype(np.int64)
        return actions
    if whole and actions.shape[1:] == (1,):
        return actions.reshape(-1)
    return actions if whole else actions.reshape(len(actions), -1)


def _states(
    source: Source, ends: Ends, keep: Array, space: Any
) -> tuple[Array, Array, Array | None]:
    """Return observations, their successors, and where an unmarked episode begins anew.

    Without next observations, the successor is the next row's observation; a row that terminated
    has its own.
    """
    column = source.columns["observations"]
    following = source.columns.get("next_observations")
    dtype = _dtype(column)
    shape = (int(keep.sum()), *column.shape[1:])
    states, successors = np.empty(shape, dtype), np.empty(shape, dtype)
    look = following is not None and not {"timeouts", "episode_terminals"} & set(source.columns)
    breaks = np.zeros(len(keep), bool) if look else None
    done = 0
    last: Array | None = None
    for piece in _pieces(column):
        stop = min(piece.stop + (following is None), column.shape[0])
        rows = _cast(source, "observations", piece.start, column[piece.start : stop], dtype)
        if space is not None:
            check_state_numbers(
                source.where, source.names["observations"], piece.start, rows, space
            )
        own = rows[: piece.stop - piece.start]
        if following is None:
            after = own.copy()
            after[: len(rows) - 1] = rows[1:]
            after[ends.terminated[piece]] = own[ends.terminated[piece]]
        else:
            after = _cast(source, "next_observations", piece.start, following[piece], dtype)
            if breaks is not None:
                _mark_breaks(breaks, piece, own, after, last)
                last = after[-1]
        chosen = keep[piece]
        count = int(chosen.sum())
        states[done : done + count] = own if count == len(own) else own[chosen]
        successors[done : done + count] = after if count == len(own) else after[chosen]
        done += count
    return states, successors, breaks


def _mark_breaks(
    breaks: Array, piece: slice, own: Array, after: Array, before: Array | None
) -> None:
    """Mark rows whose successor is not the next row; ``before`` is the last successor so far."""
    flat, successor = own.reshape(len(own), -1), after.reshape(len(own), -1)
    breaks[piece.start : piece.stop - 1] = (successor[:-1] != flat[1:]).any(1)
    if before is not None:
        breaks[piece.start - 1] = (before != own[0]).any()
