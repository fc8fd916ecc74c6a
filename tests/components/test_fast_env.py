"""Environments that step all copies at once: true transitions, and the same episodes by seed."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agilerl.components.fast_env import EnvPoolVectorEnv
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import TransitionStream
from agilerl.errors import ConfigError, EnvError
from agilerl.training.executors import InProcess, Processes
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.envs import PayEnv
from tests.runs import FIELDS, run

Array = np.ndarray[Any, np.dtype[Any]]
missing = importlib.util.find_spec("envpool") is None
BACKENDS = ["vector", pytest.param("envpool", marks=pytest.mark.skipif(missing, reason="no pool"))]


def cartpole(state: Array, action: int) -> Array:
    """Return where gymnasium's own CartPole goes from a state."""
    env = gym.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    env.state = tuple(float(x) for x in state)  # type: ignore[attr-defined]
    return env.step(action)[0]


def played(env: Any, steps: int, seed: int) -> list[Any]:
    """Return the steps of random play."""
    stream = TransitionStream(env)
    stream.reset(seed=seed)
    rng, found = np.random.default_rng(0), []
    for _ in range(steps):
        stream.begin(rng.integers(2, size=stream.num_envs))
        found.append(stream.finish())
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_transitions_are_those_of_the_environment(backend: Any) -> None:
    env = makeVectEnvs("CartPole-v1", num_envs=3, seed=1, backend=backend)
    ended = 0
    for step in played(env, 120, seed=5):
        for i in range(3):
            if not step.valid[i]:
                assert step.reward[i] == 0 or backend == "vector"
                continue
            expected = cartpole(step.state[i], int(step.action[i]))
            np.testing.assert_allclose(step.next_state[i], expected, rtol=1e-4, atol=1e-5)
            out = abs(expected[0]) > 2.4 or abs(expected[2]) > 12 * 2 * np.pi / 360
            assert bool(step.terminated[i]) == bool(out)
            ended += int(step.terminated[i])
    assert ended > 5
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_repeats_the_episodes_and_another_does_not(backend: Any) -> None:
    env = makeVectEnvs("CartPole-v1", num_envs=2, backend=backend)
    first, again, other = (played(env, 60, seed) for seed in (3, 3, 4))
    states = [np.stack([step.next_state for step in steps]) for steps in (first, again, other)]
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[0] != states[2]).any()
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_seed_of_the_first_reset_is_that_of_the_environment(backend: Any) -> None:
    def begins(seed: int | None) -> Array:
        return makeVectEnvs("CartPole-v1", num_envs=2, seed=seed, backend=backend).reset()[0]

    assert (begins(1) == begins(1)).all()
    assert (begins(1) != begins(2)).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_are_the_same_on_workers(backend: Any) -> None:
    results = []
    for executor in (InProcess(), Processes(2)):
        pop = initialPopulation(
            "DQN", (4,), 2, False, {"arch": "mlp", "h_size": [8]},
            {"BATCH_SIZE": 8, "LEARN_STEP": 1}, 2, seed=1,
        )  # fmt: skip
        memory = ReplayBuffer(2, 500, FIELDS, seed=1)
        env = makeVectEnvs("CartPole-v1", num_envs=2, backend=backend)
        pop, fitnesses, _ = run(
            pop, env, memory=memory, n_episodes=3, max_steps=30, seed=2, executor=executor
        )
        results.append([fitnesses, [w.tolist() for a in pop for w in a.actor.parameters()]])
        executor.close()
    assert results[0] == results[1]


def test_what_a_backend_cannot_do_is_an_error() -> None:
    with pytest.raises(EnvError, match=r"'Acrobot-v1' has none .*CartPole-v1"):
        makeVectEnvs("Acrobot-v1", num_envs=2, backend="vector")
    with pytest.raises(ConfigError, match="backend: 'vector' needs the id"):
        makeVectEnvs(PayEnv, num_envs=2, backend="vector")
    with pytest.raises(ConfigError, match="workers: backend='vector' steps all copies at once"):
        makeVectEnvs("CartPole-v1", num_envs=2, workers=2, backend="vector")
    with pytest.raises(ConfigError, match="backend: 'pool' is not known"):
        makeVectEnvs("CartPole-v1", backend="pool")  # type: ignore[arg-type]


def test_without_envpool_the_error_says_how_to_install_it(monkeypatch: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(EnvError, match=r"pip install 'agilerl\[envpool\]'"):
        makeVectEnvs("CartPole-v1", backend="envpool")


@pytest.mark.skipif(missing, reason="EnvPool is not installed")
def test_an_environment_that_envpool_does_not_have_is_named() -> None:
    with pytest.raises(EnvError, match="EnvPool has no environment 'Nothing-v0'"):
        EnvPoolVectorEnv("Nothing-v0", 2)
