"""What the benchmarks share: fresh processes, taken in turn; medians; facts about the machine.

Whatever is compared runs in a process of its own, with the same threads, and the contestants take
turns: a machine that gets busy slows all of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import venvs

RESULTS = Path(__file__).with_name("results")
SPEED = RESULTS / "speed.md"
PACKAGES = ("torch", "numpy", "gymnasium")

OURS = "agilerl"
PEERS = ("agilerl016", "sb3")

Report = dict[str, Any]


def run_module(
    module: str, arguments: Sequence[object], threads: int = 1, **variables: str
) -> Report:
    """Run ``python -m module arguments`` on so many threads, and return its last line, JSON."""
    env = {**os.environ, **variables}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        env[name] = str(threads)
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=env, cwd=venvs.ROOT, stdout=subprocess.PIPE, check=True)
    report: Report = json.loads(done.stdout.decode().splitlines()[-1])
    return report


def run_peer(peer: str, arguments: Sequence[object], threads: int = 1) -> Report:
    """Run the runner of another library in its own environment, and return what it reports."""
    return run_module(
        "benchmarks.peers", ["run", peer, "--threads", threads, *arguments], threads=threads
    )


def median_of(reports: Sequence[Report]) -> Report:
    """Return one report with the median of every number in ``reports``, inner dicts too."""
    first = reports[0]
    merged: Report = {}
    for key, value in first.items():
        values = [report[key] for report in reports]
        if isinstance(value, dict):
            merged[key] = median_of(values)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            merged[key] = statistics.median(values)
        else:
            merged[key] = value
    return merged


def ratio(a: float, b: float) -> str:
    """Return ``a / b`` for people."""
    return f"{a / b:.1f}x" if b else "-"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table: the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine() -> str:
    """Return one line on the processor, its load, and the versions of what was measured."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else []
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, load {load}"
        f" (1, 5, 15 min); Python {platform.python_version()}, {', '.join(versions)}"
    )


def add_flags(parser: argparse.ArgumentParser, rounds: int, seconds: float) -> None:
    """Add the flags that every benchmark takes."""
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of a turn")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {SPEED.name}")


def publish(title: str, body: str, write: bool, path: Path = SPEED) -> None:
    """Print a section of Markdown, and put it into ``path`` in place of the one of that title."""
    command = " ".join(["python -m", "benchmarks." + Path(sys.argv[0]).stem, *sys.argv[1:]])
    section = f"## {title}\n\n{body}\n\n`{command}`\n{machine()}\n"
    print(section)
    if not write:
        return
    path.parent.mkdir(exist_ok=True)
    text = path.read_text("utf-8") if path.is_file() else "# Speed\n"
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = [s.rstrip("\n") + "\n" for s in sections if not s.startswith(f"## {title}\n")]
    path.write_text("\n".join([head.rstrip("\n") + "\n", *kept, section]), "utf-8")
