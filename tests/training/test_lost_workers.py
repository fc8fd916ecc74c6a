"""Workers that are lost again and again: the end is that of a run which nobody disturbed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.seeding import Streams
from agilerl.training.executors import InProcess, Processes
from agilerl.training.run import Generation
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks.fingerprint import Fingerprint
from tests import jobs
from tests.runs import FIELDS
from tests.training.test_executors import HP, MLP, digest, evolution, streams


class PacedCartPole(CartPoleEnv):
    """A step takes ``seconds`` longer, which changes no number."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def step(self, action: Any) -> Any:
        time.sleep(self.seconds)
        return super().step(action)


def paced(seconds: float) -> Any:
    return gym.wrappers.TimeLimit(PacedCartPole(seconds), 50)


def result(executor: Any, pace: float, over: Any) -> tuple[int, str]:
    """Train until ``over(generation)``; return the last generation, and the hash of all."""
    pop = initialPopulation("DQN", (4,), 2, False, MLP, HP, 3, seed=3)
    memory = ReplayBuffer(1, 5000, FIELDS, seed=5)
    rows: list[dict[str, Any]] = []

    def look(generation: Generation) -> bool:
        rows.extend(dict(row, seconds=None) for row in generation.rows)
        return bool(over(generation))

    pop, fitnesses = train(
        makeVectEnvs(partial(paced, pace), 2), "", "DQN", pop, memory, executor=executor,
        n_episodes=10**6, max_steps=50, evo_epochs=1, target=None, seed=7, callbacks=[look],
        verbose=False, **evolution("DQN"),
    )  # fmt: skip
    found = Fingerprint()
    found.add([digest(pop, fitnesses, memory), [repr(sorted(row.items())) for row in rows]])
    return rows[-1]["generation"], found.digest.hexdigest()


def kill_often(executor: Processes, every: float, kills: int, killed: list[int]) -> None:
    """Kill one of the workers, whatever it does, so many times."""
    luck = random.Random(1)
    for _ in range(kills):
        time.sleep(every)
        pid = luck.choice(executor.pids)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


@pytest.mark.parametrize(
    ("seconds", "every"),
    [
        (12.0, 3.0),
        pytest.param(float(os.environ.get("ENDURANCE", "300")), 10.0, marks=pytest.mark.slow),
    ],
)
def test_a_worker_is_killed_every_few_seconds_and_no_number_changes(
    seconds: float, every: float, caplog: pytest.LogCaptureFixture
) -> None:
    executor, killed, kills = Processes(2), list[int](), int(seconds / every)
    killer = threading.Thread(target=kill_often, args=(executor, every, kills, killed), daemon=True)

    def over(generation: Generation) -> bool:
        if generation.number == 0:
            killer.start()
        return len(killed) == executor.lost == kills

    try:
        last, disturbed = result(executor, 1e-3, over)
    finally:
        executor.close()
    assert len(killed) == len(set(killed)) == executor.lost == kills
    assert caplog.text.count("a worker process was lost (signal 9)") == kills
    assert result(InProcess(), 0.0, lambda generation: generation.number == last) == (
        last,
        disturbed,
    )
    print(f"{kills} workers were killed in {last + 1} generations")


@dataclass
class Copied(jobs.Task):
    """Its first worker in slot 1 dies; the third one takes it over until the batch is done."""

    marks: Path

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        (self.marks / f"{os.getpid()}.copy").touch()
        if self.copies() == 3:
            jobs.wait_for(self.marks / "over")

    def copies(self) -> int:
        return len(list(self.marks.glob("*.copy")))

    def happen(self, agent: Any, streams: Streams) -> None:
        if streams.slot == 1:
            mark = self.marks / "died"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            while self.copies() < 3:
                time.sleep(0.01)
        agent.learnt += 100


def test_a_worker_that_takes_over_a_task_when_another_one_begins_is_given_that(
    tmp_path: Path,
) -> None:
    executor, pop = Processes(2), [jobs.Savable(i) for i in range(2)]
    executor.train(Copied(tmp_path), pop, None, streams(0, 2))
    assert executor.lost == 1
    assert [agent.learnt for agent in pop] == [101, 101]
    (tmp_path / "over").touch()
    meeting = jobs.Meeting(tmp_path, 2)  # of two workers, so that each has a job
    executor.train(meeting, pop, None, streams(1, 2))
    assert [agent.learnt for agent in pop] == [102, 102]
    executor.close()
