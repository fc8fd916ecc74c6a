"""What each kind of mutation is worth: populations from bad starts, with one kind switched off.

    python -m benchmarks.evolution --seeds 0 1 2 3 4 --jobs 2      adds runs that are missing
    python -m benchmarks.evolution --write                         writes evolution.md

A population as ``evolve()`` has it, but all agents start from the same bad settings, and no child
begins anew: what is bad stays so, unless a mutation changes it.  All variants have the same
starts, seeds and steps; a child changes in one of four ways, each as likely, in one of the three
that are left, or not at all.  What counts is the best agent's mean return over 100 fresh episodes
at the end.  Every run is one line of ``evolution.jsonl``, so that an interrupted benchmark goes on.
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
from agilerl.runs.run_settings import settings_of
from benchmarks.hpo import interquartile_mean, interval, read
from benchmarks.timing import RESULTS, publish, table

#: Steps of all agents, evaluation included.
TASKS = {"CartPole-v1": 100_000, "LunarLander-v3": 200_000}
#: Low in everything, with a small network: it learns, but slowly.
START = {"LR": 1e-4, "BATCH_SIZE": 32, "LEARN_STEP": 2, "TAU": 3e-3}
UNITS = [16, 16]
KINDS = {
    "architecture": "ARCH_MUT",
    "parameters": "PARAMS_MUT",
    "activation": "ACT_MUT",
    "rl_hp": "RL_HP_MUT",
}
ALL, NONE = "all four", "none"
VARIANTS = (ALL, *(f"without {kind}" for kind in KINDS), NONE)
FILE = RESULTS / "evolution.jsonl"


def settings(variant: str, env: str, seed: int) -> dict[str, Any]:
    """Return the settings of a run."""
    on = {key: float(variant not in (NONE, f"without {kind}")) for kind, key in KINDS.items()}
    found = settings_of(
        env,
        init_hp=START,
        net_config={"arch": "mlp", "h_size": UNITS},
        mutation_params={**on, "NO_MUT": float(variant == NONE), "RESTART": 0.0},
    )
    return {**found, "seed": seed, "target": None, "steps": TASKS[env]}


def one(variant: str, env: str, seed: int) -> dict[str, Any]:
    """Run one variant once; return what came out."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings(variant, env, seed)
        run = trained(env, chosen, Path(folder) / "run", None, 0, False, False, [])
    return {
        "variant": variant,
        "env": env,
        "seed": seed,
        "return": run.evaluation.mean,
        "settings": {name: getattr(run.elite, name.lower()) for name in START},
        "network": run.elite.architecture,
        "processor": round(time.process_time() - start, 1),
    }


def add_missing(options: argparse.Namespace) -> None:
    """Make the runs that are not in the file yet, several at a time, and add each as it ends."""
    there = {(run["variant"], run["env"], run["seed"]) for run in read(FILE)}
    jobs = [
        (variant, env, seed)
        for seed in options.seeds
        for env in options.envs
        for variant in VARIANTS
        if (variant, env, seed) not in there
    ]

    def work(job: tuple[str, str, int]) -> None:
        command = [sys.executable, "-m", "benchmarks.evolution", "--one", *map(str, job)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        with FILE.open("a") as file:
            file.write(done.stdout.splitlines()[-1] + "\n")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, jobs))


def line(variant: str, env: str, runs: list[dict[str, Any]]) -> list[object]:
    """Return the line of a variant in an environment."""
    own = sorted(
        (run for run in runs if (run["variant"], run["env"]) == (variant, env)),
        key=lambda run: run["seed"],
    )
    returns = [run["return"] for run in own]
    low, high = interval(returns)
    middle = f"{interquartile_mean(returns):.0f} ({low:.0f} to {high:.0f})"
    return [env, variant, middle, ", ".join(f"{value:.0f}" for value in returns)]


def main() -> None:
    """Add runs, and print the table of those that there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--write", action="store_true", help="keep the result in evolution.md")
    parser.add_argument("--one", nargs=3, metavar=("VARIANT", "ENV", "SEED"))
    options = parser.parse_args()
    if options.one:
        variant, env, seed = options.one
        print(json.dumps(one(variant, env, int(seed))))
        return
    add_missing(options)
    runs = read(FILE)
    there = {(run["variant"], run["env"]) for run in runs}
    rows = [line(v, env, runs) for env in TASKS for v in VARIANTS if (v, env) in there]
    steps = ", ".join(f"{count:,} on {env}" for env, count in TASKS.items())
    start = ", ".join(f"{name} {value:g}" for name, value in START.items())
    note = (
        "Interquartile mean over the seeds with a 95 % bootstrap interval, of the best agent's"
        f" mean return over 100 fresh episodes. Global steps: {steps}. All agents start from"
        f" {start} and {UNITS} units; rl_hp moves all of LR, BATCH_SIZE, LEARN_STEP and TAU."
    )
    head = ("environment", "mutations", "return", "each seed")
    body = f"{table(head, rows)}\n\n{note}"
    publish("What each kind of mutation is worth", body, options.write, RESULTS / "evolution.md")


if __name__ == "__main__":
    main()
