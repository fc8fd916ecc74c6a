"""The true-successor rule, in every autoreset mode, counted on environments of known successors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import TransitionStream, evaluate, steps_asynchronously
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import EnvError
from agilerl.training.train import train
from tests.agents import OwnAgent
from tests.envs import CatchEnv, CorridorEnv, CountingEnv, OwnVectorEnv, PayEnv, reward_of, script

FIELDS = ["state", "action", "reward", "next_state", "done"]
MODES = list(AutoresetMode)


def counting(identity: int, in_place: bool = False) -> Callable[[], CountingEnv]:
    return functools.partial(CountingEnv, identity, in_place)


def gymnasium_env(kind: Any, mode: AutoresetMode, **kwargs: Any) -> Any:
    return kind([counting(i) for i in range(3)], autoreset_mode=mode, **kwargs)


ENVS: dict[str, Callable[[], Any]] = {
    "single": CountingEnv,
    "in process": lambda: InProcessVectorEnv([CountingEnv(i) for i in range(3)]),
    **{
        f"{kind.__name__} {mode.name}": functools.partial(gymnasium_env, kind, mode)
        for kind in (SyncVectorEnv, AsyncVectorEnv)
        for mode in MODES
    },
    **{
        f"SyncVectorEnv {mode.name} that reuses its arrays": functools.partial(
            gymnasium_env, SyncVectorEnv, mode, copy=False
        )
        for mode in MODES
    },
    **{f"own {mode.name}": functools.partial(OwnVectorEnv, mode) for mode in MODES},
}


def faults(rows: Any) -> list[str]:
    """Return what is wrong with rows of counting environments, one text for each wrong row."""
    wrong = []
    for state, action, reward, successor, done in zip(*rows, strict=True):
        identity, episode, time, _ = (int(x) for x in state)
        length, terminates = script(identity, episode)
        expected = [identity, episode, time + 1, int(action.item())]
        if successor.tolist() != expected:
            wrong.append(f"{state} -> {successor}, expected {expected}")
        elif abs(reward.item() - reward_of(identity, episode, time, int(action.item()))) > 1e-5:
            wrong.append(f"{state}: reward {reward}")
        elif bool(done.item()) != (time + 1 == length and terminates):
            wrong.append(f"{state}: done {done}, length {length}, terminates {terminates}")
    return wrong


def gaps(states: Any) -> list[tuple[int, int]]:
    """Return the episodes from which a transition is missing, or is there twice."""
    times: dict[tuple[int, int], list[int]] = {}
    for identity, episode, time, _ in states.astype(int).tolist():
        times.setdefault((identity, episode), []).append(time)
    return [key for key, found in times.items() if sorted(found) != list(range(len(found)))]


class EvaluatedAgent(OwnAgent):
    """Plays whole episodes in whatever environment, in the midst of training there."""

    def test(self, env: Any, swap_channels: bool = False, max_steps: int = 9, loop: int = 1) -> Any:
        self.fitness.append(float(evaluate(self.getAction, env, loop, max_steps).mean()))
        return self.fitness[-1]


def stored(env: Any, episodes: int = 3, max_steps: int = 41) -> tuple[list[Any], int]:
    """Return the rows that ``train()`` stores with an agent that acts at random, and its steps."""
    memory = ReplayBuffer(5, 10_000, FIELDS)
    seen: list[Any] = []
    train(
        env,
        "counting",
        "own",
        [EvaluatedAgent(i) for i in range(2)],
        memory,
        n_episodes=episodes,
        max_steps=max_steps,
        evo_epochs=2,
        target=None,
        callbacks=[seen.append],
        verbose=False,
    )
    return [field.numpy() for field in memory.sample(len(memory))], seen[-1].train_steps


@pytest.mark.parametrize("name", ENVS)
def test_next_state_is_always_the_true_successor(name: str) -> None:
    env = ENVS[name]()
    try:
        rows, steps = stored(env)
    finally:
        env.close()
    count = getattr(env, "num_envs", 1)
    assert faults(rows) == []
    assert gaps(rows[0]) == []
    assert len(rows[0]) == steps  # what is counted is what was stored
    most = 2 * 3 * 41 * count
    assert most * 0.6 < steps < most if "NEXT_STEP" in name else steps == most
    ends = [row for row in rows[3] if row[2] == script(int(row[0]), int(row[1]))[0]]
    assert len(ends) > 0.15 * steps, "too few episodes ended for this test to mean anything"


def test_a_wrong_successor_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransitionStream, "_final", lambda self, observation, *rest: observation)
    rows, _ = stored(InProcessVectorEnv([CountingEnv(i) for i in range(3)]))
    assert len(faults(rows)) > 50


def test_a_missing_row_is_counted() -> None:
    rows, _ = stored(CountingEnv())
    kept = rows[0][rows[0][:, 2] != 1]
    assert len(gaps(kept)) > 5


def test_terminated_cuts_the_bootstrap_and_truncated_never_does() -> None:
    rows, _ = stored(InProcessVectorEnv([CountingEnv(i) for i in range(3)]))
    done = {(int(s[0]), int(s[1])) for s, d in zip(rows[3], rows[4], strict=True) if d.item()}
    ended = {(int(s[0]), int(s[1])) for s in rows[3] if s[2] == script(int(s[0]), int(s[1]))[0]}
    truncated = {key for key in ended if not script(*key)[1]}
    assert len(truncated) > 10
    assert done == ended - truncated


def test_a_step_is_split_where_the_environment_allows_it() -> None:
    class Overridden(InProcessVectorEnv):
        def step(self, actions: Any) -> Any:
            return super().step(actions)

    assert steps_asynchronously(InProcessVectorEnv([CountingEnv()]))
    assert not steps_asynchronously(Overridden([CountingEnv()]))
    assert not steps_asynchronously(OwnVectorEnv(AutoresetMode.NEXT_STEP))
    patched = InProcessVectorEnv([CountingEnv()])
    patched.step = patched.step  # type: ignore[method-assign]
    assert not steps_asynchronously(patched)


def test_a_vector_env_without_autoreset_mode_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(EnvError, match=r"set env\.metadata\['autoreset_mode'\] to .*NEXT_STEP"):
        TransitionStream(OwnVectorEnv(None))


def test_same_step_without_final_obs_is_an_error() -> None:
    class Forgetful(OwnVectorEnv):
        def step(self, actions: Any) -> Any:
            return (*super().step(actions)[:4], {})

    with pytest.raises(EnvError, match="final_obs"):
        stored(Forgetful(AutoresetMode.SAME_STEP))


def test_discrete_spaces_that_start_elsewhere_are_numbered_from_zero() -> None:
    for env in (
        CorridorEnv(start=3),
        SyncVectorEnv(
            [functools.partial(CorridorEnv, 3)] * 2, autoreset_mode=AutoresetMode.NEXT_STEP
        ),
    ):
        stream = TransitionStream(env)
        assert set(stream.reset().tolist()) == {0}
        for action, place in ((1, 1), (1, 2), (0, 1)):
            stream.begin(np.full(stream.num_envs, action))
            step = stream.finish()
            assert set(step.next_state.tolist()) == {place}
            assert set(step.action.tolist()) == {action}


def test_images_are_turned_once_for_states_and_successors() -> None:
    env = CatchEnv()
    stream = TransitionStream(env, swap_channels=True)
    state = stream.reset(seed=1)
    assert state.shape == (1, 3, 10, 10)
    assert state.dtype == np.uint8
    for _ in range(9):
        stream.begin(np.array([1]))
        before, step = stream.state, stream.finish()
        assert step.state is before
        assert step.next_state.shape == (1, 3, 10, 10)
    assert step.terminated.all()
    assert step.next_state[0, 0, 9].max() == 255  # the ball has landed
    assert stream.state[0, 0, 0].max() == 255  # and is at the top again


def test_swap_channels_without_images_is_an_error() -> None:
    with pytest.raises(EnvError, match="CHANNELS_LAST"):
        TransitionStream(CountingEnv(), swap_channels=True)


class BrokenEnv(PayEnv):
    """Returns something else at its third step."""

    def __init__(self, **broken: Any) -> None:
        super().__init__(length=10)
        self.broken = broken

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.time == 3:
            observation = self.broken.get("observation", observation)
            reward = self.broken.get("reward", reward)
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"observation": np.array([np.nan], np.float32)}, "NaN or infinite"),
        ({"observation": np.array([np.inf], np.float32)}, "NaN or infinite"),
        ({"observation": np.zeros(2, np.float32)}, r"expected shape \(1,\)"),
        ({"observation": np.float32(1.0)}, r"expected shape \(1,\)"),  # would broadcast
        ({"reward": float("nan")}, "reward"),
        ({"reward": float("-inf")}, "reward"),
    ],
)
def test_a_broken_env_is_a_named_error_and_its_episode_is_not_stored(
    broken: Any, message: str
) -> None:
    memory = ReplayBuffer(2, 100, FIELDS)
    pop = [OwnAgent(0, action=1)]
    with pytest.raises(EnvError, match=message) as caught:
        train(BrokenEnv(**broken), "x", "own", pop, memory, target=None, verbose=False)
    assert caught.value.population == pop  # type: ignore[attr-defined]
    assert len(memory) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, np.zeros((1, 4), np.float32)),  # would broadcast over the sub-environments
        (1, np.zeros(1)),
        (1, 0.0),
        (2, np.zeros(1, bool)),
        (3, False),
    ],
)
def test_values_that_would_broadcast_over_sub_environments_are_refused(
    field: int, value: Any
) -> None:
    class Narrow(OwnVectorEnv):
        def step(self, actions: Any) -> Any:
            result = list(super().step(actions))
            result[field] = value
            return tuple(result)

    stream = TransitionStream(Narrow(AutoresetMode.NEXT_STEP))
    stream.reset()
    stream.begin(np.zeros(3, int))
    with pytest.raises(EnvError, match="expected"):
        stream.finish()


def test_an_agent_that_drops_the_batch_axis_is_named() -> None:
    stream = TransitionStream(OwnVectorEnv(AutoresetMode.NEXT_STEP))
    stream.reset()
    with pytest.raises(EnvError, match="expected 3 rows"):
        stream.begin(np.zeros(1, int))


def test_an_environment_that_only_resets_is_an_error_and_no_endless_loop() -> None:
    class Stuck(gym.vector.VectorEnv[Any, Any, Any]):
        """Says terminated in every step, the one that resets (NEXT_STEP) included."""

        num_envs = 1
        single_observation_space = gym.spaces.Box(0, 1, (1,))
        single_action_space = gym.spaces.Discrete(2)

        def __init__(self) -> None:
            self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

        def reset(self, **kwargs: Any) -> Any:
            return np.zeros((1, 1), np.float32), {}

        def step(self, actions: Any) -> Any:
            ended, going = np.ones(1, bool), np.zeros(1, bool)
            return np.zeros((1, 1), np.float32), np.zeros(1), ended, going, {}

    with pytest.raises(EnvError, match="again and again"):
        evaluate(lambda states: np.zeros(1, int), Stuck(), 3, 100)
