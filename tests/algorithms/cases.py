"""The agents that the conformance suite tries, and what is looked at in them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from agilerl.algorithms.base import EvolvableAgent
from agilerl.algorithms.cqn import CQN
from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.algorithms.td3 import TD3
from agilerl.seeding import generator

MLP: dict[str, Any] = {"arch": "mlp", "h_size": [16, 16], "min_mlp_nodes": 4}
CNN: dict[str, Any] = {
    "arch": "cnn",
    "h_size": [16, 16],
    "c_size": [8, 8],
    "k_size": [3, 2],
    "s_size": [1, 1],
    "min_mlp_nodes": 4,
}
ACTIONS = 3
BATCH = 16


@dataclass(frozen=True)
class Case:
    """An algorithm with one kind of observation, on the kernel or on autograd."""

    name: str
    cls: type[EvolvableAgent]
    state_dim: Any
    one_hot: bool
    net_config: Mapping[str, Any]
    kernel: bool
    settings: Mapping[str, Any] = field(default_factory=dict)

    def agent(self, **changes: Any) -> Any:
        """Return an agent that learns fast enough to be seen."""
        arguments = {
            "net_config": self.net_config,
            "batch_size": BATCH,
            "lr": 1e-2,
            "tau": 0.1,
            "seed": 0,
            **self.settings,
            **changes,
        }
        return self.cls(self.state_dim, ACTIONS, self.one_hot, **arguments)

    def states(self, count: int, seed: int = 0) -> Any:
        """Return a batch of observations as an environment gives them."""
        rng = np.random.default_rng(seed)
        if self.one_hot:
            return rng.integers(self.state_dim, size=count)
        shape = self.state_dim if isinstance(self.state_dim, tuple) else (self.state_dim,)
        if len(shape) == 3:
            return rng.integers(256, size=(count, *shape), dtype=np.uint8)
        return rng.standard_normal((count, *shape)).astype(np.float32)

    def batch(self, seed: int = 0, count: int = BATCH) -> list[torch.Tensor]:
        """Return experiences as the replay buffer samples them."""
        rng = np.random.default_rng(seed)
        if not self.cls.discrete:
            actions = torch.from_numpy(rng.uniform(-1, 1, (count, ACTIONS)).astype(np.float32))
        else:
            actions = torch.from_numpy(rng.integers(ACTIONS, size=(count, 1)))
        states, next_states = (torch.from_numpy(self.states(count, seed + i)) for i in (0, 1))
        if self.one_hot:
            states, next_states = states.float()[:, None], next_states.float()[:, None]
        rewards = torch.from_numpy(rng.standard_normal((count, 1)).astype(np.float32))
        dones = torch.from_numpy((rng.random((count, 1)) < 0.3).astype(np.float32))
        return [states, actions, rewards, next_states, dones]


def _cases() -> Iterator[Case]:
    algorithms: dict[str, tuple[type[EvolvableAgent], dict[str, Any]]] = {
        "DQN": (DQN, {}),
        "double DQN": (DQN, {"double": True}),
        "Huber DQN": (DQN, {"huber": True}),
        "CQN": (CQN, {"double": True, "alpha": 0.5}),
        "DDPG": (DDPG, {"policy_freq": 1}),
        "TD3": (TD3, {"policy_freq": 1}),
        "scaled DQN": (DQN, {"scale_observations": True}),
        "scaled TD3": (TD3, {"policy_freq": 1, "scale_observations": True}),
        "clipped DQN": (DQN, {"max_grad_norm": 0.1}),
        "clipped DDPG": (DDPG, {"policy_freq": 1, "max_grad_norm": 0.1}),
    }
    for name, (cls, settings) in algorithms.items():
        for kernel in (True, False):
            way = "kernel" if kernel else "autograd"
            yield Case(f"{name}, MLP, {way}", cls, (4,), False, MLP, kernel, settings)
            yield Case(f"{name}, one-hot, {way}", cls, 6, True, MLP, kernel, settings)
        yield Case(f"{name}, CNN", cls, (3, 8, 8), False, CNN, True, settings)


CASES = {case.name: case for case in _cases()}


class Walk(gym.Env[Any, Any]):
    """An environment of any spaces: random observations, reward 1, episodes of a fixed length."""

    def __init__(self, case: Case, length: int = 5) -> None:
        if case.one_hot:
            self.observation_space = gym.spaces.Discrete(case.state_dim)
        elif case.net_config is CNN:
            self.observation_space = gym.spaces.Box(0, 255, case.state_dim, np.uint8)
        else:
            self.observation_space = gym.spaces.Box(-1, 1, case.state_dim, np.float32)
        if not case.cls.discrete:
            self.action_space = gym.spaces.Box(-2, 2, (ACTIONS,), np.float32)
        else:
            self.action_space = gym.spaces.Discrete(ACTIONS)
        self.length, self.time = length, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed or 0)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.time += 1
        return self.observation_space.sample(), 1.0, self.time == self.length, False, {}


def trained(case: Case, **changes: Any) -> Any:
    """Return an agent that has learnt a little, and has a history."""
    agent = case.agent(index=3, mutation="first", **changes)
    for seed in range(3):
        agent.learn(case.batch(seed))
    agent.scores += [1.0, 2.0]
    agent.fitness += [3.0]
    agent.steps += [40]
    return agent


def edits_of(agent: Any) -> tuple[str, ...]:
    return (*agent.actor.LAYER_EDITS, *agent.actor.NODE_EDITS)


def edit_everywhere(agent: Any, method: str) -> None:
    """Make one edit with the same choice on every network of an agent, each by its own method."""
    rng, choice = generator(5), {}
    for owned in agent.networks.values():
        made = owned.evolvable.edit(method, rng, **choice)
        assert made is not None, f"{method} was refused"
        choice = made


# ----------------------------------------------------------------------------- looking at an agent


def tensors(agent: Any) -> dict[str, torch.Tensor]:
    """Return copies of everything that an agent has learnt: weights, targets, moments."""
    found: dict[str, torch.Tensor] = {}
    for name, owned in agent.networks.items():
        state = owned.state_dict()
        for part in ("module", "target"):
            found |= {f"{name} {part} {key}": value for key, value in state[part].items()}
        for key, entry in state["optimizer"]["moments"].items():
            found |= {f"{name} {key} {kind}": value for kind, value in entry.items()}
    return found


def differing(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors that are not the same bit for bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def digest(agent: Any) -> str:
    """Return the SHA-256 of everything that an agent has learnt."""
    total = hashlib.sha256()
    for name, value in sorted(tensors(agent).items()):
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def assert_same(one: Any, other: Any, path: str = "state") -> None:
    """Two states are the same bit for bit."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}[{key!r}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def assert_plain(state: Any, path: str = "state") -> None:
    """A state consists of tensors and plain values."""
    if isinstance(state, dict):
        for key, value in state.items():
            assert type(key) is str, path
            assert_plain(value, f"{path}[{key!r}]")
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            assert_plain(value, f"{path}[{i}]")
    else:
        assert type(state) in (torch.Tensor, str, int, float, bool, type(None)), path


def assert_learns(agent: Any, batch: list[torch.Tensor]) -> None:
    """One learn step changes every parameter, and every target follows a part of the way."""
    before = tensors(agent)
    loss = agent.learn(batch)
    assert np.isfinite(loss)
    after = tensors(agent)
    weights = [n for n in before if " module " in n or " target " in n]
    assert set(weights) <= set(differing_by_name(before, after)), "a parameter stood still"
    for name in weights:
        if " target " in name:
            old, new, online = before[name], after[name], after[name.replace("target", "module")]
            torch.testing.assert_close(new, old.lerp(online, agent.tau), rtol=1e-4, atol=1e-6)


def differing_by_name(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]
) -> list[str]:
    """Return the names whose tensors changed or are new."""
    return [n for n in after if n not in before or not torch.equal(before[n], after[n])]


def assert_optimisers_hold_the_live_parameters(agent: Any) -> None:
    """Each optimiser has exactly its network's parameters, and remembers nothing of others."""
    assert agent.optimizer is agent.policy_network.optimizer
    for owned in agent.networks.values():
        optimizer = owned.optimizer
        assert type(optimizer) is torch.optim.Adam
        held = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert held == [id(p) for p in owned.module.parameters()]
        assert {id(p) for p in optimizer.state} <= set(held)
        for parameter, entry in optimizer.state.items():
            assert entry["exp_avg"].shape == entry["exp_avg_sq"].shape == parameter.shape


def mutable_parts(root: Any) -> dict[Any, str]:
    """Return a path to all in ``root`` that could be changed: containers, memory, streams."""
    found: dict[Any, str] = {}
    stack: list[tuple[str, Any]] = [("agent", root)]
    while stack:
        path, value = stack.pop()
        key: Any = id(value)
        if isinstance(value, torch.Tensor) and value.numel():
            key = "memory", value.untyped_storage().data_ptr()
        elif not isinstance(value, Mapping | list | np.random.Generator) and not is_object(value):
            if isinstance(value, tuple):
                stack += [(f"{path}[{i}]", item) for i, item in enumerate(value)]
            continue
        if key in found:
            continue
        found[key] = path
        if isinstance(value, Mapping):
            stack += [(f"{path}[{k!r}]", item) for k, item in value.items()]
        elif isinstance(value, list):
            stack += [(f"{path}[{i}]", item) for i, item in enumerate(value)]
        elif is_object(value):
            stack += [(f"{path}.{k}", item) for k, item in vars(value).items()]
    return found


def is_object(value: Any) -> bool:
    """Return whether ``value`` is an object of this library or of torch with attributes."""
    own = type(value).__module__.startswith("agilerl.")
    frozen = dataclasses.is_dataclass(value) and not isinstance(value, EvolvableAgent)
    return (own and not frozen and hasattr(value, "__dict__")) or isinstance(
        value, nn.Module | torch.optim.Optimizer
    )
