"""Agents of a user's own, for the tests: they share no code with the library's agents."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from agilerl.networks.evolvable_mlp import EvolvableMLP

Array = np.ndarray[Any, np.dtype[Any]]


class OwnAgent:
    """The least that a training loop needs; it acts at random from its own stream.

    Args:
        index: identity.
        fitnesses: what ``test()`` gives in turn (the last again and again); None plays episodes.
        action: the greedy action, or None for random ones.
    """

    actions = 5

    def __init__(
        self,
        index: int = 0,
        fitnesses: list[float] | None = None,
        action: int | None = None,
        batch_size: int = 4,
        learn_step: int = 1,
    ) -> None:
        self.index = index
        self.fitnesses, self.action = fitnesses, action
        self.batch_size, self.learn_step = batch_size, learn_step
        self.scores: list[float] = []
        self.fitness: list[float] = []
        self.steps = [0]
        self.learnt = 0
        self.rng = np.random.default_rng(index)

    def getAction(self, state: Array, epsilon: float = 0) -> Array:
        if self.action is not None:
            return np.full(len(state), self.action)
        return self.rng.integers(self.actions, size=len(state))

    def learn(self, experiences: Any) -> None:
        self.learnt += 1

    def test(
        self, env: Any, swap_channels: bool = False, max_steps: int = 500, loop: int = 3
    ) -> float:
        if self.fitnesses is not None:
            value = self.fitnesses[min(len(self.fitness), len(self.fitnesses) - 1)]
        else:
            state, value = env.reset()[0], 0.0
            for _ in range(max_steps):
                state, reward, _, _, _ = env.step(self.getAction(state))
                value += float(np.mean(reward))
        self.fitness.append(value)
        return value

    def clone(self, index: int | None = None) -> Self:
        twin = copy.deepcopy(self)
        twin.index = self.index if index is None else index
        return twin

    def saveCheckpoint(self, path: str | Path) -> None:
        Path(path).write_text(f"agent {self.index}")


class OwnQAgent(OwnAgent):
    """Q-learning with networks of the user's own, and whichever optimiser.

    Args:
        network: builds a network ``inputs -> outputs``.
        optimizer: builds an optimiser of parameters.
    """

    def __init__(
        self, index: int, inputs: int, actions: int, network: Any, optimizer: Any = torch.optim.Adam
    ) -> None:
        super().__init__(index, batch_size=16)
        self.actions, self.lr = actions, 1e-3
        self.actor = network(inputs, actions)
        self.actor_target = copy.deepcopy(self.actor)
        self.optimizer = optimizer(self.actor.parameters(), lr=self.lr)

    def getAction(self, state: Array, epsilon: float = 0) -> Array:
        with torch.no_grad():
            values = self.actor(torch.as_tensor(np.asarray(state), dtype=torch.float32))
        greedy = values.argmax(1).numpy()
        explore = self.rng.random(len(greedy)) < epsilon
        return np.where(explore, self.rng.integers(self.actions, size=len(greedy)), greedy)

    def learn(self, experiences: Any) -> None:
        states, actions, rewards, next_states, dones = experiences
        with torch.no_grad():
            target = rewards + 0.9 * (1 - dones) * self.actor_target(next_states).amax(1, True)
        loss = (self.actor(states).gather(1, actions.long()) - target).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for old, new in zip(
                self.actor_target.parameters(), self.actor.parameters(), strict=True
            ):
                old.lerp_(new, 0.1)
        self.learnt += 1

    def clone(self, index: int | None = None) -> Self:
        twin = super().clone(index)
        twin.rng = np.random.default_rng([twin.index, 7])
        return twin


Q_LAYOUT = {"actor": {"eval": "actor", "target": "actor_target", "optimizer": "optimizer"}}


def evolvable(inputs: int, outputs: int) -> EvolvableMLP:
    return EvolvableMLP(inputs, outputs, [16, 16], seed=3)


def plain_module(inputs: int, outputs: int) -> nn.Module:
    """Return a network that cannot change its shape, initialised from its own stream."""
    net = nn.Sequential(
        nn.utils.skip_init(nn.Linear, inputs, 16),
        nn.Tanh(),
        nn.utils.skip_init(nn.Linear, 16, outputs),
    )
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.3, generator=draw)
    return net


class OwnActorCritic(OwnAgent):
    """An actor and a critic that one optimiser trains."""

    def __init__(self, index: int, inputs: int, actions: int) -> None:
        super().__init__(index, batch_size=16)
        self.actions, self.lr = actions, 1e-3
        self.actor, self.critic = evolvable(inputs, actions), evolvable(inputs, 1)
        both = [*self.actor.parameters(), *self.critic.parameters()]
        self.both = torch.optim.Adam(both, lr=self.lr)

    def getAction(self, state: Array, epsilon: float = 0) -> Array:
        with torch.no_grad():
            values = self.actor(torch.as_tensor(np.asarray(state), dtype=torch.float32))
        return values.argmax(1).numpy()

    def learn(self, experiences: Any) -> None:
        states, actions, rewards, next_states, dones = experiences
        value = self.critic(states)
        with torch.no_grad():
            target = rewards + 0.9 * (1 - dones) * self.critic(next_states)
        advantage = (target - value).detach()
        log_p = self.actor(states).log_softmax(1).gather(1, actions.long())
        loss = (value - target).square().mean() - (advantage * log_p).mean()
        self.both.zero_grad()
        loss.backward()
        self.both.step()
        self.learnt += 1


ACTOR_CRITIC_LAYOUT = {
    "actor": {"eval": "actor", "optimizer": "both"},
    "critics": [{"eval": "critic", "optimizer": "both"}],
}
