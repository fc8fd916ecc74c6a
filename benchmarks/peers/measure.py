"""What the runners share. It is run by a peer's own Python, so it knows nothing of this project."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

_report_to = 1  # a file descriptor


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the flags that every runner takes."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--env", default="LunarLander-v3", help="Gymnasium id")
    flags.add_argument("--seconds", type=float, default=20.0, help="length of the timed part")
    flags.add_argument("--threads", type=int, default=1, help="threads of torch and BLAS")
    flags.add_argument("--num-envs", type=int, default=16)
    flags.add_argument("--batch-size", type=int, default=256)
    flags.add_argument("--hidden", type=int, nargs="+", default=[32, 32], help="hidden sizes")
    flags.add_argument("--memory-size", type=int, default=10_000, help="full before the clock runs")
    flags.add_argument("--epsilon", type=float, default=0.1)
    return flags


def parse(flags: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, set the threads, and keep stdout for ``report`` alone.

    Whatever else a peer prints, through whatever handle, goes to stderr from now on.
    """
    parsed = flags.parse_args()
    torch.set_num_threads(parsed.threads)
    global _report_to
    _report_to = os.dup(1)
    os.dup2(2, 1)
    return parsed


class TimeUp(BaseException):
    """Ends a training loop that has no time limit of its own."""


class Meter:
    """Counts environment steps and learning steps, from a warm start to a deadline.

    The clock starts at the first ``step`` after ``warm_up`` learning steps; ``step`` raises
    ``TimeUp`` once ``seconds`` have gone by.
    """

    def __init__(self, seconds: float, warm_up: int = 100) -> None:
        self.seconds = seconds
        self.warm_up = warm_up
        self.learns = 0
        self.env_steps = 0
        self.elapsed = 0.0
        self.processor = 0.0
        self._start: tuple[float, float, int, int] | None = None

    def step(self, env_steps: int, learns: int = 0) -> None:
        """Record steps that were taken; raise ``TimeUp`` at the deadline."""
        self.env_steps += env_steps
        self.learns += learns
        if self._start is None:
            if self.learns >= self.warm_up:
                now = (time.perf_counter(), time.process_time())
                self._start = (*now, self.env_steps, self.learns)
            return
        self.elapsed = time.perf_counter() - self._start[0]
        self.processor = time.process_time() - self._start[1]
        if self.elapsed >= self.seconds:
            raise TimeUp

    def rates(self) -> dict[str, float]:
        """Return what happened between the start of the clock and the last ``step``.

        ``processor_seconds`` is the time of this process alone, without those it has started.
        """
        if self._start is None or not self.elapsed:
            raise RuntimeError("The clock never ran: the loop ended before the warm-up did.")
        env_steps, learns = self.env_steps - self._start[2], self.learns - self._start[3]
        return {
            "seconds": round(self.elapsed, 3),
            "processor_seconds": round(self.processor, 3),
            "env_steps": env_steps,
            "learns": learns,
            "env_steps_per_s": round(env_steps / self.elapsed, 1),
            "learns_per_s": round(learns / self.elapsed, 1),
        }


def milliseconds(call: Callable[[], object], seconds: float, chunk: int = 20) -> float:
    """Return what one ``call`` takes: the median over chunks of calls, within about ``seconds``.

    It is processor time of this process: on one thread and an idle machine the same as time on the
    clock, and on a busy one what the call itself costs.
    """
    for _ in range(chunk):
        call()
    means: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(means) < 3:
        start = time.process_time()
        for _ in range(chunk):
            call()
        means.append((time.process_time() - start) / chunk)
    return round(1000 * statistics.median(means), 4)


def settings(flags: argparse.Namespace) -> dict[str, Any]:
    """Return the flags that describe the work, for the report."""
    return {name: value for name, value in vars(flags).items() if name not in ("seconds", "micro")}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of these packages."""
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def say(line: dict[str, Any]) -> None:
    """Print one line of JSON to what was stdout."""
    os.write(_report_to, (json.dumps(line) + "\n").encode())


def report(peer: str, kind: str, packages: Iterable[str], **values: Any) -> None:
    """Print one line of JSON, with the versions and the load of the machine."""
    load = round(os.getloadavg()[0], 2)
    line = {"peer": peer, "kind": kind, **values, "versions": versions(packages)}
    say({**line, "load_1_min": load})
