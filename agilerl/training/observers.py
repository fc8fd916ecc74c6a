"""Observers of a run: the progress line, the history as CSV."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from agilerl.training.run import Generation, RunObserver, RunState, clock

LINE_WIDTH = 79


def short(count: float) -> str:
    """Return a count in at most five characters: 950, 12.3k, 1.25M."""
    for size, unit, digits in ((1e9, "G", 2), (1e6, "M", 2), (1e3, "k", 1)):
        if count >= size:
            return f"{count / size:.{digits}f}{unit}"
    return f"{count:.0f}"


class Progress(RunObserver):
    """One line that says where a run stands, at most 79 characters wide.

    On a terminal it is rewritten in place after each episode; elsewhere one line is printed for
    each generation.

    Args:
        n_episodes: episodes at most.
        stream: where to write, by default stderr.
    """

    def __init__(self, n_episodes: int, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.n_episodes = n_episodes
        self.start = time.perf_counter()
        self.last: Generation | None = None
        self.live = self.stream.isatty()
        self.bar = tqdm(
            total=n_episodes, file=self.stream, bar_format="{desc}", disable=not self.live
        )

    def line(self, episode: int, global_steps: int) -> str:
        """Return the progress line."""
        elapsed = time.perf_counter() - self.start
        left = clock(elapsed / max(episode, 1) * (self.n_episodes - episode))
        head = f"ep {episode}/{self.n_episodes}  {short(global_steps)} steps"
        if self.last is None:
            return f"{head}  first evaluation pending  ETA {left}"[:LINE_WIDTH]
        best = self.last.best
        mean = sum(self.last.fitnesses) / len(self.last.fitnesses)
        fitness = f"best {self.last.best_fitness:.1f} mean {mean:.1f}"
        details = [f"{n} {v:.0e}" for n, v in (("lr", getattr(best, "lr", None)),) if v is not None]
        details += [f"b{best.batch_size}", *str(getattr(best, "architecture", "")).split()[:1]]
        tail = f"  ETA {left}"
        middle = f"{head}  {fitness}  {' '.join(details)}"
        return middle[: LINE_WIDTH - len(tail)] + tail

    def after_episode(self, state: RunState, ending: bool) -> None:
        """Show that an episode is over."""
        if self.live:
            self.bar.n = state.episode
            self.bar.set_description_str(self.line(state.episode, state.global_steps))

    def __call__(self, generation: Generation) -> None:
        """Show a generation."""
        self.last = generation
        line = self.line(generation.episode, generation.global_steps)
        if self.live:
            self.bar.set_description_str(line)
        else:
            print(line, file=self.stream, flush=True)

    def close(self, state: RunState, message: str) -> None:
        """Leave the last line and print how the run ended."""
        self.bar.close()
        print(message, file=self.stream, flush=True)


class CSVLogger:
    """Writes ``history.csv``: one row for each agent and generation, flushed at once."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] | None = None

    def __call__(self, generation: Generation) -> None:
        """Append the rows of a generation."""
        rows = generation.rows
        new = self._columns is None
        if self._columns is None:
            self._columns = list(rows[0])
        with self.path.open("w" if new else "a", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            if new:
                writer.writeheader()
            writer.writerows(rows)
