"""What became of the rows of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from agilerl.data.columns import Source
from agilerl.data.episodes import Ends, episode_returns

Array = np.ndarray[Any, np.dtype[Any]]


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


def make_report(
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
            f" {source.names['episode_terminals']} is not set"
        )
    if ends.on_limit:
        notes.append(
            f"{ends.on_limit:,} {source.names['terminals']} on the time limit taken for its doing;"
            " name them terminals if they are not"
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
