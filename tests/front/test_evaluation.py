"""``agilerl.evaluate`` and ``agilerl.check_env``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import agilerl
from agilerl import DQN, CheckpointError, ConfigError, EnvError, check_env, evaluate
from agilerl.components.transitions import Played
from agilerl.runs.evaluation import in_time


class Corridor(gym.Env[Any, Any]):
    """Episode k after a reset with a seed lasts k + 1 steps, each worth 1."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    endless = False

    def __init__(self, **changes: Any) -> None:
        self.changes, self.episode, self.left = changes, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode = 0 if seed is not None else self.episode + 1
        self.left = self.episode + 1
        return np.array([self.left], np.float32), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        values = {
            "observation": np.array([self.left], np.float32),
            "reward": 1.0,
            "terminated": self.left == 0 and not self.endless,
            "truncated": False,
            "info": {},
        }
        return tuple({**values, **self.changes}.values())


def agent() -> Any:
    return DQN((1,), 2, False, seed=1)


def test_returns_and_lengths_are_those_of_whole_episodes_of_each_share() -> None:
    found = evaluate(agent(), Corridor(), episodes=3, seed=1)
    assert found.returns.tolist() == [2.0, 3.0, 4.0]
    assert found.lengths.tolist() == [2, 3, 4]
    assert found.mean == 3.0
    assert found.std == 1.0
    half = 1.96 / np.sqrt(3)
    assert found.ci95 == pytest.approx((3 - half, 3 + half))
    # eight sub-environments share ten episodes: the first of each, then the second of two
    assert sorted(evaluate(agent(), Corridor, episodes=10, seed=1).returns) == [2.0] * 8 + [3.0] * 2


def test_an_episode_without_end_is_cut() -> None:
    class Endless(Corridor):
        endless = True

    found = evaluate(agent(), Endless, episodes=2, seed=1, max_steps=7)
    assert found.lengths.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("seconds", "episodes"), [(100.0, 5), (45.0, 4), (10.0, 1), (3.0, 1), (None, 5)]
)
def test_there_are_as_many_episodes_as_there_is_time_for(
    seconds: float | None, episodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def played(count: int) -> Played:  # 10 seconds for each episode
        clock[0] += 10.0 * count
        return Played(np.full((2, count), clock[0]), np.ones((2, count), int))

    clock = [0.0]
    monkeypatch.setattr("agilerl.runs.evaluation.time.perf_counter", lambda: clock[0])
    found = in_time(seconds, 5, played)
    assert found.returns.shape == found.lengths.shape == (2, episodes)
    assert clock[0] == 10.0 * episodes


def test_little_time_leaves_an_episode_of_each_sub_environment() -> None:
    found = evaluate(agent(), Corridor, episodes=100, seed=1, seconds=1e-9)
    assert found.returns.tolist() == [2.0] * 8


def test_seeds_choose_the_episodes_and_are_not_those_of_training() -> None:
    player = DQN((4,), 2, False, seed=1)
    one, again, other = (evaluate(player, "CartPole-v1", 8, seed=s).returns for s in (1, 1, 2))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()
    first = gym.make("CartPole-v1").reset(seed=1)[0]
    seen: list[Any] = []
    player.getAction = lambda states, epsilon=0: seen.append(states) or np.zeros(len(states), int)
    evaluate(player, "CartPole-v1", 1, seed=1)
    assert not np.array_equal(seen[0][0], first)


def test_an_agent_may_be_the_path_of_its_checkpoint(tmp_path: Path) -> None:
    player = DQN((4,), 2, False, seed=1)
    player.saveCheckpoint(tmp_path / "agent.pt")
    one = evaluate(tmp_path / "agent.pt", "CartPole-v1", 4, seed=1).returns
    assert one.tolist() == evaluate(player, "CartPole-v1", 4, seed=1).returns.tolist()
    with pytest.raises(CheckpointError, match="nothing"):
        evaluate(tmp_path / "nothing.pt", "CartPole-v1")


def test_it_changes_nothing_in_the_agent() -> None:
    player = DQN((4,), 2, False, seed=1)
    before = player.state_dict()
    evaluate(player, "CartPole-v1", 2, seed=1)
    after = player.state_dict()
    assert after["streams"] == before["streams"]
    assert str(after["history"]) == str(before["history"])


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="episodes"):
        evaluate(agent(), Corridor, episodes=0)
    with pytest.raises(EnvError, match="NoSuchEnv"):
        evaluate(agent(), "NoSuchEnv-v0")


# ------------------------------------------------------------------------------------- check_env


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", Corridor])
def test_nothing_is_said_of_an_environment_that_works(env: Any) -> None:
    assert check_env(env) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": float("nan")}, "reward"),
        ({"reward": 1e39}, "float32"),
        ({"reward": "much"}, "reward: expected a number"),
        ({"observation": np.array([np.inf], np.float32)}, "NaN or infinite"),
        ({"observation": np.zeros(3, np.float32)}, "shape"),
        ({"terminated": "no"}, "terminated: expected True or False"),
        ({"terminated": [False]}, "terminated: expected True or False"),
        ({"truncated": float("nan")}, "truncated: expected True or False"),
        ({"terminated": None}, "terminated: expected True or False"),
    ],
)
def test_what_will_not_work_is_said(changes: dict[str, Any], message: str) -> None:
    (found,) = check_env(lambda: Corridor(**changes))
    assert message in found


def test_what_else_will_not_work_is_said() -> None:
    class Raises(Corridor):
        def step(self, action: Any) -> Any:
            raise ZeroDivisionError("in step")

    class Unseeded(Corridor):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return np.random.default_rng().random(1).astype(np.float32), {}

    class Unbounded(Corridor):
        action_space = gym.spaces.Box(-np.inf, np.inf, (2,))

    class NotMade(Corridor):
        def __init__(self) -> None:
            raise OSError("no licence")

    for env, message in (
        (Raises, "ZeroDivisionError: in step"),
        (Unseeded, "seed: two resets"),
        (Unbounded, "unbounded"),
        (NotMade, "no licence"),
        ("Blackjack-v1", "FlattenObservation"),
        ("NoSuchEnv-v0", "NoSuchEnv"),
    ):
        assert any(message in text for text in check_env(env)), (env, check_env(env))
    locked: Any = Corridor()
    locked.lock = __import__("threading").Lock()
    assert any("can't be copied" in text for text in check_env(locked))


# ------------------------------------------------------------------------------- names at the top


def test_the_names_of_the_package_are_there_and_others_are_not() -> None:
    for name in agilerl.__all__:
        assert getattr(agilerl, name) is not None
    assert set(agilerl.__all__) <= set(dir(agilerl))
    with pytest.raises(AttributeError, match="evolv"):
        agilerl.evolv  # noqa: B018
