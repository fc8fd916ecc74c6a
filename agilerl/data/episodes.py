"""Where the episodes of a data set end, and which of its rows are whole transitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agilerl.errors import DatasetError

Array = np.ndarray[Any, np.dtype[Any]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Ends:
    """The ends of episodes, one flag a row.

    Attributes:
        terminated: the episode ended by itself here.
        ended: this is the last row of an episode, for whatever reason.
        ignored: terminal flags that do not count, because ``episode_terminals`` is not set there.
        on_limit: flags of ``dones`` that are taken as time limits, because they fall on it.
    """

    terminated: Flags
    ended: Flags
    ignored: int = 0
    on_limit: int = 0


def at_time_limit(terminated: Flags, max_episode_steps: int) -> Flags:
    """Return where an episode reaches its time limit, counting from the last end."""
    cut = np.zeros_like(terminated)
    start = 0
    for end in (*np.flatnonzero(terminated).tolist(), len(terminated)):
        cut[start + max_episode_steps - 1 : end : max_episode_steps] = True
        start = end + 1
    return cut


def on_time_limit(done: Flags, max_episode_steps: int) -> Flags:
    """Return where an episode is done on the very row on which its time is up."""
    last = np.flatnonzero(done)
    lengths = np.diff(last, prepend=-1)
    flags = np.zeros_like(done)
    flags[last[lengths % max_episode_steps == 0]] = True
    return flags


def find_ends(
    where: str,
    flags: Mapping[str, Flags],
    old_done: bool = False,
    has_next: bool = False,
    max_episode_steps: int | None = None,
) -> Ends:
    """Return the ends that the flag columns describe.

    * ``terminals`` and ``episode_terminals``: an episode terminated where both are set, and was
      cut where only ``episode_terminals`` is.  A terminal flag alone ends nothing.
    * ``timeouts``: the episode was cut; where ``terminals`` is set too, it terminated.
    * Neither of the two, nor next observations: episodes of ``max_episode_steps`` rows were cut.

    Args:
        where: name of the file, for messages.
        flags: the columns by name.
        old_done: ``terminals`` was called ``dones``, which is set at time limits too: where only
            that is there, an episode that is done on the very row of the limit was cut.
        has_next: the rows have next observations, so that nothing can be joined wrongly.
        max_episode_steps: time limit of the environment, where it is known.

    Raises:
        DatasetError: if nothing says where episodes end.
    """
    timeouts, episode_ends = flags.get("timeouts"), flags.get("episode_terminals")
    terminals = flags.get("terminals")
    if terminals is None:
        terminals = flags["episode_terminals"] & ~flags["timeouts"]
    elif old_done and timeouts is not None:
        terminals = terminals & ~timeouts
    if episode_ends is not None:
        terminated = terminals & episode_ends
        ended = episode_ends if timeouts is None else episode_ends | timeouts
        return Ends(terminated, ended, int((terminals & ~episode_ends).sum()))
    if timeouts is not None:
        return Ends(terminals, terminals | timeouts)
    if old_done and max_episode_steps is not None:
        cut = on_time_limit(terminals, max_episode_steps)
        terminated = terminals & ~cut
        more = terminals if has_next else terminals | at_time_limit(terminals, max_episode_steps)
        return Ends(terminated, more, on_limit=int(cut.sum()))
    if has_next:
        return Ends(terminals, terminals)
    if max_episode_steps is not None:
        return Ends(terminals, terminals | at_time_limit(terminals, max_episode_steps))
    if len(terminals) > 1 and not terminals.any():
        raise DatasetError(
            f"{where}: terminals: never set, and there are neither timeouts, episode_terminals nor"
            " next_observations: no way to tell where episodes end. Add one of them, or pass"
            " max_episode_steps."
        )
    return Ends(terminals, terminals)


def whole_transitions(ends: Ends, has_next: bool) -> tuple[Flags, dict[str, int]]:
    """Return which rows have a known successor (or need none), and why the others are dropped."""
    if has_next:
        return np.ones(len(ends.ended), bool), {}
    keep = ends.terminated | ~ends.ended
    dropped = {"cut by a time limit, next observation unknown": int((~keep).sum())}
    if not ends.ended[-1]:
        keep[-1] = False
        dropped["last row, next observation unknown"] = 1
    return keep, {reason: count for reason, count in dropped.items() if count}


def episode_returns(rewards: Array, ended: Flags) -> Array:
    """Return the undiscounted returns of the whole episodes; an unfinished last one is left out."""
    last = np.flatnonzero(ended)
    if not len(last):
        return np.zeros(0)
    starts = np.concatenate([[0], last[:-1] + 1])
    return np.add.reduceat(rewards[: last[-1] + 1], starts, dtype=np.float64)
