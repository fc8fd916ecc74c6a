"""Environments that fail in training, evaluation and the check, and are made anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import ConfigError, EnvError
from agilerl.training import train_offline
from agilerl.training.executors import InProcess, Processes
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.agents import OwnAgent
from tests.envs import PayEnv
from tests.jobs import Savable
from tests.runs import FIELDS, run


class Fuse:
    """Counts the steps of all environments of this process, and says which of them fail."""

    taken = 0
    failing: frozenset[int] = frozenset()

    @classmethod
    def blow(cls, *steps: int) -> None:
        cls.taken, cls.failing = 0, frozenset(steps)


class FusedEnv(PayEnv):
    """Fails in the steps that ``Fuse`` names; ``what`` says how."""

    def __init__(self, what: str = "raise") -> None:
        super().__init__(length=4, actions=3)
        self.what = what
        self.closed = False

    def step(self, action: Any) -> Any:
        assert not self.closed
        Fuse.taken += 1
        observation, reward, over, cut, info = super().step(action)
        if Fuse.taken not in Fuse.failing:
            return observation, reward, over, cut, info
        return {
            "NaN observation": lambda: (observation * np.nan, reward, over, cut, info),
            "infinite reward": lambda: (observation, np.inf, over, cut, info),
            "shape": lambda: (np.zeros(2, np.float32), reward, over, cut, info),
            "dtype": lambda: (np.array(["one"]), reward, over, cut, info),
            "flag": lambda: (observation, reward, None, cut, info),
            "four values": lambda: (observation, reward, over, info),
        }.get(self.what, self.fail)()

    def fail(self) -> Any:
        raise OSError("the simulator is gone")

    def close(self) -> None:
        self.closed = True
        if self.what == "stubborn":
            raise RuntimeError("can't be closed")


WHAT = {
    "raise": r"step\(\) raised OSError: the simulator is gone",
    "stubborn": r"step\(\) raised OSError: the simulator is gone",
    "NaN observation": r"observation: NaN",
    "infinite reward": r"reward: expected 2 finite numbers",
    "shape": r"observation: expected shape \(1,\)",
    "dtype": r"observation: expected float32",
    "flag": r"terminated: expected True or False, got None",
    "four values": r"step\(\): expected \(observation, reward, terminated, truncated, info\), got",
}


def fused(what: str = "raise") -> Any:
    return makeVectEnvs(FusedEnv, num_envs=2, what=what)


def population(count: int) -> list[Any]:
    config, settings = {"arch": "mlp", "h_size": [8]}, {"BATCH_SIZE": 8, "LEARN_STEP": 1}
    return initialPopulation("DQN", (1,), 3, False, config, settings, count, seed=1)


def train(env: Any, **settings: Any) -> tuple[Any, ...]:
    """Train two agents for four episodes of five steps of two environments, 20 steps each."""
    settings = {"n_episodes": 4, "evo_epochs": 2, "max_steps": 5, **settings}
    return run(population(2), env, seed=7, **settings)


@pytest.fixture(autouse=True)
def whole() -> Iterator[None]:
    Fuse.blow()
    yield
    Fuse.blow()


@pytest.mark.parametrize("what", WHAT)
def test_a_fault_names_agent_episode_step_sub_environment_and_action(what: str) -> None:
    Fuse.blow(4)  # the second step of the second sub-environment, of the first agent
    with pytest.raises(EnvError, match=f"^agent 0, episode 0: step 2: .*{WHAT[what]}") as caught:
        train(fused(what))
    assert "action" in str(caught.value)
    if what in ("raise", "stubborn"):
        assert "sub-environment 1, action" in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)
    assert len(caught.value.population) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", WHAT)
def test_the_episode_is_begun_again_in_an_environment_made_anew(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    Fuse.blow(4)
    with caplog.at_level(logging.WARNING, "agilerl"):
        pop, fitnesses, seen = train(fused(what), env_restarts=1)
    assert len(fitnesses) == 2
    assert [row["env_restarts"] for g in seen for row in g.rows] == [1] * 4
    assert [agent.steps[-1] for agent in pop] == [40, 40]  # what was abandoned is not counted
    assert sum(len(agent.scores) for agent in pop) == 8
    (record,) = caplog.records
    assert "agent 0, episode 0: step 2" in record.getMessage()
    assert "made anew (1 of 1)" in record.getMessage()


def test_an_agent_whose_episode_is_begun_again_is_where_it_was() -> None:
    """The second attempt draws from streams of its own, and learns from nothing of the first."""
    Fuse.blow(9)
    first = train(fused(), env_restarts=1, n_episodes=1, evo_epochs=1)[0]
    Fuse.blow(5)  # fails elsewhere in the first episode: the attempt after it is the same
    second = train(fused(), env_restarts=1, n_episodes=1, evo_epochs=1)[0]
    assert weights(first) == weights(second)
    Fuse.blow()
    quiet = train(fused(), env_restarts=1, n_episodes=1, evo_epochs=1)[0]
    assert weights(quiet)[1] == weights(first)[1]
    assert weights(quiet)[0] != weights(first)[0]


def weights(pop: list[Any]) -> list[list[float]]:
    ordered = sorted(pop, key=lambda agent: agent.index)
    return [
        [float(x) for p in agent.actor.parameters() for x in p.detach().reshape(-1)]
        for agent in ordered
    ]


def test_an_evaluation_is_begun_again_too() -> None:
    Fuse.blow(22)  # the training of two agents takes 20 steps
    pop, _, seen = train(fused(), n_episodes=1, evo_epochs=1, env_restarts=2)
    assert [g.rows[0]["env_restarts"] for g in seen] == [1]
    assert seen[0].eval_steps == 16
    assert all(len(agent.fitness) == 1 for agent in pop)


def test_the_check_is_begun_again_too() -> None:
    Fuse.blow(60)
    _, fitnesses, (generation,) = train(
        fused(), n_episodes=1, evo_epochs=1, target=0.0, env_restarts=1
    )
    assert Fuse.taken > 60
    assert generation.solved
    assert generation.check == fitnesses[0][0]


def test_faults_beyond_the_allowed_end_the_run_with_the_population() -> None:
    Fuse.blow(*range(4, 500))
    with pytest.raises(EnvError, match=r"agent 0, episode 0: step 1: .*is gone") as caught:
        train(fused(), env_restarts=3)
    assert len(caught.value.population) == 2  # type: ignore[attr-defined]
    assert isinstance(caught.value.__cause__, OSError)


def test_each_episode_has_its_own_restarts() -> None:
    Fuse.blow(4, 30, 60)
    _, _, seen = train(fused(), env_restarts=1)
    assert seen[-1].rows[0]["env_restarts"] == 3


@pytest.mark.parametrize("kind", ["gymnasium's", "asynchronous", "in processes"])
def test_other_vector_environments_are_made_anew_as_they_were(kind: str) -> None:
    made: dict[str, Callable[[], Any]] = {
        "gymnasium's": lambda: SyncVectorEnv([FailingLater] * 2),
        "asynchronous": lambda: AsyncVectorEnv([FailingLater] * 2),
        "in processes": lambda: makeVectEnvs(FailingLater, num_envs=2, workers=2),
    }
    with pytest.raises(EnvError, match="too old"):
        train(made[kind](), n_episodes=3, evo_epochs=3)
    _, fitnesses, _ = train(made[kind](), n_episodes=3, evo_epochs=3, env_restarts=1)
    assert np.isfinite(fitnesses).all()


class FailingLater(PayEnv):
    """Raises in its 23rd step."""

    def __init__(self) -> None:
        super().__init__(length=4, actions=3)
        self.age = 0

    def step(self, action: Any) -> Any:
        self.age += 1
        if self.age == 23:
            raise RuntimeError("too old")
        return super().step(action)


def test_workers_make_their_environments_anew_and_the_numbers_are_the_same() -> None:
    results = []
    for executor in (InProcess(), Processes(2)):
        env = makeVectEnvs(MarkedEnv, num_envs=2)
        pop, fitnesses, seen = train(env, env_restarts=9, executor=executor)
        restarts = seen[-1].rows[0]["env_restarts"]
        results.append((restarts, fitnesses, weights(pop)))
        executor.close()
    assert results[0] == results[1]
    assert results[0][0] > 0


class MarkedEnv(PayEnv):
    """Fails or not by the seed of its episode."""

    def __init__(self) -> None:
        super().__init__(length=4, actions=3)
        self.doomed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.doomed = seed % 4 == 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        if self.doomed and self.time == 2:
            raise RuntimeError("doomed")
        return super().step(action)


def test_offline_training_has_restarts_too() -> None:
    rows = np.zeros((64, 1), np.float32)
    data = {
        "observations": rows,
        "actions": np.arange(64) % 3,
        "rewards": np.ones(64, np.float32),
        "terminals": np.arange(64) % 4 == 3,
    }
    Fuse.blow(3)
    seen: list[Any] = []
    train_offline.train(
        fused(),
        "own",
        data,
        "DQN",
        population(2),
        ReplayBuffer(3, 100, FIELDS),
        n_episodes=1,
        evo_epochs=1,
        max_steps=5,
        target=None,
        env_restarts=1,
        callbacks=[seen.append],
        verbose=False,
    )
    assert seen[0].rows[0]["env_restarts"] == 1


def test_what_cannot_be_begun_again_is_an_error_before_training() -> None:
    with pytest.raises(ConfigError, match="env_restarts: OwnAgent has no state_dict"):
        run([OwnAgent(0)], PayEnv(), env_restarts=1)
    with pytest.raises(ConfigError, match="env_restarts: expected an integer >= 0, got -1"):
        run([Savable(0)], PayEnv(), env_restarts=-1)
    env = PayEnv()
    env.handle = (x for x in ())  # type: ignore[attr-defined]
    with pytest.raises(EnvError, match=r"env_restarts: .*can't be made anew.*env_restarts=0"):
        run([Savable(0)], env, env_restarts=1)


def test_an_agent_of_ones_own_that_raises_is_named() -> None:
    class Raising(OwnAgent):
        def learn(self, experiences: Any) -> float:
            raise ZeroDivisionError("of nothing")

    pop = [OwnAgent(0), Raising(7)]
    with pytest.raises(ZeroDivisionError) as caught:
        run(pop, PayEnv(), n_episodes=4)
    assert "This was raised in: agent 7, episode 1." in caught.value.__notes__
