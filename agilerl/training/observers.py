"""Observers of a run: the progress line, the history as CSV."""

from __future__ import annotations

import csv
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from agilerl.training.run import ENDLESS, Generation, Plan, RunObserver, clock
from agilerl.training.run_state import RunState

LINE_WIDTH = 79
#: Generations from whose best fitness the time to the target is foretold.
TREND = 6


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
        plan: of the run; the time left is that to its nearest limit, or to the target where the
            best fitness of the last generations rises fast enough to be there first.
        stream: where to write, by default stderr.
        exploration: epsilon by episode, if there is one.
    """

    def __init__(
        self,
        plan: Plan,
        stream: TextIO | None = None,
        exploration: Callable[[int], float] | None = None,
    ) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.plan, self.exploration = plan, exploration
        self.start = time.perf_counter()
        self.before = (0, 0, 0.0)
        self.last: Generation | None = None
        self.trend: deque[tuple[float, float]] = deque(maxlen=TREND)
        self.live = self.stream.isatty()
        self.bar = tqdm(file=self.stream, bar_format="{desc}", disable=not self.live)

    def begin(self, state: RunState) -> None:
        """Note where the run stands: rates are those since then."""
        self.before = (state.episode, state.global_steps, state.seconds)
        self.start = time.perf_counter()

    def left(self, episode: int, global_steps: int) -> float | None:
        """Return the seconds until the first limit of the plan, at the rate so far; None: none."""
        plan, elapsed = self.plan, time.perf_counter() - self.start
        limits = (
            (plan.n_episodes if plan.n_episodes < ENDLESS else None, self.before[0], episode),
            (plan.total_steps, self.before[1], global_steps),
            (plan.time_limit, 0.0, elapsed),
        )
        times = [
            elapsed * (limit - now) / max(now - before, 1e-9)
            for limit, before, now in limits
            if limit is not None
        ]
        if (goal := self.until_target()) is not None:
            times.append(goal)
        return max(min(times), 0.0) if times else None

    def until_target(self) -> float | None:
        """Return the seconds until the best fitness reaches the target, if it goes on rising so.

        None where it does not rise, or should have been there by now.
        """
        if self.plan.target is None or len(self.trend) < TREND:
            return None
        seconds, fitness = np.array(self.trend).T
        if not np.isfinite(fitness).all() or np.ptp(seconds) == 0:
            return None
        rise = float(np.polyfit(seconds - seconds[0], fitness, 1)[0])
        missing = self.plan.target - float(fitness.mean())
        now = self.before[2] + time.perf_counter() - self.start
        left = missing / rise - (now - float(seconds.mean())) if rise > 0 else 0.0
        return left if left > 0 else None

    def line(self, episode: int, global_steps: int) -> str:
        """Return the progress line."""
        rate = (global_steps - self.before[1]) / max(time.perf_counter() - self.start, 1e-9)
        left = self.left(episode, global_steps)
        of = f"/{self.plan.n_episodes}" if self.plan.n_episodes < ENDLESS else ""
        line = f"ep {episode}{of} {short(global_steps)} steps"
        tail = f"  {short(rate)}/s" + ("" if left is None else f"  left {clock(left)}")
        for part in self.parts(episode):
            if len(line) + len(part) + len(tail) <= LINE_WIDTH:
                line += part
        return line[: LINE_WIDTH - len(tail)] + tail

    def parts(self, episode: int) -> list[str]:
        """Return what there is to say of the population, the most important first."""
        if self.last is None:
            return ["  first evaluation pending"]
        best, target = self.last.best, self.plan.target
        goal = "" if target is None else f"/{target:g}"
        mean = sum(self.last.fitnesses) / len(self.last.fitnesses)
        parts = [f"  best {self.last.best_fitness:.1f}{goal}", f" mean {mean:.1f}"]
        if self.exploration is not None:
            parts.append(f"  eps {self.exploration(episode):.2f}")
        parts += [f"  lr {best.lr:.0e}"] if hasattr(best, "lr") else []
        parts += [f" b{best.batch_size}"]
        return parts + [f" {word}" for word in str(getattr(best, "architecture", "")).split()[:1]]

    def after_episode(self, state: RunState, ending: bool) -> None:
        """Show that an episode is over."""
        if self.live:
            self.bar.set_description_str(self.line(state.episode, state.global_steps))

    def __call__(self, generation: Generation) -> None:
        """Show a generation."""
        self.last = generation
        self.trend.append((generation.seconds, generation.best_fitness))
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
