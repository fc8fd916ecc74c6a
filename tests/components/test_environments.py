"""Making environments, stepping them in this process, and the spaces that can be learnt on."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.components import make_env
from agilerl.components.spaces import check_action_space, check_observation_space
from agilerl.components.transitions import TransitionStream
from agilerl.components.vector_env import InProcessVectorEnv, ProcessVectorEnv
from agilerl.errors import ConfigError, EnvError
from agilerl.utils.utils import makeVectEnvs
from tests.envs import CorridorEnv, CountingEnv, PayEnv, ReachEnv


class SpaceEnv(PayEnv):
    """Has whatever spaces."""

    def __init__(self, observation: Any = None, action: Any = None) -> None:
        super().__init__()
        self.observation_space = observation or self.observation_space
        self.action_space = action or self.action_space


class SayingEnv(PayEnv):
    """Says whatever as its observation and reward."""

    def __init__(self, dtype: Any, observation: Any, reward: Any = 1.0) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (2,), dtype)
        self.said, self.paid = observation, reward

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.said, {}

    def step(self, action: Any) -> Any:
        return self.said, self.paid, False, False, {}


# ------------------------------------------------------------------------------------ makeVectEnvs


def test_sub_environments_in_processes_of_their_own_give_the_same_transitions() -> None:
    found = []
    for workers in (0, 2):
        env = makeVectEnvs("CartPole-v1", 3, seed=3, workers=workers, max_episode_steps=7)
        assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        with contextlib.closing(env):
            stream = TransitionStream(env)
            rows = [stream.reset().tolist()]
            for step in range(20):
                stream.begin(np.arange(3) * step % 2)
                rows.append([field.tolist() for field in stream.finish()])  # type: ignore[arg-type]
            rows.append(env.reset(seed=4)[0].tolist())
        found.append(rows)
    assert found[0] == found[1]


@pytest.mark.parametrize("workers", [-1, 1.0, True])
def test_the_number_of_workers_is_checked(workers: Any) -> None:
    with pytest.raises(ConfigError, match="workers: expected an integer >= 0"):
        makeVectEnvs("CartPole-v1", 2, workers=workers)


def test_a_class_or_a_function_makes_the_environments() -> None:
    env = makeVectEnvs(CorridorEnv, 2, start=3)
    assert env.single_action_space == spaces.Discrete(2)
    assert makeVectEnvs(lambda: PayEnv(length=2), 3).num_envs == 3


def test_make_vect_envs_gives_same_step_with_final_obs_and_its_mask() -> None:
    env = makeVectEnvs("CartPole-v1", num_envs=3, seed=1, max_episode_steps=5)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset()
    for time in range(1, 6):
        states, _, terminated, truncated, info = env.step(np.array([0, 1, time % 2]))
    assert truncated.tolist() == [True] * 3
    assert not terminated.any()
    assert info["_final_obs"].tolist() == [True] * 3
    last = np.stack(info["final_obs"])
    assert (np.abs(states) <= 0.05).all(), "a reset state of CartPole is within 0.05"
    assert (np.abs(last) > 0.05).any(axis=1).all()


def test_the_hand_written_loop_stores_terminated_rows_as_it_stands() -> None:
    env = InProcessVectorEnv([CountingEnv(i) for i in range(3)])
    state, _ = env.reset()
    wrong = ended = 0
    for _ in range(30):
        next_state, _, done, truncated, _ = env.step(np.ones(3, int))
        ended += int((done | truncated).sum())
        wrong += int((~done & ~truncated & (next_state[:, 2] != state[:, 2] + 1)).sum())
        state = next_state
    assert wrong == 0
    assert ended > 10


def test_sub_environments_get_distinct_seeds_and_one_seed_repeats_them() -> None:
    first = makeVectEnvs("CartPole-v1", num_envs=4, seed=7).reset()[0]
    again = makeVectEnvs("CartPole-v1", num_envs=4, seed=7).reset()[0]
    other = makeVectEnvs("CartPole-v1", num_envs=4, seed=8).reset()[0]
    assert len(np.unique(first, axis=0)) == 4
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    env = InProcessVectorEnv([CountingEnv(i) for i in range(3)], seed=3)
    env.reset()
    env.reset(seed=11)
    env.reset()
    assert [e.seeds[1:] for e in env.envs] == [[11, None], [12, None], [13, None]]
    assert len({e.seeds[0] for e in env.envs}) == 3


def test_a_retired_id_resolves_to_its_successor_with_one_warning_that_names_both() -> None:
    make_env.current_id.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = makeVectEnvs("LunarLander-v2", num_envs=3)
    texts = [str(w.message) for w in caught if "LunarLander" in str(w.message)]
    assert texts == ["LunarLander-v2 is retired; LunarLander-v3 is used in its place."]
    assert env.spec is not None
    assert env.spec.id == "LunarLander-v3"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        makeVectEnvs("LunarLander-v2")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CartPol-v1", "CartPole"),
        ("CartPole-v99", "v0"),
        ("ale_py/Pong-v5", "pip install"),
        ("no such id", "pip install"),
    ],
)
def test_an_unknown_id_passes_on_the_hint_and_the_pip_command(name: str, hint: str) -> None:
    with pytest.raises(EnvError, match=hint) as caught:
        makeVectEnvs(name)
    assert "pip install" in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_extra_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise gym.error.DependencyNotInstalled("Box2D is not installed, run pip install x")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(EnvError, match=r"Box2D is not installed.*pip install 'agilerl\[box2d\]'"):
        makeVectEnvs("LunarLander-v3")


@pytest.mark.parametrize("count", [0, -1, 2.0, "4"])
def test_num_envs_is_a_positive_integer(count: Any) -> None:
    with pytest.raises(ConfigError, match="num_envs"):
        makeVectEnvs("CartPole-v1", num_envs=count)


# ------------------------------------------------------------------------------ InProcessVectorEnv


def test_steps_need_a_reset_and_the_right_number_of_actions() -> None:
    env = InProcessVectorEnv([CountingEnv(i) for i in range(3)])
    env.reset()
    with pytest.raises(EnvError, match="step_wait: no step was started"):
        env.step_wait()
    for actions in (np.zeros(2, int), np.zeros((3, 1), int), 0):
        with pytest.raises(EnvError, match=r"actions: expected shape \(3,\)"):
            env.step(actions)


def test_an_observation_of_another_shape_is_an_error_even_where_it_would_broadcast() -> None:
    class Narrow(PayEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)

    with pytest.raises(EnvError, match=r"expected shape \(3,\).*got \(1,\)"):
        InProcessVectorEnv([Narrow()]).reset()


def test_discrete_spaces_start_at_zero_here() -> None:
    env = InProcessVectorEnv([CorridorEnv(start=3), CorridorEnv(start=3)])
    assert env.single_observation_space == spaces.Discrete(5)
    assert env.single_action_space == spaces.Discrete(2)
    assert env.reset()[0].tolist() == [0, 0]
    assert env.step(np.array([1, 0]))[0].tolist() == [1, 0]


def test_observations_of_earlier_steps_stay_as_they_were() -> None:
    env = InProcessVectorEnv([CountingEnv(0), CountingEnv(1)])
    first = env.reset()[0]
    kept = first.copy()
    for _ in range(3):
        env.step(np.zeros(2, int))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_environment_may_write_all_its_observations_into_one_array(workers: int) -> None:
    def steps(in_place: bool) -> list[list[Any]]:
        makers = [partial(CountingEnv, i, in_place) for i in range(2)]
        env = (
            ProcessVectorEnv(makers) if workers else InProcessVectorEnv([make() for make in makers])
        )
        with contextlib.closing(env):
            stream = TransitionStream(env)
            stream.reset()
            found = []
            for _ in range(30):
                stream.begin(np.zeros(2, int))
                found.append([field.tolist() for field in stream.finish()])
        return found

    assert steps(in_place=True) == steps(in_place=False)


@pytest.mark.parametrize(
    ("dtype", "observation"),
    [
        (np.uint8, np.array([0.3, 0.9])),
        (np.uint8, [3, 300]),
        (np.int64, np.array([1.0, np.nan])),
        (np.float32, np.array(["a", "b"])),
    ],
    ids=["scaled images", "too large", "nan", "words"],
)
def test_an_observation_that_the_declared_dtype_cannot_hold_is_an_error(
    dtype: Any, observation: Any
) -> None:
    env = InProcessVectorEnv([SayingEnv(dtype, observation)])
    with pytest.raises(EnvError, match=f"observation: expected {np.dtype(dtype)}.*SayingEnv"):
        env.reset()


@pytest.mark.parametrize(
    ("dtype", "observation"),
    [(np.uint8, np.array([3.0, 255.0])), (np.float32, np.array([0.1, 1e-9])), (np.uint8, [1, 2])],
)
def test_an_observation_of_another_dtype_that_fits_is_taken(dtype: Any, observation: Any) -> None:
    states, _ = InProcessVectorEnv([SayingEnv(dtype, observation)]).reset()
    assert states.dtype == dtype
    assert np.array_equal(states[0], np.asarray(observation).astype(dtype))


def test_a_reward_that_is_no_number_is_named() -> None:
    env = InProcessVectorEnv([SayingEnv(np.uint8, [1, 2], reward=np.ones(2))])
    env.reset()
    with pytest.raises(EnvError, match=r"reward: expected a number, got array.*SayingEnv"):
        env.step(np.zeros(1, int))


def test_close_closes_every_sub_environment() -> None:
    closed: list[int] = []

    class Closing(PayEnv):
        def close(self) -> None:
            closed.append(1)

    InProcessVectorEnv([Closing(), Closing()]).close()
    assert closed == [1, 1]


# ------------------------------------------------------------------------------------------ spaces

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": BOX}),
        spaces.Tuple([BOX, BOX]),
        spaces.MultiDiscrete([2, 3]),
        spaces.Text(4),
    ],
)
def test_other_observation_spaces_are_refused_with_a_wrapper_to_use(space: Any) -> None:
    with pytest.raises(EnvError, match=r"observation space: .*wrap") as caught:
        InProcessVectorEnv([SpaceEnv(observation=space)])
    if not isinstance(space, spaces.Text):
        assert "FlattenObservation" in str(caught.value)


@pytest.mark.parametrize("space", [spaces.Dict({"a": BOX}), spaces.MultiDiscrete([2, 3])])
def test_the_wrapper_that_the_error_names_is_the_cure(space: Any) -> None:
    class Drawn(SpaceEnv):
        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            space.seed(0)
            return space.sample(), super().reset(seed=seed)[1]

    env = gym.wrappers.FlattenObservation(Drawn(observation=space))
    assert InProcessVectorEnv([env]).reset()[0].ndim == 2


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.Dict({"a": BOX}),
        spaces.Tuple([BOX]),
        spaces.MultiBinary(3),
        spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    ],
)
def test_other_action_spaces_are_refused_with_a_wrapper_to_use(space: Any) -> None:
    with pytest.raises(EnvError, match=r"action space: .*ActionWrapper"):
        InProcessVectorEnv([SpaceEnv(action=space)])


def test_usable_spaces_are_accepted() -> None:
    for observation in (BOX, spaces.Discrete(3, start=2), spaces.MultiBinary(4)):
        check_observation_space(observation)
    for action in (BOX, spaces.Discrete(2)):
        check_action_space(action)


def test_an_unbounded_action_space_is_an_error() -> None:
    env = InProcessVectorEnv([SpaceEnv(action=spaces.Box(-np.inf, 1.0, (2,), np.float32))])
    with pytest.raises(EnvError, match=r"unbounded.*RescaleAction"):
        DDPG((1,), 2, False).adapt_to_env(env)


def test_an_agent_and_an_environment_that_do_not_fit_are_named() -> None:
    with pytest.raises(EnvError, match=r"100 actions, the agent 3; pass action_dim=100"):
        DQN((1,), 3, False).test(PayEnv(), max_steps=2)
    with pytest.raises(EnvError, match=r"needs Discrete actions.*DDPG"):
        DQN((2,), 3, False).test(ReachEnv(), max_steps=2)
    with pytest.raises(EnvError, match="use DQN"):
        DDPG((1,), 1, False).test(PayEnv(), max_steps=2)
    with pytest.raises(EnvError, match="state_dim"):
        DQN((3,), 100, False).test(PayEnv(), max_steps=2)
    with pytest.raises(EnvError, match="expected a gymnasium environment"):
        DQN((3,), 100, False).adapt_to_env(object())


def test_making_environments_imports_no_picture_or_window() -> None:
    program = (
        "import sys\nfrom agilerl.utils.utils import makeVectEnvs\n"
        "makeVectEnvs('CartPole-v1').reset()\nprint('pygame' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
