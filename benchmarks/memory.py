"""Peak memory of a run with a large replay buffer: ``python -m benchmarks.memory``.

A population trains, through the real ``train()``, until a buffer of so many transitions (states of
8 floats) is full and has been written over once.  The peak of resident memory is compared with the
bytes of what is stored.
"""

from __future__ import annotations

import argparse
import resource
import sys
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation
from benchmarks import timing
from benchmarks.parts import FIELDS, stored_bytes
from benchmarks.peers import measure

NUM_ENVS, POPULATION, MAX_STEPS = 64, 4, 500


class QuickEnv(gym.Env[np.ndarray, int]):
    """States of 8 random floats; an episode is 200 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (8,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.standard_normal(8, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Draw the next state."""
        self.time += 1
        return self.np_random.standard_normal(8, np.float32), 1.0, self.time >= 200, False, {}


def peak_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def run(size: int, shared: bool) -> timing.Report:
    """Train until the buffer has been filled and written over; return the peak and the bytes."""
    env = InProcessVectorEnv([QuickEnv() for _ in range(NUM_ENVS)], seed=0)
    memory = ReplayBuffer(4, size, FIELDS, seed=0, next_state_is_next_row=shared)
    start = peak_mib()
    net_config = {"arch": "mlp", "h_size": [32, 32]}
    settings = {"BATCH_SIZE": 256, "LEARN_STEP": 8}
    pop = initialPopulation("DQN", (8,), 4, False, net_config, settings, POPULATION, seed=0)
    train(
        env,
        "quick",
        "DQN",
        pop,
        memory,
        n_episodes=1 + int(1.1 * size) // (NUM_ENVS * MAX_STEPS * POPULATION),
        max_steps=MAX_STEPS,
        evo_epochs=3,
        target=None,
        tournament=TournamentSelection(2, True, POPULATION, 1, seed=0),
        mutation=Mutations("DQN", 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, ["lr"], 0.1, rand_seed=0),
        seed=0,
        verbose=False,
    )
    assert memory.counter > size, "the buffer was not written over"
    return {
        "stored_mib": stored_bytes(memory) / 2**20,
        "peak_mib": peak_mib(),
        "start_mib": start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    timing.add_flags(parser, rounds=1, seconds=0.0)
    parser.add_argument("--size", type=int, default=1_000_000, help="transitions in the buffer")
    parser.add_argument("--shared", action="store_true", help="next_state_is_next_row=True")
    parser.add_argument("--measure", action="store_true", help="here; prints JSON")
    flags = parser.parse_args()
    if flags.measure:
        report = run(flags.size, flags.shared)
        measure.report(timing.OURS, "memory", timing.PACKAGES, **report)
        return
    lines = []
    for options in ([], ["--shared"]):
        report = timing.run_module(
            "benchmarks.memory", ["--measure", "--size", flags.size, *options]
        )
        limit = 1.2 * report["stored_mib"] + 400e6 / 2**20
        lines.append(
            [
                "next_state_is_next_row" if options else "plain",
                f"{report['stored_mib']:.0f} MiB",
                f"{report['start_mib']:.0f} MiB",
                f"{report['peak_mib']:.0f} MiB",
                f"{limit:.0f} MiB",
                "yes" if report["peak_mib"] <= limit else "NO",
            ]
        )
    head = ["buffer", "stored", "peak before", "peak", "1.2 x stored + 400 MB", "within"]
    note = (
        f"A run of {POPULATION} agents in {NUM_ENVS} environments until a buffer of"
        f" {flags.size:,} transitions (states of 8 floats) was full and written over; resident"
        " memory. *Before*: after the imports."
    )
    timing.publish("Memory", f"{note}\n\n{timing.table(head, lines)}", flags.write)


if __name__ == "__main__":
    main()
