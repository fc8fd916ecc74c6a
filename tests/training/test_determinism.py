"""One seed reproduces a run bit for bit, in whichever process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import hashlib, random
import numpy as np
import torch
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs

torch.set_num_threads(1)

def states():
    name, keys, *rest = np.random.get_state()
    return random.getstate(), keys.tobytes(), rest, torch.random.get_rng_state().tolist()

def run(algo, env_name, seed):
    env = makeVectEnvs(env_name, num_envs=2, seed=seed)
    action = env.single_action_space
    action_dim = int(action.n) if algo == "DQN" else action.shape[0]
    hp = {"BATCH_SIZE": 16, "LEARN_STEP": 1, "DOUBLE": True, "LR": 1e-3}
    pop = initialPopulation(
        algo, env.single_observation_space.shape, action_dim, False,
        {"arch": "mlp", "h_size": [16, 16]}, hp, 3, seed=seed,
    )
    fields = ["state", "action", "reward", "next_state", "done"]
    pop, fitnesses = train(
        env, env_name, algo, pop, ReplayBuffer(action_dim, 500, fields, seed=seed),
        n_episodes=4, max_steps=15, evo_epochs=1, target=None,
        tournament=TournamentSelection(2, True, 3, 1, seed=seed),
        mutation=Mutations(algo, 0.1, 1, 0.5, 1, 1, 1, ["lr", "batch_size"], 0.1, rand_seed=seed),
        seed=seed, verbose=False,
    )
    digest = hashlib.sha256(repr(fitnesses).encode())
    for agent in pop:
        digest.update(repr((agent.index, agent.mut, agent.hyperparameters)).encode())
        for network in agent.networks.values():
            for module in (network.module, network.target):
                for parameter in module.state_dict().values():
                    digest.update(parameter.numpy().tobytes())
    return digest.hexdigest()

before = states()
print(run("DQN", "CartPole-v1", 1), run("DDPG", "Pendulum-v1", 1), run("DQN", "CartPole-v1", 2))
assert states() == before, "a global generator was touched"
"""


def digests(hash_seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def both() -> tuple[list[str], list[str]]:
    return digests("1"), digests("4242")


def test_the_same_seed_gives_the_same_sha256_of_the_weights_in_two_processes(
    both: tuple[list[str], list[str]],
) -> None:
    assert both[0] == both[1]
    assert all(len(digest) == 64 for digest in both[0])


def test_another_seed_gives_another_run(both: tuple[list[str], list[str]]) -> None:
    assert len(set(both[0])) == 3
