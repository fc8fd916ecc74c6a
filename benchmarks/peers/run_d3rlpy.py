"""Time d3rlpy: offline training of one DiscreteCQL agent on transitions of a random policy."""

from __future__ import annotations

import contextlib
from typing import Any

import d3rlpy
import gymnasium as gym
import measure
import numpy as np

PACKAGES = ("d3rlpy", "torch", "numpy", "gymnasium")


def random_episodes(env_name: str, size: int) -> d3rlpy.dataset.MDPDataset:
    """Return whole episodes of a random policy, ``size`` transitions or a few more."""
    env = gym.make(env_name)
    env.action_space.seed(0)
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    state, _ = env.reset(seed=0)
    while True:
        action = env.action_space.sample()
        next_state, reward, terminated, truncated, _ = env.step(action)
        for column, value in zip(
            columns, (state, [action], [reward], terminated, truncated), strict=True
        ):
            column.append(value)
        state = next_state
        if terminated or truncated:
            if len(columns[0]) >= size:
                break
            state, _ = env.reset()
    env.close()
    observations, actions, rewards, terminals, timeouts = map(np.asarray, columns)
    return d3rlpy.dataset.MDPDataset(
        observations,
        actions,
        rewards.astype(np.float32),
        terminals.astype(np.float32),
        timeouts.astype(np.float32),
        action_space=d3rlpy.ActionSpace.DISCRETE,
        action_size=int(env.action_space.n),
    )


def main() -> None:
    flags = measure.parse(measure.parser(__doc__))
    dataset = random_episodes(flags.env, flags.memory_size)
    agent = d3rlpy.algos.DiscreteCQLConfig(
        batch_size=flags.batch_size,
        learning_rate=1e-3,
        gamma=0.99,
        alpha=1.0,
        encoder_factory=d3rlpy.models.VectorEncoderFactory(flags.hidden),
    ).create(device="cpu:0")
    meter = measure.Meter(flags.seconds)
    with contextlib.suppress(measure.TimeUp):
        agent.fit(
            dataset,
            n_steps=10**9,
            n_steps_per_epoch=10**6,
            callback=lambda *_: meter.step(0, 1),
            logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
            show_progress=False,
        )
    settings = measure.settings(flags)
    del settings["num_envs"], settings["epsilon"]  # nothing acts while it trains
    measure.report("d3rlpy", "train", PACKAGES, algo="DiscreteCQL", **meter.rates(), **settings)


if __name__ == "__main__":
    main()
