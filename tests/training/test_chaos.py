"""An environment that crashes, hangs, dies, gives NaN at random: the run ends, and is clean."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.training.executors import Processes
from agilerl.training.run import Generation
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.envs import PayEnv
from tests.runs import FIELDS

#: Bytes that a run keeps of each generation of four agents: its history, which grows.
HISTORY = 8_000


class ChaosEnv(PayEnv):
    """Something goes wrong now and then, at random in every process."""

    def __init__(self, harm: float) -> None:
        super().__init__(length=20, actions=3)
        self.harm = harm
        self.luck = np.random.default_rng()

    def step(self, action: Any) -> Any:
        observation, reward, over, cut, info = super().step(action)
        drawn = self.luck.random() / self.harm
        if drawn < 1:
            raise OSError("the simulator is gone")
        if drawn < 2:
            return observation * np.nan, reward, over, cut, info
        if drawn < 3:
            return observation, np.inf, over, cut, info
        if drawn < 3.05:
            time.sleep(3600)
        if drawn < 3.1:
            os.kill(os.getpid(), signal.SIGKILL)
        return observation, reward, over, cut, info


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children() -> set[int]:
    """Return the processes that this one has started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid():
            found.add(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    "seconds", [20.0, pytest.param(float(os.environ.get("CHAOS", "3600")), marks=pytest.mark.slow)]
)
def test_it_ends_and_nothing_is_left(seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "agilerl")  # pytest would keep thousands of warnings
    shared = set(Path("/dev/shm").iterdir())
    before = children()
    executor = Processes(2, env_timeout=5.0)
    net, hp = {"arch": "mlp", "h_size": [8]}, {"BATCH_SIZE": 16, "LEARN_STEP": 1}
    pop = initialPopulation("DQN", (1,), 3, False, net, hp, 4, seed=1)
    memory = ReplayBuffer(3, 2_000, FIELDS, seed=1)
    held: list[int] = []

    def look(generation: Generation) -> None:
        gc.collect()
        held.append(resident())
        assert np.isfinite(generation.fitnesses).all()
        restarts.append(generation.rows[0]["env_restarts"])

    restarts: list[int] = []
    try:
        pop, fitnesses = train(
            makeVectEnvs(ChaosEnv, num_envs=2, harm=5e-4),
            "chaos",
            "DQN",
            pop,
            memory,
            n_episodes=10**6,
            max_steps=50,
            evo_epochs=1,
            target=None,
            time_limit=seconds,
            seed=1,
            env_restarts=10**6,
            executor=executor,
            callbacks=[look],
            verbose=False,
        )
    finally:
        executor.close()
    assert len(fitnesses) == len(restarts) > 5
    assert restarts[-1] > 5
    batch = memory.sample(len(memory))
    assert all(np.isfinite(field.numpy()).all() for field in batch)
    third = len(held) // 3
    assert held[-1] - held[third] < 10e6 + HISTORY * (len(held) - third)
    assert children() <= before
    assert set(Path("/dev/shm").iterdir()) <= shared
