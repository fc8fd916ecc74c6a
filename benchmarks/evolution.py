"""What each kind of mutation is worth: populations from bad starts, with one kind switched off.

    python -m benchmarks.evolution --jobs 2          adds runs that are missing
    python -m benchmarks.evolution --write           writes evolution.md

Four agents start with a learning rate of 1e-5 and two layers of 8 units: too small, both of them.
All variants have the same starts, seeds, steps and selection (that of ``evolve()``, without
restarts); children change in one of four ways, each as likely, in one of the three that are left,
or not at all.  What counts is the mean return over 100 fresh episodes of the best agent that a run
found.  Every run is one line of ``evolution.jsonl``, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agilerl.runs.run_settings import evolution_of, settings_of
from benchmarks.hpo import interquartile_mean, interval, outcome, read
from benchmarks.timing import RESULTS, publish, table

#: The steps that a run is given, evaluation included.
TASKS = {"CartPole-v1": 60_000, "LunarLander-v3": 100_000}
KINDS = {
    "architecture": "ARCH_MUT",
    "parameters": "PARAMS_MUT",
    "activation": "ACT_MUT",
    "rl_hp": "RL_HP_MUT",
}
ALL, NONE = "all four", "none"
VARIANTS = (ALL, *(f"without {kind}" for kind in KINDS), NONE)
BAD_HP = {"LR": 1e-5}
BAD_NET = {"arch": "mlp", "h_size": [8, 8], "min_mlp_nodes": 8}
FILE = RESULTS / "evolution.jsonl"


def mutation_of(variant: str) -> dict[str, float]:
    """Return the relative probabilities of a variant."""
    on = {
        key: float(variant != NONE and variant != f"without {kind}") for kind, key in KINDS.items()
    }
    return {**on, "NO_MUT": float(variant == NONE), "RESTART": 0.0}


def one(variant: str, env: str, seed: int) -> dict[str, Any]:
    """Run one variant once; return what came out."""
    settings = settings_of(
        env, init_hp=BAD_HP, net_config=BAD_NET, mutation_params=mutation_of(variant)
    )
    settings |= {"seed": seed, "target": None, "steps": TASKS[env]}
    found = outcome(env, settings, evolution_of(settings))
    kept = {key: found[key] for key in ("elite", "total", "processor", "generations")}
    return {"variant": variant, "env": env, "seed": seed, **kept}


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
    returns = [run["elite"] for run in own]
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
    steps = ", ".join(f"{env} {count / 1000:g}k" for env, count in TASKS.items())
    note = (
        "Middle: interquartile mean over the seeds with a 95 % bootstrap interval, of the best"
        f" agent's mean return over 100 fresh episodes. Global steps given: {steps}."
    )
    head = ("environment", "mutations", "return", "each seed")
    body = f"{table(head, rows)}\n\n{note}"
    publish("What each kind of mutation is worth", body, options.write, RESULTS / "evolution.md")


if __name__ == "__main__":
    main()
