"""Time agilerl 0.1.6: its whole DQN training loop, or (``--micro``) the parts of it."""

from __future__ import annotations

import argparse
import contextlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import measure
import numpy as np
import torch

from agilerl.algorithms.cqn import CQN
from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs

PACKAGES = ("agilerl", "torch", "numpy", "gymnasium")
FIELDS = ["state", "action", "reward", "next_state", "done"]


class MeteredEnv:
    """A vector environment that reports its steps."""

    def __init__(self, env: gym.vector.VectorEnv, meter: measure.Meter) -> None:
        self._env = env
        self._meter = meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, action: np.ndarray) -> Any:
        """Take one vector step."""
        self._meter.step(self._env.num_envs)
        return self._env.step(action)


def metered(learn: Callable[..., Any], meter: measure.Meter) -> Callable[..., Any]:
    """Return ``learn`` so that each call is reported."""

    def counted(experiences: Any) -> Any:
        meter.learns += 1
        return learn(experiences)

    return counted


def fill_by_random_actions(env: gym.vector.VectorEnv, memory: ReplayBuffer, size: int) -> None:
    """Store ``size`` transitions of a random policy."""
    state, _ = env.reset(seed=0)
    env.action_space.seed(0)
    while len(memory) < size:
        action = env.action_space.sample()
        next_state, reward, done, _, _ = env.step(action)
        memory.save2memoryVectEnvs(state, action, reward, next_state, done)
        state = next_state


def time_training(flags: argparse.Namespace) -> None:
    """Time ``train()``, one learning step a vector step, evolution left out."""
    env = makeVectEnvs(flags.env, num_envs=flags.num_envs)
    action_dim = int(env.single_action_space.n)
    hyper_parameters = {
        "BATCH_SIZE": flags.batch_size,
        "LR": 1e-3,
        "LEARN_STEP": 1,
        "GAMMA": 0.99,
        "TAU": 1e-3,
        "DOUBLE": True,
    }
    population = initialPopulation(
        algo="DQN",
        state_dim=env.single_observation_space.shape,
        action_dim=action_dim,
        one_hot=False,
        net_config={"arch": "mlp", "h_size": flags.hidden},
        INIT_HP=hyper_parameters,
        population_size=flags.population,
    )
    memory = ReplayBuffer(action_dim, flags.memory_size, FIELDS)
    fill_by_random_actions(env, memory, flags.memory_size)
    meter = measure.Meter(flags.seconds)
    for agent in population:
        agent.learn = metered(agent.learn, meter)
    with contextlib.suppress(measure.TimeUp):
        train(
            MeteredEnv(env, meter),
            flags.env,
            "DQN",
            population,
            memory,
            n_episodes=10**6,
            max_steps=flags.max_steps,
            evo_epochs=10**6,
            eps_start=flags.epsilon,
            eps_end=flags.epsilon,
        )
    env.close()
    measure.report(
        "agilerl016", "train", PACKAGES, algo="DQN", **meter.rates(), **measure.settings(flags)
    )


def transitions(size: int, action: np.ndarray, state_dim: int = 8) -> Any:
    """Return a function that makes a fresh batch of transitions, as a vector environment would."""
    rng = np.random.default_rng(0)
    state = rng.standard_normal((size, state_dim), dtype=np.float32)

    def make() -> tuple[np.ndarray, ...]:
        nonlocal state
        before, state = state, state + rng.standard_normal(state.shape, dtype=np.float32)
        return before, action.copy(), rng.standard_normal(size), state, rng.random(size) < 0.01

    return make


def filled_memory(size: int, make: Callable[[], tuple[np.ndarray, ...]]) -> ReplayBuffer:
    memory = ReplayBuffer(4, size, FIELDS)
    while len(memory) < size:
        memory.save2memoryVectEnvs(*make())
    return memory


def bytes_per_transition(make: Callable[[], tuple[np.ndarray, ...]], size: int = 16_000) -> float:
    """Return what a stored transition adds to the memory of the process, allocator aside."""
    make()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    memory = filled_memory(size, make)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round((after - before) / len(memory), 1)


def time_parts(flags: argparse.Namespace) -> None:
    """Time learning, acting and the replay buffer, on states of 8 floats."""
    each = flags.seconds / 9
    discrete = transitions(flags.num_envs, np.arange(flags.num_envs) % 4)
    continuous = transitions(flags.num_envs, np.zeros((flags.num_envs, 2), dtype=np.float32))
    memory = filled_memory(100_000, discrete)
    batch = memory.sample(flags.batch_size)
    torques = filled_memory(1_000, continuous).sample(flags.batch_size)
    states = discrete()[0]

    def agent(algorithm: type, hidden: int, actions: int) -> Any:
        net_config = {"arch": "mlp", "h_size": [hidden, hidden]}
        return algorithm((8,), actions, False, net_config=net_config)

    learn: dict[str, float] = {}
    for algorithm, hidden in ((DQN, 32), (DQN, 64), (DQN, 128), (CQN, 64)):
        learner = agent(algorithm, hidden, 4)
        name = f"{algorithm.__name__} {hidden}x{hidden}"
        learn[name] = measure.milliseconds(lambda a=learner: a.learn(batch), each)
    ddpg = agent(DDPG, 64, 2)
    learn["DDPG 64x64"] = measure.milliseconds(lambda: ddpg.learn(torques), each)

    act: dict[str, float] = {}
    for hidden in (32, 64):
        actor = agent(DQN, hidden, 4)
        name = f"DQN {hidden}x{hidden}, {flags.num_envs} states"
        act[name] = measure.milliseconds(lambda a=actor: a.getAction(states, 0.0), each)
    sample = measure.milliseconds(lambda: memory.sample(flags.batch_size), each)
    rows = discrete()
    insert = measure.milliseconds(lambda: memory.save2memoryVectEnvs(*rows), each, chunk=200)
    measure.report(
        "agilerl016",
        "micro",
        PACKAGES,
        learn_ms=learn,
        act_ms=act,
        sample_ms={f"{flags.batch_size} of 100000": sample},
        insert_ms={f"{flags.num_envs} rows": insert},
        bytes_per_transition={"8 floats": bytes_per_transition(discrete)},
        batch_size=flags.batch_size,
        threads=flags.threads,
    )


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--population", type=int, default=6)
    parser.add_argument("--max-steps", type=int, default=500, help="vector steps of an episode")
    parser.add_argument("--micro", action="store_true", help="time the parts, not the loop")
    flags = measure.parse(parser)
    torch.manual_seed(0)
    (time_parts if flags.micro else time_training)(flags)


if __name__ == "__main__":
    main()
