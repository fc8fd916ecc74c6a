"""What selection is worth offline: the same population with it and without, on random data.

    python -m benchmarks.offline_selection --seeds 100 101 102 103 104 --jobs 2 --write

Four CQN agents learn from 100,000 random CartPole steps, from the same blind starts: once as
``evolve(dataset=...)`` trains them, once with nobody replaced, so that the best of four fixed
settings is what counts.  Both end when the target is confirmed by 100 fresh episodes, or after so
many episodes of 250 learn calls of each agent.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from agilerl.runs.evolve import trained
from agilerl.runs.run_settings import OFFLINE_SCHEDULE, evolution_of, settings_of
from benchmarks.hpo import interquartile_mean, interval
from benchmarks.offline import ENV, RESULT, data_file
from benchmarks.timing import publish, table

TARGET, EPISODES = 475.0, 100
CALLS = OFFLINE_SCHEDULE["max_steps"]
VARIANTS = ("evolve", "fixed settings")


def one(variant: str, seed: int) -> dict[str, Any]:
    """Run one variant once, in this process; return what came out."""
    settings = settings_of(ENV, dataset=data_file("cartpole_random_v1.1.0.h5"))
    settings |= {"seed": seed, "target": TARGET, "steps": None}
    evolution = evolution_of(settings) if variant == "evolve" else (None, None)
    last: list[Any] = []
    watch = [last.append, lambda generation: generation.episode >= EPISODES]
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        run = trained(ENV, settings, path, None, 0, False, False, watch, evolution)
    return {
        "variant": variant,
        "seed": seed,
        "solved": last[-1].solved,
        "calls": CALLS * last[-1].episode,
        "elite": run.evaluation.mean,
        "processor": round(time.process_time() - start, 1),
    }


def job(arguments: tuple[str, int]) -> dict[str, Any]:
    """Run one variant once, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.offline_selection", "--one"]
    command += list(map(str, arguments))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def line(variant: str, runs: list[dict[str, Any]]) -> list[object]:
    """Return the line of a variant."""
    own = [run for run in runs if run["variant"] == variant]
    calls = [run["calls"] / 1000 for run in own]
    low, high = interval(calls)
    return [
        variant,
        f"{sum(run['solved'] for run in own)} of {len(own)}",
        f"{interquartile_mean(calls):.1f}k ({low:.1f}k to {high:.1f}k)",
        ", ".join(f"{run['calls'] / 1000:g}k{'' if run['solved'] else 'x'}" for run in own),
        ", ".join(f"{run['elite']:.0f}" for run in own),
        f"{sum(run['processor'] for run in own) / len(own):.0f}",
    ]


def main() -> None:
    """Run both variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103, 104])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULT.name}")
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "SEED"))
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]))))
        return
    jobs = [(variant, seed) for seed in options.seeds for variant in VARIANTS]
    data_file("cartpole_random_v1.1.0.h5")
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(job, jobs))
    head = ("population", "solved", "learn calls", "each seed", "elites", "processor s")
    note = (
        "Learn calls of each agent to the confirmed target (475), interquartile mean with a 95 %"
        f" bootstrap interval; x was not solved in {CALLS * EPISODES:,}, and counts with all of"
        " them. Elites: mean return over 100 fresh episodes."
    )
    body = f"{table(head, [line(variant, runs) for variant in VARIANTS])}\n\n{note}"
    publish("What selection is worth, random data", body, options.write, RESULT)


if __name__ == "__main__":
    main()
