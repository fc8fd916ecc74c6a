"""How long ``demo_online.py`` takes to solve its environment, over several seeds.

    python -m benchmarks.solve --seeds 0 1 2 3 4 --write

Each seed is one run of the demo from the command line.  Afterwards the elite is loaded from its
checkpoint and plays 100 fresh episodes of full length.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agilerl.algorithms import AGENTS
from agilerl.training.report import load_elite, returns_of
from benchmarks.timing import RESULTS, publish, table

ROOT = Path(__file__).parents[1]


def solve(env: str, seed: int, minutes: float) -> dict[str, float]:
    """Run the demo once and return what came out."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "demo_online.py", "--env", env, "--seed", str(seed)]
        start = time.perf_counter()
        subprocess.run([*command, "--out", folder], check=True, timeout=minutes * 60)
        seconds = time.perf_counter() - start
        (run,) = Path(folder).iterdir()
        with (run / "history.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        agent, summary = load_elite(run, AGENTS)
        returns = returns_of(agent, summary, 100, seed=10_000 + seed)
        return {
            "seed": seed,
            "steps": float(last["global_steps"]),
            "seconds": seconds,
            "mean": float(returns.mean()),
            **summary["hyperparameters"],
            "architecture": summary["architecture"],
        }


HEAD = ("seed", "global steps", "minutes", "mean of 100 episodes", "lr", "batch", "network")


def lines(rows: list[dict[str, float]]) -> list[list[object]]:
    """Return the runs as lines of a table, their medians last."""
    shown: list[list[object]] = [
        [
            r["seed"],
            f"{r['steps']:,.0f}",
            f"{r['seconds'] / 60:.1f}",
            f"{r['mean']:.1f}",
            f"{r['lr']:.1e}",
            r["batch_size"],
            r["architecture"],
        ]
        for r in rows
    ]
    minutes = statistics.median(r["seconds"] for r in rows) / 60
    steps = statistics.median(r["steps"] for r in rows)
    return [*shown, ["median", f"{steps:,.0f}", f"{minutes:.1f}", "", "", "", ""]]


def main() -> None:
    """Run the seeds one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="LunarLander-v3")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=15, help="at most, for each seed")
    parser.add_argument("--write", action="store_true", help="keep the result in solve.md")
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        rows.append(solve(options.env, seed, options.minutes))
        print(table(HEAD, lines(rows)), flush=True)
    note = (
        "The mean is that of the elite, loaded from its checkpoint, over 100 fresh episodes of full"
        " length. Global steps are those of all agents, evaluation included."
    )
    body = f"{table(HEAD, lines(rows))}\n\n{note}"
    publish(f"{options.env}, solved by demo_online.py", body, options.write, RESULTS / "solve.md")


if __name__ == "__main__":
    main()
