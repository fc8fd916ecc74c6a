"""Hashes of small seeded runs, one for each trainer: ``python -m benchmarks.fingerprint``.

A change of the code that should not move a number leaves them as they were.  They hold for one type
of processor and one set of wheels: compare two commits on the same machine.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training import train_bc_lm, train_ilql, train_offline
from agilerl.training.language_config import BCRunConfig, ILQLRunConfig
from agilerl.training.train import train
from agilerl.training.yaml_config import read_config
from agilerl.utils.utils import initialPopulation, makeVectEnvs

FIELDS = ["state", "action", "reward", "next_state", "done"]
WORDS = ("crane", "slate", "mount", "buddy", "fifth", "gloom")


class Fingerprint:
    """SHA-256 of whatever is added, in order."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def add(self, value: Any) -> None:
        """Add tensors, arrays and plain values, at any depth."""
        if isinstance(value, torch.Tensor):
            self.add(value.detach().cpu().numpy())
        elif isinstance(value, np.ndarray):
            self.digest.update(f"{value.dtype}{value.shape}".encode())
            self.digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                self.digest.update(str(key).encode())
                self.add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                self.add(item)
        else:
            self.digest.update(repr(value).encode())

    def add_agent(self, agent: Any) -> None:
        """Add weights, targets, moments and what else makes an agent behave as it does."""
        for owned in agent.networks.values():
            self.add(owned.module.state_dict())
            self.add(list(owned.optimizer.state_dict()["state"].values()))
            if agent.algo != "BC_LM":
                self.add(owned.target.state_dict())
        names = ("index", "mut", "fitness", "steps", "scores", "lr", "batch_size", "learn_step")
        self.add([getattr(agent, name) for name in names])
        self.add(agent.rng.bit_generator.state)


def evolution(algo: str, seed: int) -> dict[str, Any]:
    """Return a tournament and mutations of every kind."""
    return {
        "tournament": TournamentSelection(2, True, 4, 1, seed=seed),
        "mutation": Mutations(
            algo, 0.1, 0.3, 0.5, 0.2, 0.2, 0.2, ["lr", "batch_size"], 0.1, rand_seed=seed
        ),
    }


def run_transitions(algo: str, env_name: str, offline: bool = False) -> str:
    """Return the hash of a run on transitions."""
    discrete = algo != "DDPG"
    env = makeVectEnvs(env_name, 4, seed=1)
    space = env.single_action_space
    pop = initialPopulation(
        algo,
        env.single_observation_space.shape,
        int(space.n) if discrete else space.shape[0],
        False,
        {"arch": "mlp", "h_size": [16, 16], "min_mlp_nodes": 8},
        {"BATCH_SIZE": 32, "LR": 1e-3, "LEARN_STEP": 1, "DOUBLE": True},
        population_size=4,
        seed=3,
    )
    memory = ReplayBuffer(1, 3000, FIELDS, seed=5)
    kwargs: dict[str, Any] = {
        "n_episodes": 6,
        "max_steps": 100,
        "evo_epochs": 2,
        "target": None,
        "seed": 7,
        "verbose": False,
        **evolution(algo, 11),
    }
    if offline:
        rng = np.random.default_rng(0)
        data = {
            "observations": rng.standard_normal((2000, 4)).astype(np.float32),
            "actions": rng.integers(2, size=2000),
            "rewards": rng.standard_normal(2000).astype(np.float32),
            "terminals": rng.random(2000) < 0.05,
        }
        pop, fitnesses = train_offline.train(env, env_name, data, algo, pop, memory, **kwargs)
    else:
        pop, fitnesses = train(env, env_name, algo, pop, memory, eps_decay=0.8, **kwargs)
    env.close()
    found = Fingerprint()
    for agent in pop:
        found.add_agent(agent)
    found.add([[float(value) for value in row] for row in fitnesses])
    found.add([memory.counter, memory.sample(len(memory))])
    return found.digest.hexdigest()


def run_language(directory: Path, name: str, population: int) -> str:
    """Return the hash of a run on games of Wordle."""
    (directory / "words.txt").write_text("\n".join(WORDS))
    overrides = [
        f"out={directory}/runs",
        f"name={name}",
        "data.words=null",
        f"data.vocabulary={directory}/words.txt",
        f"data.path={directory}/data.h5",
        "data.games=400",
        "model.n_layer=2",
        "model.n_embd=16",
        "model.n_head=2",
        "model.dropout=0.1",
        "train.updates=8",
        "train.eval_every=2",
        "train.report_every=1",
        "agent.batch_size=8",
        f"population.size={population}",
        "evaluate.games=6",
        "evaluate.final_games=6",
        "evaluate.temperatures=[1.0]",
    ]
    if name == "bc":
        path = "configs/wordle/train_bc.yaml"
        outcome = train_bc_lm.train(read_config(BCRunConfig, path, overrides), verbose=False)
    else:
        path = "configs/wordle/train_iql.yaml"
        overrides += ["model.load=null", "evaluate.betas=[1]"]
        outcome = train_ilql.train(read_config(ILQLRunConfig, path, overrides), verbose=False)
    found = Fingerprint()
    found.add_agent(outcome.agent)
    for agent in outcome.state.population:
        found.add_agent(agent)
    return found.digest.hexdigest()


def main() -> None:
    """Print one line for each run."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        runs: dict[str, Callable[[], str]] = {
            "online DQN": lambda: run_transitions("DQN", "CartPole-v1"),
            "online DDPG": lambda: run_transitions("DDPG", "Pendulum-v1"),
            "offline CQN": lambda: run_transitions("CQN", "CartPole-v1", offline=True),
            "language BC": lambda: run_language(directory, "bc", 2),
            "language ILQL": lambda: run_language(directory, "ilql", 2),
        }
        for title, run in runs.items():
            print(f"{title:<14} {run()}", flush=True)


if __name__ == "__main__":
    main()
