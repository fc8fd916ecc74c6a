"""What each kind of mutation is worth: populations from bad starts, with one kind switched off.

    python -m benchmarks.evolution --seeds 0 1 2 3 4 --jobs 2      adds runs that are missing
    python -m benchmarks.evolution --write                         writes evolution.md

Six DQN agents start with a learning rate of 1e-5, which is far too low.  All variants have the same
starts, seeds, steps and tournaments (the README's long way); agents change in one of four ways,
each twice as likely as no change, in one of the three that are left, or not at all.
What counts is the fittest agent's mean return over 100 fresh episodes at the end.  Every run is one
line of ``evolution.jsonl``, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import evaluate
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks.hpo import interquartile_mean, interval, read
from benchmarks.timing import RESULTS, publish, table

#: Episodes of 100 vector steps in 8 environments of each agent, and the longest evaluation episode.
TASKS = {"CartPole-v1": (120, 500), "LunarLander-v3": (60, 1000)}
KINDS = ("architecture", "parameters", "activation", "rl_hp")
ALL, NONE = "all four", "none"
VARIANTS = (ALL, *(f"without {kind}" for kind in KINDS), NONE)
POPULATION = 6
FIELDS = ["state", "action", "reward", "next_state", "done"]
FILE = RESULTS / "evolution.jsonl"


def mutations(variant: str, seed: int) -> Mutations:
    """Return the mutations of a variant."""
    on = {kind: float(variant not in (NONE, f"without {kind}")) for kind in KINDS}
    return Mutations(
        algo="DQN",
        no_mutation=0.5,
        new_layer_prob=0.2,
        rl_hp_selection=["lr"],
        mutation_sd=0.1,
        rand_seed=seed,
        **on,
    )


def one(variant: str, env_name: str, seed: int) -> dict[str, Any]:
    """Run one variant once; return what came out."""
    episodes, longest = TASKS[env_name]
    env = makeVectEnvs(env_name, num_envs=8, seed=seed)
    start = time.process_time()
    pop = initialPopulation(
        "DQN",
        env.single_observation_space.shape,
        int(env.single_action_space.n),
        one_hot=False,
        net_config={"arch": "mlp", "h_size": [32, 32]},
        INIT_HP={"LR": 1e-5, "BATCH_SIZE": 64, "LEARN_STEP": 1, "TAU": 5e-3, "DOUBLE": True},
        population_size=POPULATION,
        seed=seed,
    )
    pop, _ = train(
        env,
        env_name,
        "DQN",
        pop,
        ReplayBuffer(int(env.single_action_space.n), 50_000, FIELDS, seed=seed),
        n_episodes=episodes,
        max_steps=100,
        evo_epochs=2,
        evo_loop=1,
        eps_decay=0.9,
        eps_end=0.05,
        target=None,
        tournament=TournamentSelection(2, True, POPULATION, 1, seed=seed),
        mutation=mutations(variant, seed),
        seed=seed,
        eval_max_steps=longest,
        verbose=False,
    )
    test_env = makeVectEnvs(env_name, num_envs=20, seed=1000 + seed)
    return {
        "variant": variant,
        "env": env_name,
        "seed": seed,
        "return": float(evaluate(pop[0].getAction, test_env, 5, longest).mean()),
        "lr": pop[0].lr,
        "network": pop[0].architecture,
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
    episodes = ", ".join(f"{count} on {env}" for env, (count, _) in TASKS.items())
    note = (
        "Interquartile mean over the seeds with a 95 % bootstrap interval, of the fittest agent's"
        f" mean return over 100 fresh episodes. {POPULATION} agents, episodes of 100 steps in 8"
        f" environments ({episodes}), evolution every 2 episodes; learning rate 1e-5 and [32, 32]"
        " units at the start; rl_hp moves the learning rate."
    )
    head = ("environment", "mutations", "return", "each seed")
    body = f"{table(head, rows)}\n\n{note}"
    publish("What each kind of mutation is worth", body, options.write, RESULTS / "evolution.md")


if __name__ == "__main__":
    main()
