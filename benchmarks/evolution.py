"""Whether evolution does something: bad starting learning rates, with mutation on and off.

    python -m benchmarks.evolution --write

Both sides have the same populations, seeds, numbers of steps and tournaments; only the mutation of
the learning rate differs.
"""

from __future__ import annotations

import argparse

import numpy as np

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import evaluate
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks.timing import RESULTS, publish, table

ENV = "CartPole-v1"
POPULATION = 6
EPISODES = 120


def final_return(lr: float, seed: int, mutate: bool) -> tuple[float, float]:
    """Return the fittest agent's mean return over 100 fresh episodes, and its learning rate."""
    env = makeVectEnvs(ENV, num_envs=8, seed=seed)
    pop = initialPopulation(
        "DQN",
        (4,),
        2,
        False,
        {"arch": "mlp", "h_size": [64, 64]},
        {"LR": lr, "BATCH_SIZE": 64, "LEARN_STEP": 1, "TAU": 5e-3, "DOUBLE": True},
        population_size=POPULATION,
        seed=seed,
    )
    fields = ["state", "action", "reward", "next_state", "done"]
    pop, _ = train(
        env,
        ENV,
        "DQN",
        pop,
        ReplayBuffer(2, 50_000, fields, seed=seed),
        n_episodes=EPISODES,
        max_steps=100,
        evo_epochs=2,
        eps_decay=0.9,
        eps_end=0.05,
        target=None,
        tournament=TournamentSelection(2, True, POPULATION, 1, seed=seed),
        mutation=Mutations(
            "DQN", 0.3, 0, 0, 0, 0, 0.7 if mutate else 1e-12, ["lr"], 0.1, rand_seed=seed
        ),
        seed=seed,
        eval_max_steps=500,
        verbose=False,
    )
    test_env = makeVectEnvs(ENV, num_envs=20, seed=1000 + seed)
    return float(evaluate(pop[0].getAction, test_env, 5, 500).mean()), pop[0].lr


def main() -> None:
    """Run every learning rate and seed with mutation on and off, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lrs", type=float, nargs="+", default=[1e-5, 1e-1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--write", action="store_true", help="keep the result in evolution.md")
    options = parser.parse_args()
    head = ("starting lr", "mutation", "mean", "median final lr", "each seed")
    rows: list[tuple[str, ...]] = []
    for lr in options.lrs:
        for mutate in (True, False):
            results = [final_return(lr, seed, mutate) for seed in options.seeds]
            returns = ", ".join(f"{value:.0f}" for value, _ in results)
            mean = np.mean([value for value, _ in results])
            final = np.median([rate for _, rate in results])
            side = "on" if mutate else "off"
            rows.append((f"{lr:.0e}", side, f"{mean:.0f}", f"{final:.1e}", returns))
            print(table(head, rows), flush=True)
    note = (
        f"Population {POPULATION}, {EPISODES} episodes of 100 steps in 8 environments, evolution"
        " every 2 episodes. The return is the fittest agent's over 100 fresh episodes."
    )
    body = f"{table(head, rows)}\n\n{note}"
    publish(f"Mutation on and off, {ENV}", body, options.write, RESULTS / "evolution.md")


if __name__ == "__main__":
    main()
