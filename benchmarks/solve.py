"""How long ``demo_online.py`` takes to solve its environment, over several seeds.

    python -m benchmarks.solve --seeds 0 1 2 3 4 --jobs 2 --write

Each seed is one run of the demo from the command line.  Afterwards the elite is loaded from its
checkpoint and plays 100 fresh episodes of full length.  ``--runs`` reads the folders of runs that
were made before.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from agilerl.runs.evaluation import evaluate
from agilerl.runs.run_folder import SETTINGS, environment_of, load_elite, read_yaml
from benchmarks.timing import RESULTS, publish, table

ROOT = Path(__file__).parents[1]
HEAD = ("seed", "global steps", "minutes", "mean of 100 episodes", "lr", "batch", "network")
NOTE = (
    "The mean is that of the elite, loaded from its checkpoint, over 100 fresh episodes of full"
    " length. Global steps are those of all agents, evaluation included."
)


def demo(env: str, seed: int, folder: str) -> None:
    """Run the demo once, its run folder going into ``folder``."""
    command = [sys.executable, ROOT / "demo_online.py", "--env", env, "--seed", str(seed)]
    subprocess.run([*command, "--out", folder], check=True)


def summary_of(run: Path) -> dict[str, Any]:
    """Return what came out of one run, its elite tested anew."""
    with (run / "history.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    agent, settings = load_elite(run), read_yaml(run, SETTINGS)
    return {
        "seed": settings["seed"],
        "steps": float(last["global_steps"]),
        "minutes": float(last["seconds"]) / 60,
        "mean": evaluate(agent, environment_of(run), seed=10_000 + settings["seed"]).mean,
        **agent.hyperparameters,
        "architecture": agent.architecture,
    }


def lines(rows: Sequence[dict[str, Any]]) -> list[list[object]]:
    """Return the runs as lines of a table, their medians last."""
    shown: list[list[object]] = [
        [
            row["seed"],
            f"{row['steps']:,.0f}",
            f"{row['minutes']:.1f}",
            f"{row['mean']:.1f}",
            f"{row['lr']:.1e}",
            row["batch_size"],
            row["architecture"],
        ]
        for row in rows
    ]
    steps, minutes = (statistics.median(row[key] for row in rows) for key in ("steps", "minutes"))
    return [*shown, ["median", f"{steps:,.0f}", f"{minutes:.1f}", "", "", "", ""]]


def main() -> None:
    """Run the seeds, or read earlier runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="LunarLander-v3")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--runs", type=Path, nargs="+", help="folders of earlier runs")
    parser.add_argument("--write", action="store_true", help="keep the result in solve.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not options.runs:
            with ThreadPoolExecutor(options.jobs) as pool:
                list(pool.map(lambda seed: demo(options.env, seed, folder), options.seeds))
        runs = options.runs or Path(folder).iterdir()
        rows = sorted(map(summary_of, runs), key=lambda row: row["seed"])
    title = f"{options.env}, solved by demo_online.py"
    body = f"{table(HEAD, lines(rows))}\n\n{NOTE}"
    publish(title, body, options.write, RESULTS / "solve.md")


if __name__ == "__main__":
    main()
