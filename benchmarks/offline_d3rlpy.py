"""d3rlpy's DiscreteCQL on an HDF5 file. It is run by d3rlpy's own Python.

Prints one line of JSON: updates per second, without evaluation, and the mean return afterwards.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import d3rlpy
import gymnasium as gym
import h5py
import numpy as np
import torch


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--hidden", type=int, nargs="+", required=True)
    for name in ("lr", "gamma", "alpha", "tau"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--episodes", type=int, required=True)
    return parser.parse_args()


def dataset_in(path: str) -> tuple[str, d3rlpy.dataset.MDPDataset]:
    """Return the environment of a data file, and its rows as d3rlpy takes them."""
    with h5py.File(path, "r") as file:
        env_name = file.attrs["env_id"]
        columns = {name: file[name][:] for name in ("observations", "actions", "rewards")}
        terminals, timeouts = file["terminals"][:], file["timeouts"][:]
    timeouts[-1] |= not terminals[-1]
    return env_name, d3rlpy.dataset.MDPDataset(
        columns["observations"],
        columns["actions"][:, None],
        columns["rewards"],
        terminals.astype(np.float32),
        timeouts.astype(np.float32),
        action_space=d3rlpy.ActionSpace.DISCRETE,
        action_size=2,
    )


def play(agent: Any, env: gym.Env[Any, Any], seed: int) -> float:
    """Return the return of one greedy episode."""
    state, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        state, reward, terminated, truncated, _ = env.step(int(agent.predict(state[None])[0]))
        total += float(reward)
        over = terminated or truncated
    return total


def main() -> None:
    flags = parsed()
    torch.set_num_threads(1)
    d3rlpy.seed(flags.seed)
    env_name, dataset = dataset_in(flags.file)
    agent = d3rlpy.algos.DiscreteCQLConfig(
        batch_size=flags.batch_size,
        learning_rate=flags.lr,
        gamma=flags.gamma,
        alpha=flags.alpha,
        target_update_interval=round(2 / flags.tau),
        encoder_factory=d3rlpy.models.VectorEncoderFactory(flags.hidden),
    ).create(device="cpu:0")
    clock, processor = time.perf_counter(), time.process_time()
    agent.fit(
        dataset,
        n_steps=flags.updates,
        n_steps_per_epoch=flags.updates,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    seconds, cpu = time.perf_counter() - clock, time.process_time() - processor
    env, first = gym.make(env_name), 10_000 * flags.seed
    returns = [play(agent, env, first + episode) for episode in range(flags.episodes)]
    report = {
        "updates_per_s": flags.updates / seconds,
        "updates_per_cpu_s": flags.updates / cpu,
        "mean_return": float(np.mean(returns)),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
