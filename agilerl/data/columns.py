"""The columns of an offline data set: their names, and what must be true before they are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

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


class Source(NamedTuple):
    """Columns that were found but not read.

    Attributes:
        where: name of the file, for messages.
        columns: whatever has a shape, a dtype and slices, by canonical name.
        names: what each column is called there.
        attributes: what is known about the data.
    """

    where: str
    columns: Mapping[str, Any]
    names: Mapping[str, str]
    attributes: Mapping[str, Any]


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


def check_declared(source: Source) -> int:
    """Return the number of rows, after checking types, lengths and shapes; nothing is read.

    Raises:
        DatasetError: that names the column.
    """
    _check_types(source)
    rows = _check_lengths(source)
    _check_shapes(source, rows)
    return rows


def _check_types(source: Source) -> None:
    for name, column in source.columns.items():
        if column.dtype.kind not in NUMBERS:
            raise DatasetError(
                f"{source.where}: {source.names[name]}: expected numbers, got dtype"
                f" {column.dtype}; store it as float32 or integers."
            )
        if not column.shape:
            raise DatasetError(
                f"{source.where}: {source.names[name]}: expected one row a step, got one value."
            )


def _check_lengths(source: Source) -> int:
    where, columns, names, _ = source
    lengths = {names[name]: column.shape[0] for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        width = max(map(len, lengths))
        table = "\n".join(f"  {name:<{width}}  {rows:>12,}" for name, rows in lengths.items())
        raise DatasetError(
            f"{where}: {', '.join(lengths)}: expected the same number of rows, got\n{table}"
        )
    rows = int(columns["rewards"].shape[0])
    if rows == 0:
        raise DatasetError(f"{where}: {names['rewards']}: expected at least one row, got none.")
    return rows


def _check_shapes(source: Source, rows: int) -> None:
    where, names = source.where, source.names
    shapes = {name: column.shape for name, column in source.columns.items()}
    for name in ("rewards", *FLAGS):
        if name in shapes and shapes[name] not in ((rows,), (rows, 1)):
            raise DatasetError(
                f"{where}: {names[name]}: expected one number a row, got shape {shapes[name]}."
            )
    if len(shapes["actions"]) > 2:
        raise DatasetError(
            f"{where}: {names['actions']}: expected one action a row, [N] or [N, action_dim], got"
            f" shape {shapes['actions']}."
        )
    for name in ("observations", "actions"):
        if 0 in shapes[name]:
            raise DatasetError(
                f"{where}: {names[name]}: expected at least one number a row, got shape"
                f" {shapes[name]}."
            )
    following = shapes.get("next_observations", shapes["observations"])
    if following != shapes["observations"]:
        raise DatasetError(
            f"{where}: {names['next_observations']}: expected the shape of"
            f" {names['observations']}, {shapes['observations']}, got {following}."
        )


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an image [H, W, C] as [C, H, W]."""
    return (shape[-1], *shape[:-1])


def check_observation_shape(
    where: str, name: str, shape: tuple[int, ...], space: Space[Any], swap_channels: bool
) -> None:
    """Raise ``DatasetError`` unless rows of ``shape`` are observations of ``space``."""
    expected = tuple(space.shape or ())
    fitting = [expected]
    if expected in ((), (1,)):
        fitting = [(), (1,)]
    elif swap_channels and len(expected) == 3:
        fitting.append(channels_first(expected))
    if shape not in fitting:
        raise DatasetError(
            f"{where}: {name}: expected observations of shape {expected}, as the environment"
            f" gives, got {shape}; is it a data set of another environment?"
        )


def check_state_numbers(where: str, name: str, first: int, rows: Array, space: Space[Any]) -> None:
    """Raise ``DatasetError`` unless ``rows``, from row ``first`` on, are states of ``space``."""
    if not isinstance(space, spaces.Discrete):
        return
    bad = (rows < 0) | (rows >= space.n) | (rows != np.floor(rows))
    if bad.any():
        row = int(np.flatnonzero(bad.reshape(len(rows), -1).any(1))[0])
        raise DatasetError(
            f"{where}: {name}: expected states 0..{space.n - 1}, got {rows[row]} in row"
            f" {first + row}."
        )


def check_actions(where: str, name: str, actions: Array, space: Space[Any]) -> None:
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
        raise DatasetError(f"{where}: {name}: the environment's actions are {space}, not supported")
    if flat.shape[1] != width:
        raise DatasetError(
            f"{where}: {name}: expected {expected}, as the environment takes, got"
            f" {flat.shape[1]} numbers a row; is it a data set of another environment?"
        )
    bad = (flat < low) | (flat > high)
    if isinstance(space, spaces.Discrete):
        bad |= flat != np.floor(flat)
    if bad.any():
        row = int(np.flatnonzero(bad.any(1))[0])
        raise DatasetError(
            f"{where}: {name}: expected {expected}, as the environment takes, got"
            f" {actions[row].tolist()} in row {row}."
        )
