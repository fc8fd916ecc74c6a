"""The columns of an offline data set: found by name, checked, and read into arrays.

All that is declared is checked before a row is read.  Then one pass over the data, a few MB at
once, puts each row where it stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from agilerl.components.spaces import single_spaces
from agilerl.data.episodes import Ends, episode_returns, find_ends, whole_transitions
from agilerl.errors import DatasetError, suggest

Array = np.ndarray[Any, np.dtype[Any]]

#: Every column, with the names that others give it; the first that is there is read.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "observations": ("observation", "obs", "states", "state"),
    "actions": ("action", "acts"),
    "rewards": ("reward", "rews"),
    "next_observations": ("next_observation", "next_obs", "next_states", "next_state"),
    "terminals": ("terminal", "terminations", "terminated", "terminateds", "dones", "done"),
    "timeouts": ("timeout", "truncations", "truncated", "truncateds"),
    "episode_terminals": ("episode_terminal", "episode_ends"),
}
REQUIRED = ("observations", "actions", "rewards")
FLAGS = ("terminals", "timeouts", "episode_terminals")

#: Kinds of numbers that a column may have: floats, (unsigned) integers, booleans.
NUMBERS = "fiub"

#: A terminal flag of this name was set at time limits too, in the old convention of gym.
OLD_DONE = ("dones", "done")

#: How far a continuous action may be out of bounds, as a part of their range: rounding.
BOUND_TOLERANCE = 1e-4

#: Bytes that are read at once.
BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class Source:
    """Columns that were found but not read.

    Attributes:
        where: name of the file, for messages.
        columns: whatever has a shape, a dtype and slices, by canonical name.
        names: what a column is called there, where that differs.
        attributes: what is known about the data.
    """

    where: str
    columns: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def label(self, name: str) -> str:
        """Return what a column is called in the file."""
        return self.names.get(name, name)

    def error(self, name: str, text: str) -> DatasetError:
        """Return the error about a column."""
        return DatasetError(f"{self.where}: {self.label(name)}: {text}")


@dataclass(frozen=True)
class Report:
    """What became of the rows of a data set.

    Attributes:
        where: the file.
        rows: that it has.
        kept: that are whole transitions.
        dropped: how many were not, by reason.
        notes: what else a reader should know.
        episodes: whole episodes.
        mean_return: their mean undiscounted return; None if there is none, or the order of the
            rows is unknown.
    """

    where: str
    rows: int
    kept: int
    dropped: dict[str, int]
    notes: tuple[str, ...]
    episodes: int
    mean_return: float | None

    def __str__(self) -> str:
        """Return the report in one line."""
        line = f"{self.where}: {self.kept:,} of {self.rows:,} rows kept"
        if self.mean_return is not None:
            line += f" ({self.episodes:,} whole episodes, mean return {self.mean_return:.1f})"
        reasons = [f"{count:,} dropped: {reason}" for reason, count in self.dropped.items()]
        return "; ".join([line, *reasons, *self.notes])


def find_names(where: str, present: Iterable[str]) -> dict[str, str]:
    """Return the name that each column has in ``present``.

    Raises:
        DatasetError: if a needed one is missing, or nothing says where episodes end.
    """
    there = list(present)
    found = {}
    for name, others in ALIASES.items():
        match = next((n for n in (name, *others) if n in there), None)
        if match is not None:
            found[name] = match
    listing = f"There are: {', '.join(map(repr, sorted(there))) or 'no fields at all'}."
    unknown = [name for name in there if name not in found.values()]
    for name in REQUIRED:
        if name not in found:
            raise DatasetError(
                f"{where}: {name}: missing; expected a field of that name (or"
                f" {', '.join(ALIASES[name])}). {listing}{suggest(name, unknown)}"
            )
    if "terminals" not in found and not {"timeouts", "episode_terminals"} <= set(found):
        raise DatasetError(
            f"{where}: terminals: missing, so there is no way to tell where episodes end; expected"
            f" 'terminals', with 'timeouts' where episodes were cut by a time limit. {listing}"
        )
    return found


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
    rows = _check_declared(source)
    observation_space, action_space = (None, None) if env is None else single_spaces(env)
    if observation_space is not None:
        check_observation_shape(source, observation_space, swap_channels=True)
    _check_size(source, rows, max_bytes)

    ends = _ends(source, env, max_episode_steps)
    actions = _actions(source, action_space)
    if action_space is not None:
        check_actions(source, actions, action_space)
    rewards = _column(source, "rewards").reshape(rows)
    keep, dropped = whole_transitions(ends, "next_observations" in source.columns)
    if not keep.any():
        raise source.error(
            "observations",
            f"none of {rows} rows is a whole transition ({dropped}); store next_observations.",
        )
    states, next_states, breaks = _states(source, ends, keep, observation_space)
    report, ended = _report(source, ends, keep, dropped, rewards, breaks)
    kept = slice(None) if keep.all() else keep
    return {
        "observations": states,
        "actions": actions[kept],
        "rewards": rewards[kept],
        "next_observations": next_states,
        "terminated": ends.terminated[kept],
        "ended": ended,
        "report": report,
        "attributes": dict(source.attributes),
    }


# -------------------------------------------------------------------- checks before a row is read


def _check_declared(source: Source) -> int:
    """Return the number of rows, after checking types, lengths and shapes.

    Raises:
        DatasetError: that names the column.
    """
    for name, column in source.columns.items():
        if column.dtype.kind not in NUMBERS:
            raise source.error(
                name,
                f"expected numbers, got dtype {column.dtype}; store it as float32 or integers.",
            )
        if not column.shape:
            raise source.error(name, "expected one row a step, got one value.")
    rows = _check_lengths(source)
    _check_shapes(source, rows)
    return rows


def _check_lengths(source: Source) -> int:
    lengths = {source.label(name): column.shape[0] for name, column in source.columns.items()}
    if len(set(lengths.values())) > 1:
        width = max(map(len, lengths))
        table = "\n".join(f"  {name:<{width}}  {rows:>12,}" for name, rows in lengths.items())
        raise DatasetError(
            f"{source.where}: {', '.join(lengths)}: expected the same number of rows, got\n{table}"
        )
    rows = int(source.columns["rewards"].shape[0])
    if rows == 0:
        raise source.error("rewards", "expected at least one row, got none.")
    return rows


def _check_shapes(source: Source, rows: int) -> None:
    shapes = {name: column.shape for name, column in source.columns.items()}
    for name in ("rewards", *FLAGS):
        if name in shapes and shapes[name] not in ((rows,), (rows, 1)):
            raise source.error(name, f"expected one number a row, got shape {shapes[name]}.")
    if len(shapes["actions"]) > 2:
        raise source.error(
            "actions",
            f"expected one action a row, [N] or [N, action_dim], got shape {shapes['actions']}.",
        )
    for name in ("observations", "actions"):
        if 0 in shapes[name]:
            raise source.error(
                name, f"expected at least one number a row, got shape {shapes[name]}."
            )
    expected = shapes["observations"]
    if shapes.get("next_observations", expected) != expected:
        raise source.error(
            "next_observations",
            f"expected the shape of {source.label('observations')}, {expected}, got"
            f" {shapes['next_observations']}.",
        )


def _check_size(source: Source, rows: int, max_bytes: int | None) -> None:
    """Raise ``DatasetError`` if the arrays would take too much memory."""
    observations, actions = source.columns["observations"], source.columns["actions"]
    states = math.prod(observations.shape) * _dtype(observations).itemsize
    needed = 2 * states + 8 * math.prod(actions.shape) + 6 * rows
    if max_bytes is not None and needed > max_bytes:
        raise source.error(
            "observations",
            f"{rows:,} rows would take {needed / 2**30:.1f} GiB, more than max_bytes"
            f" ({max_bytes / 2**30:.1f} GiB); pass OfflineDataset.from_hdf5(path, max_bytes=...)"
            " if you trust it.",
        )


# ------------------------------------------------------------------- checks against an environment


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an image [H, W, C] as [C, H, W]."""
    return (shape[-1], *shape[:-1])


def check_observation_shape(source: Source, space: Space[Any], swap_channels: bool) -> None:
    """Raise ``DatasetError`` unless the rows have the shape of the observations of ``space``."""
    shape, expected = tuple(source.columns["observations"].shape[1:]), tuple(space.shape or ())
    fitting = [expected]
    if expected in ((), (1,)):
        fitting = [(), (1,)]
    elif swap_channels and len(expected) == 3:
        fitting.append(channels_first(expected))
    if shape not in fitting:
        raise source.error(
            "observations",
            f"expected observations of shape {expected}, as the environment gives, got {shape};"
            " is it a data set of another environment?",
        )


def check_state_numbers(
    source: Source, name: str, rows: Array, space: Space[Any], first: int = 0
) -> None:
    """Raise ``DatasetError`` unless ``rows``, from row ``first`` on, are states of ``space``."""
    if not isinstance(space, spaces.Discrete):
        return
    bad = (rows < 0) | (rows >= space.n) | (rows != np.floor(rows))
    if bad.any():
        row = int(np.flatnonzero(bad.reshape(len(rows), -1).any(1))[0])
        raise source.error(
            name, f"expected states 0..{space.n - 1}, got {rows[row]} in row {first + row}."
        )


def check_actions(source: Source, actions: Array, space: Space[Any]) -> None:
    """Raise ``DatasetError`` unless ``actions``, [N] or [N, k], are of ``space``."""
    flat = actions.reshape(len(actions), -1)
    if isinstance(space, spaces.Discrete):
        expected, width = f"whole numbers 0..{space.n - 1}", 1
        low, high = np.zeros(1), np.full(1, space.n - 1)
    elif isinstance(space, spaces.Box):
        width = math.prod(space.shape)
        expected = f"{width} numbers from {space.low.tolist()} to {space.high.tolist()}"
        with np.errstate(invalid="ignore"):
            slack = BOUND_TOLERANCE * np.nan_to_num(space.high - space.low, posinf=0.0)
        low, high = (space.low - slack).ravel(), (space.high + slack).ravel()
    else:
        raise source.error("actions", f"the environment's actions are {space}, not supported")
    if flat.shape[1] != width:
        raise source.error(
            "actions",
            f"expected {expected}, as the environment takes, got {flat.shape[1]} numbers a row; is"
            " it a data set of another environment?",
        )
    bad = (flat < low) | (flat > high)
    if isinstance(space, spaces.Discrete):
        bad |= flat != np.floor(flat)
    if bad.any():
        row = int(np.flatnonzero(bad.any(1))[0])
        raise source.error(
            "actions",
            f"expected {expected}, as the environment takes, got {actions[row].tolist()} in row"
            f" {row}.",
        )


# ----------------------------------------------------------------------------------------- reading


def _blocks(column: Any) -> Iterator[slice]:
    """Yield slices that cover a column, each of whole chunks of the file."""
    row_bytes = max(1, math.prod(column.shape[1:]) * column.dtype.itemsize)
    chunk = (getattr(column, "chunks", None) or (1,))[0]
    step = max(1, BLOCK_BYTES // row_bytes // chunk) * chunk
    for start in range(0, column.shape[0], step):
        yield slice(start, min(start + step, column.shape[0]))


def _cast(source: Source, name: str, first: int, rows: Array, dtype: Any) -> Array:
    """Return ``rows``, from row ``first`` on, as ``dtype``; ``DatasetError`` if not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = np.asarray(rows).astype(dtype, copy=False)
    if cast.dtype.kind == "f" and not np.isfinite(cast).all():
        bad = int(np.flatnonzero(~np.isfinite(cast).reshape(len(cast), -1).all(1))[0])
        raise source.error(
            name,
            f"expected finite numbers (in float32), got {cast[bad].tolist()} in row {first + bad};"
            " remove that episode.",
        )
    return cast


def _column(source: Source, name: str, dtype: Any = np.float32) -> Array:
    """Return a whole column."""
    column = source.columns[name]
    whole = np.empty(column.shape, dtype)
    for block in _blocks(column):
        whole[block] = _cast(source, name, block.start, column[block], dtype)
    return whole


def _flags(source: Source, name: str) -> Array:
    """Return a column of flags; raise ``DatasetError`` if one is neither 0 nor 1."""
    column = source.columns[name]
    flags = np.empty(column.shape[0], bool)
    for block in _blocks(column):
        rows = np.asarray(column[block]).reshape(-1)
        bad = (rows != 0) & (rows != 1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise source.error(
                name, f"expected 0 or 1, got {rows[row]} in row {block.start + row}."
            )
        flags[block] = rows != 0
    return flags


def _ends(source: Source, env: Any, max_episode_steps: int | None) -> Ends:
    """Return where the episodes end."""
    if max_episode_steps is None:
        max_episode_steps = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    return find_ends(
        source.where,
        {name: _flags(source, name) for name in FLAGS if name in source.columns},
        source.label("terminals") in OLD_DONE,
        "next_observations" in source.columns,
        max_episode_steps,
    )


def _actions(source: Source, space: Any) -> Array:
    """Return the actions: [N] whole numbers, or [N, action_dim] floats."""
    whole = source.columns["actions"].dtype.kind in "iub"
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


def _dtype(column: Any) -> np.dtype[Any]:
    """Return the type in which observations stay."""
    if column.dtype == np.uint8 and len(column.shape) > 2:
        return np.dtype(np.uint8)
    one_number = len(column.shape) == 1 or tuple(column.shape[1:]) == (1,)
    return np.dtype(np.int64 if column.dtype.kind in "iu" and one_number else np.float32)


def _states(
    source: Source, ends: Ends, keep: Array, space: Any
) -> tuple[Array, Array, Array | None]:
    """Return observations, next observations, and where an episode breaks off unmarked.

    Without next observations, the next row's observation is taken; a row that terminated has its
    own.
    """
    column = source.columns["observations"]
    next_column = source.columns.get("next_observations")
    dtype = _dtype(column)
    shape = (int(keep.sum()), *column.shape[1:])
    states, next_states = np.empty(shape, dtype), np.empty(shape, dtype)
    marked = {"timeouts", "episode_terminals"} & set(source.columns)
    breaks = np.zeros(len(keep), bool) if next_column is not None and not marked else None
    done = 0
    last: Array | None = None
    for block in _blocks(column):
        stop = min(block.stop + (next_column is None), column.shape[0])
        rows = _cast(source, "observations", block.start, column[block.start : stop], dtype)
        if space is not None:
            check_state_numbers(source, "observations", rows, space, block.start)
        own = rows[: block.stop - block.start]
        if next_column is None:
            after = own.copy()
            after[: len(rows) - 1] = rows[1:]
            after[ends.terminated[block]] = own[ends.terminated[block]]
        else:
            after = _cast(source, "next_observations", block.start, next_column[block], dtype)
            if breaks is not None:
                _mark_breaks(breaks, block, own, after, last)
                last = after[-1]
        chosen = keep[block]
        count = int(chosen.sum())
        states[done : done + count] = own if count == len(own) else own[chosen]
        next_states[done : done + count] = after if count == len(own) else after[chosen]
        done += count
    return states, next_states, breaks


def _mark_breaks(breaks: Array, block: slice, own: Array, after: Array, last: Array | None) -> None:
    """Mark rows whose next observation is not the next row's observation.

    ``last`` is the last next observation of the block before.
    """
    flat, flat_after = own.reshape(len(own), -1), after.reshape(len(own), -1)
    breaks[block.start : block.stop - 1] = (flat_after[:-1] != flat[1:]).any(1)
    if last is not None:
        breaks[block.start - 1] = (last != own[0]).any()


def _report(
    source: Source,
    ends: Ends,
    keep: Array,
    dropped: dict[str, int],
    rewards: Array,
    breaks: Array | None,
) -> tuple[Report, Array]:
    """Return the report, and where the episodes end among the rows that are kept."""
    notes = []
    if ends.ignored:
        notes.append(
            f"{ends.ignored:,} terminal flags ignored where"
            f" {source.label('episode_terminals')} is not set"
        )
    if ends.on_limit:
        notes.append(
            f"{ends.on_limit:,} {source.label('terminals')} on the time limit read as time limits;"
            " name the field terminals if the episodes ended by themselves"
        )
    ended, ordered = ends.ended, True
    if breaks is not None:
        unmarked = breaks & ~ends.terminated
        ordered = unmarked.mean() < 0.5
        ended = ended | unmarked
        if not ordered:
            notes.append("rows are not in the order of time, so returns are unknown")
        elif unmarked.any():
            notes.append(f"{int(unmarked.sum()):,} unmarked ends found in next observations")
    returns = episode_returns(rewards, ended) if ordered else np.zeros(0)
    report = Report(
        where=source.where,
        rows=len(keep),
        kept=int(keep.sum()),
        dropped=dropped,
        notes=tuple(notes),
        episodes=len(returns),
        mean_return=float(returns.mean()) if len(returns) else None,
    )
    if keep.all():
        return report, ended
    last_kept = ended.copy()
    last_kept[:-1] |= ~keep[1:] & ended[1:]  # the row that ended the episode was dropped
    return report, last_kept[keep]
