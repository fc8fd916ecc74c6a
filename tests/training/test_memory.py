"""What a run keeps in memory: a worker one replica of the buffer, and one agent at a time.

Memory is what a process has for itself (``Private_*``): the code of torch and the library, some 80
MB, is shared by all processes on a machine.
"""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.executors import Processes
from agilerl.training.pickling import dumps
from agilerl.training.run import Generation
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests import jobs
from tests.runs import FIELDS
from tests.training.test_executors import HP, MLP, evolution

#: Nothing of the tests is imported for it by a worker, which would count.
SHORT = partial(gym.make, "CartPole-v1", max_episode_steps=10)
#: How much a worker may take, times what it must hold.
BOUND = 1.3
#: Bytes that a row of the history takes in the driver, and that a process may move up and down.
ROW, PLAY = 2_500, 3e6

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc"
)


def own_memory(pid: int | str = "self") -> int:
    """Return the bytes of a process that it shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def full_buffer(size: int) -> tuple[ReplayBuffer, int]:
    """Return a buffer without room, and how many bytes its rows take."""
    memory, rng = ReplayBuffer(1, size, FIELDS, seed=5), np.random.default_rng(1)
    states = rng.standard_normal((2, size, 4)).astype(np.float32)
    actions, rewards = rng.integers(2, size=size), np.ones(size, np.float32)
    memory.save2memoryVectEnvs(states[0], actions, rewards, states[1], np.zeros(size, bool))
    return memory, size * sum(values.nbytes for values in memory.rows(0, 1))


@pytest.mark.parametrize(
    ("agents", "generations", "size"),
    [(16, 3, 300_000), pytest.param(64, 200, 500_000, marks=pytest.mark.slow)],
)
def test_a_worker_holds_the_buffer_and_one_agent_and_nothing_grows(
    agents: int, generations: int, size: int
) -> None:
    memory, replica = full_buffer(size)
    pop = initialPopulation("DQN", (4,), 2, False, MLP, HP, agents, seed=3)
    chances = evolution("DQN", architecture=0.0)
    chances["tournament"] = TournamentSelection(2, True, agents, 1, seed=2)
    executor = Processes(2)
    held: list[list[int]] = []

    def look(generation: Generation) -> None:
        gc.collect()
        held.append([own_memory(), *map(own_memory, executor.pids)])

    try:
        executor.begin(jobs.Task(), [jobs.Savable(), jobs.Savable()], None)
        idle = [own_memory(pid) for pid in executor.pids]
        pop, _ = train(
            makeVectEnvs(SHORT, 2), "", "DQN", pop, memory, executor=executor,
            n_episodes=generations, max_steps=5, evo_epochs=1, target=None, seed=7,
            callbacks=[look], verbose=False, **chances,
        )  # fmt: skip
    finally:
        executor.close()
    assert executor.lost == 0
    assert len(pop) == agents
    must = replica + max(len(dumps(agent)) for agent in pop)
    for worker, before in enumerate(idle, 1):
        beyond = [row[worker] - before for row in held]
        print(f"beyond idle {before / 1e6:.1f}: {beyond[0] / 1e6:.1f}, {beyond[-1] / 1e6:.1f} MB")
        assert replica < beyond[0]
        assert max(beyond) < BOUND * must
    early = generations // 10
    growth = np.subtract(held[-1], held[early])
    print(f"replica {replica / 1e6:.1f}, growth since {early}: {np.round(growth / 1e6, 2)} MB")
    assert growth[0] < ROW * agents * (generations - early) + PLAY
    assert (growth[1:] < PLAY).all()
