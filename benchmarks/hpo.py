"""From a blind start to a solved environment: ours and what it is made of, and what others do.

    python -m benchmarks.hpo --seeds 100 101 102 --jobs 2        adds runs that are missing
    python -m benchmarks.hpo --systems sb3_optuna sb3_tuned --seeds 100    those of the peer
    python -m benchmarks.hpo --write                             writes hpo.md and the picture

The first three are the same population with the same starts, from the same ranges, which shares its
experience: what differs is what replaces agents.  ``ours`` is ``evolve()`` with its defaults;
``pbt`` replaces the worst quarter at every evaluation, whatever the noise, by children whose
settings are all moved or drawn anew, as Jaderberg et al. (2017); ``unselected`` replaces nobody.
``random_search`` is four agents from the same ranges, each alone with its own experience, side by
side until the first has solved the environment.  ``sb3_optuna`` is the DQN of stable-baselines3,
tuned by Optuna in the space of RL Zoo; ``sb3_tuned`` is one agent with the settings that RL Zoo has
found for the environment, begun anew with another seed where it fails: what there is to gain by
knowing them (``peers/run_sb3_optuna.py``).

Steps are those of all agents, evaluation and failed confirmations included, until the confirmation
that held begins; processor seconds end with it, before what ``evolve()`` does afterwards (100
episodes more, the pictures).  A run that does not solve its environment counts with all that it was
given; one of the peer whose processor seconds were up, with what it had used, which says "at
least".  Every run is one line of ``hpo.jsonl``, so that an interrupted benchmark goes on; a run
that ``--limit`` ends has no line, and is made again.  Seeds below 100 were used for tuning; those
from 100 on are reported.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from agilerl.hpo.selection import Selection, child_of, scores_of
from agilerl.runs.evolve import trained
from agilerl.runs.run_settings import evolution_of, mutations_of, settings_of
from agilerl.seeding import derive, generator
from benchmarks.peers import venvs
from benchmarks.timing import RESULTS, publish, table

#: Target, and the steps that a run is given.
TASKS = {
    "LunarLander-v3": (200.0, 700_000),
    "Pendulum-v1": (-200.0, 200_000),
    "CartPole-v1": (475.0, 300_000),
    "Acrobot-v1": (-90.0, 300_000),
}
OWN = ("ours", "pbt", "unselected", "random_search")
#: What the peers are given: steps of all trials, training steps of one trial, processor seconds.
#: Trials with tuned settings have the length that RL Zoo gives them.
PEER_TASKS = {
    "sb3_optuna": {
        "LunarLander-v3": (5_000_000, 100_000, 1_300),
        "CartPole-v1": (2_000_000, 50_000, 400),
        "Acrobot-v1": (2_000_000, 50_000, 360),
    },
    "sb3_tuned": {
        "LunarLander-v3": (5_000_000, 100_000, 700),
        "Pendulum-v1": (1_000_000, 20_000, 700),
        "CartPole-v1": (2_000_000, 50_000, 400),
        "Acrobot-v1": (2_000_000, 100_000, 400),
    },
}
SYSTEMS = (*OWN, *PEER_TASKS)
#: What plain population based training does to a child: all settings are moved, or drawn anew.
PLAIN = {"ARCH_MUT": 0.0, "RL_HP_MUT": 1.0, "PERTURB_ALL": True, "RESTART": 0.0}
FILE = RESULTS / "hpo.jsonl"
FIRST_REPORTED = 100


class PlainTruncation(Selection):
    """The worst quarter become children of the best quarter, whatever the noise."""

    def __init__(self, population_size: int, seed: int) -> None:
        super().__init__(population_size, 1, generator(seed, "plain"))
        self.last_index = population_size - 1

    def select(self, pop: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Return the elite and the next generation, fittest first."""
        order = np.argsort(-scores_of(pop, 1), kind="stable")
        count = max(1, len(pop) // 4)
        new_pop = [child_of(pop[i], pop[i].index, elite=True) for i in order[:-count]]
        for _ in range(count):
            self.last_index += 1
            parent = pop[order[int(self.rng.integers(count))]]
            new_pop.append(child_of(parent, self.last_index, elite=False))
        return pop[order[0]], new_pop


def one(system: str, env: str, seed: int, steps: int) -> dict[str, Any]:
    """Run one system once, in this process; return what came out."""
    settings = settings_of(env)
    settings |= {"seed": seed, "target": TASKS[env][0], "steps": steps}
    facts = {"system": system, "env": env, "seed": seed, "given": steps}
    if system == "random_search":
        return {**facts, **side_by_side(env, settings)}
    evolution: tuple[Any, Any] = None, None
    if system == "pbt":
        settings["schedule"] = {**settings["schedule"], "select_every": 1}
        settings["mutation_params"] = {**settings["mutation_params"], **PLAIN}
        count = settings["init_hp"]["POP_SIZE"]
        evolution = PlainTruncation(count, seed), mutations_of(settings, seed)
    elif system == "ours":
        evolution = evolution_of(settings)
    return {**facts, **outcome(env, settings, evolution)}


def outcome(env: str, settings: dict[str, Any], evolution: tuple[Any, Any]) -> dict[str, Any]:
    """Train once and return what came out."""
    ends: list[tuple[Any, float]] = []
    start = time.process_time()

    def note(generation: Any) -> None:
        ends.append((generation, time.process_time() - start))

    with tempfile.TemporaryDirectory() as folder:
        run = trained(env, settings, Path(folder) / "run", None, 0, False, False, [note], evolution)
    end, seconds = ends[-1]
    return {
        "solved": end.solved,
        "steps": end.global_steps - (end.check_steps if end.solved else 0),
        "total": end.global_steps,
        "processor": round(seconds, 1),
        "check": end.check,
        "elite": run.evaluation.mean,
        "generations": end.number + 1,
    }


def side_by_side(env: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train single agents and return what came out if they had gone on side by side.

    One after the other they get their share of the steps, or what the fastest so far has taken: by
    then all have taken as many.  Processor time that one has spent beyond that is taken off, in
    proportion.
    """
    count = settings["init_hp"]["POP_SIZE"]
    alone = {**settings, "init_hp": {**settings["init_hp"], "POP_SIZE": 1}}
    share, trials = settings["steps"] // count, []
    for number in range(count):
        alone |= {"steps": share, "seed": derive(settings["seed"], "trial", number)}
        trials.append(outcome(env, alone, (None, None)))
        share = min(share, trials[-1]["steps"])
    solved = [trial for trial in trials if trial["solved"]]
    best = min(solved, key=itemgetter("steps")) if solved else max(trials, key=itemgetter("elite"))
    spent = [trial["processor"] * min(1, best["steps"] / trial["steps"]) for trial in trials]
    totals = {key: sum(trial[key] for trial in trials) for key in ("total", "generations")}
    return {**best, **totals, "steps": count * best["steps"], "processor": round(sum(spent), 1)}


def read(path: Path) -> list[dict[str, Any]]:
    """Return the runs that there are."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def command_of(
    system: str, env: str, seed: int, given: int | None
) -> tuple[list[str], dict[str, str]]:
    """Return the command of one run and its environment variables."""
    if system not in PEER_TASKS:
        steps = given or TASKS[env][1]
        command = [sys.executable, "-m", "benchmarks.hpo", "--one", system, env, str(seed)]
        return [*command, str(steps)], {**os.environ, "OMP_NUM_THREADS": "1"}
    steps, trial_steps, seconds = PEER_TASKS[system][env]
    flags = {"seed": seed, "target": TASKS[env][0], "trial-steps": trial_steps}
    flags["steps"] = given or steps
    flags["limit"] = seconds
    arguments = ["--env", env, *(f"--{name}={value}" for name, value in flags.items())]
    if system == "sb3_tuned":
        arguments.append("--tuned")
    return venvs.command_of("sb3_optuna", arguments, threads=1)


def run(system: str, env: str, seed: int, given: int | None, limit: float) -> dict[str, Any] | None:
    """Run one system once, in a process of its own; return what came out, if time allowed it."""
    command, variables = command_of(system, env, seed, given)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)
    try:
        output, _ = process.communicate(timeout=None if math.isinf(limit) else limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"{system}, {env}, seed {seed}: ended by --limit, not counted", file=sys.stderr)
        return None
    return dict(json.loads(output.splitlines()[-1]))


def steps_of(run: dict[str, Any]) -> int:
    """Return the steps that a run counts with: to the target, or all that it had."""
    return int(run["steps"] if run["solved"] or run.get("cut") else run["given"])


def seconds_of(run: dict[str, Any]) -> float:
    """Return the processor seconds of a run."""
    return float(run["processor"])


def add_missing(options: argparse.Namespace) -> None:
    """Make the runs that are not in the file yet, several at a time, and add each as it ends."""
    there = {(run["system"], run["env"], run["seed"]) for run in read(options.file)}
    jobs = [
        (system, env, seed)
        for seed in options.seeds
        for env in options.envs
        for system in options.systems
        if (system, env, seed) not in there and env in PEER_TASKS.get(system, TASKS)
    ]
    deadline = time.perf_counter() + options.limit

    def work(job: tuple[str, str, int]) -> None:
        left = deadline - time.perf_counter()
        found = run(*job, options.steps, left) if left > 0 else None
        if found is not None:
            with options.file.open("a") as file:
                file.write(json.dumps(found) + "\n")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, jobs))


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half (Agarwal et al. 2021), ends weighted by their share."""
    ordered, cut = np.sort(values), len(values) / 4
    weights = np.ones(len(ordered))
    whole = int(cut)
    weights[:whole] = weights[len(ordered) - whole :] = 0.0
    rest = 1 - (cut - whole)
    if whole < len(ordered) - whole:
        weights[whole] *= rest
        weights[-whole - 1] *= rest
    return float((ordered * weights).sum() / weights.sum())


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the interquartile mean."""
    rng = np.random.default_rng(0)
    means = [interquartile_mean(rng.choice(values, len(values))) for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def lines(runs: Sequence[dict[str, Any]]) -> list[list[object]]:
    """Return a line of the table for each environment and system."""
    groups = [
        [run for run in runs if (run["env"], run["system"]) == (env, system)]
        for env in TASKS
        for system in SYSTEMS
    ]
    return [line(sorted(own, key=steps_of)) for own in groups if own]


def line(own: Sequence[dict[str, Any]]) -> list[object]:
    """Return the line of one system in one environment; its runs come with the fewest steps first.

    Where runs were cut, the middle is a lower bound.
    """
    steps = [steps_of(run) for run in own]
    low, high = interval(steps)
    cut = any(run.get("cut") for run in own)
    bound = "over " if cut else ""
    between = "" if cut else f" ({low / 1e6:.3f} to {high / 1e6:.3f})"
    return [
        own[0]["env"],
        own[0]["system"],
        f"{sum(run['solved'] for run in own)} of {len(own)}",
        f"{bound}{np.median(steps) / 1e6:.3f}M",
        f"{bound}{interquartile_mean(steps) / 1e6:.3f}M{between}",
        f"{bound}{np.median([seconds_of(run) for run in own]):.0f}",
        " ".join(f"{steps_of(run) / 1e6:.2f}{mark_of(run)}" for run in own),
    ]


def mark_of(run: dict[str, Any]) -> str:
    """Return the mark of a run that did not solve its environment."""
    return "" if run["solved"] else "c" if run.get("cut") else "x"


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw every run, in steps and in seconds.

    Those that were not solved are crosses, or triangles where their time was up.
    """
    import matplotlib.pyplot as plt

    envs = [env for env in TASKS if any(run["env"] == env for run in runs)]
    size = (4.6 * len(envs), 6.4)
    figure, rows = plt.subplots(2, len(envs), figsize=size, layout="constrained", squeeze=False)
    measures = {"global steps to target": steps_of, "processor seconds": seconds_of}
    for panels, (label, measure) in zip(rows, measures.items(), strict=True):
        for axes, env in zip(panels, envs, strict=True):
            draw_panel(axes, [run for run in runs if run["env"] == env], measure)
        panels[0].set_ylabel(label)
    for axes, env in zip(rows[0], envs, strict=True):
        axes.set_title(env)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_panel(axes: Any, runs: Sequence[dict[str, Any]], measure: Callable[[Any], float]) -> None:
    """Draw the runs of one environment, a column for each system."""
    from matplotlib.ticker import EngFormatter

    rng = np.random.default_rng(0)
    systems = [system for system in SYSTEMS if any(run["system"] == system for run in runs)]
    for x, system in enumerate(systems):
        own = [run for run in runs if run["system"] == system]
        for mark, marker in {"": "o", "x": "x", "c": "^"}.items():
            values = [measure(run) for run in own if mark_of(run) == mark]
            places = x + rng.uniform(-0.15, 0.15, len(values))
            color = f"C{SYSTEMS.index(system)}"
            axes.scatter(places, values, marker=marker, alpha=0.7, color=color)
        middle = interquartile_mean([measure(run) for run in own])
        axes.plot([x - 0.25, x + 0.25], [middle, middle], color="black", linewidth=2)
    names = [system.replace("_", "\n") for system in systems]
    axes.set(ylim=(0, None))
    axes.set_xticks(range(len(systems)), names, fontsize="small")
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)


NOTE = (
    "Middle: interquartile mean with a 95 % bootstrap interval. Every run is shown, in millions of"
    " steps; x was not solved, and counts with all that it was given; c was cut when its time was"
    " up, and counts with what it had used by then: its true number is larger. Processor seconds"
    " are medians, those of unsolved runs included, from machines of different speed: those of"
    " ours, and of pbt and unselected on LunarLander, are from the slowest, two runs at a time. The"
    " other runs of pbt, unselected and random_search are older: they were made before passes were"
    " compiled; on LunarLander, Pendulum and Acrobot before observations were scaled, too, and"
    " their seconds hold 100 episodes and pictures after the confirmation."
)
HEAD = (
    "environment",
    "system",
    "solved",
    "median",
    "interquartile mean",
    "processor s",
    "runs",
)


def main() -> None:
    """Add runs, or show those that there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=list(OWN), choices=SYSTEMS)
    parser.add_argument("--envs", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--steps", type=int, help="in place of what a task is given")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds")
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--write", action="store_true", help="write hpo.md and hpo.png")
    parser.add_argument("--one", nargs=4, metavar=("SYSTEM", "ENV", "SEED", "STEPS"))
    options = parser.parse_args()
    if options.one:
        system, env, seed, steps = options.one
        print(json.dumps(one(system, env, int(seed), int(steps))))
        return
    add_missing(options)
    runs = [run for run in read(options.file) if run["seed"] >= FIRST_REPORTED]
    body = f"{table(HEAD, lines(runs))}\n\n{NOTE}"
    publish("From a blind start to a solved environment", body, options.write, RESULTS / "hpo.md")
    if options.write:
        draw(runs, RESULTS / "hpo.png")


if __name__ == "__main__":
    main()
