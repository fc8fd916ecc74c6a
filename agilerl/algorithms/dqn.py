"""Deep Q-learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from agilerl.algorithms import losses
from agilerl.algorithms.base import Array, EvolvableAgent
from agilerl.algorithms.inputs import as_integers, to_array
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.components.spaces import check_discrete_actions
from agilerl.networks.build import build_network
from agilerl.seeding import derive


class DQN(EvolvableAgent):
    """Deep Q-network (Mnih et al. 2015), with double Q-learning (van Hasselt et al. 2016).

    Departures: the loss is the mean squared TD error without clipping, unless ``huber`` is set,
    and the target network follows by Polyak averaging at each learn step.

    Args:
        double: the online network picks the next action and the target network values it.
        huber: Huber's loss of the TD error: its gradient is that of half the square within 1, and
            clipped beyond, as in the paper.
        others: see ``EvolvableAgent``.
    """

    algo: ClassVar[str] = "DQN"
    own_settings: ClassVar[tuple[str, ...]] = ("double", "huber")

    def __init__(
        self,
        state_dim: int | Sequence[int],
        action_dim: int,
        one_hot: bool,
        index: int = 0,
        net_config: Mapping[str, Any] | None = None,
        batch_size: int = 64,
        lr: float = 1e-4,
        learn_step: int = 5,
        gamma: float = 0.99,
        tau: float = 1e-3,
        mutation: str | None = None,
        double: bool = False,
        device: str | torch.device = "cpu",
        accelerator: None = None,
        seed: int | None = None,
        huber: bool = False,
    ) -> None:
        super().__init__(
            state_dim,
            action_dim,
            one_hot,
            index,
            net_config,
            batch_size,
            lr,
            learn_step,
            gamma,
            tau,
            mutation,
            device,
            accelerator,
            seed,
        )
        self.double, self.huber = bool(double), bool(huber)
        self.networks = self.build_networks()

    def build_networks(self) -> dict[str, TrainedNetwork]:
        """Return the Q network: a linear head with one value for each action."""
        q = build_network(
            self.net_config,
            self.state_dim,
            self.action_dim,
            device=self.device,
            seed=derive(self.seed, "actor"),
        )
        return {"actor": TrainedNetwork(q, lr=self.lr)}

    def bind(self, env: Any) -> None:
        """Raise ``EnvError`` if the environment's actions are not 0..action_dim-1."""
        check_discrete_actions(env, self.action_dim)

    def act(self, states: Any, epsilon: float) -> Array:
        """Return the actions [N] of highest value; each is random with probability epsilon."""
        actions: Array = to_array(self.policy.infer(states).argmax(1))
        if epsilon > 0:
            explore = self.rng.random(len(actions)) < epsilon
            random = self.rng.integers(self.action_dim, size=len(actions))
            actions = np.where(explore, random, actions)
        return actions

    def q_loss(self, experiences: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
        """Return the TD loss [], its gradient by the Q values, the Q values [B, A] and actions."""
        states, actions, rewards, next_states, dones = self.unpack(experiences)
        actions = as_integers(actions)
        q = self.policy
        next_q = q.infer(next_states, target=True)
        best = (q.infer(next_states) if self.double else next_q).argmax(1)
        next_values = next_q[losses.rows(next_q), best]
        targets = losses.td_target(rewards, dones, next_values, self.gamma)
        values = q.forward(states)
        return *losses.q_learning(values, actions, targets, self.huber), values, actions

    @np.errstate(all="ignore")
    def learn(self, experiences: Sequence[Any]) -> float:
        """Make one step on the TD error of a batch, move the target, and return the loss."""
        loss, gradient, _, _ = self.q_loss(experiences)
        return self.descend(loss, gradient)

    def descend(self, loss: Any, gradient: Any) -> float:
        """Step along the gradient of ``loss`` by the Q values, move the target, return the loss."""
        q = self.policy
        q.backward(gradient)
        q.step()
        q.soft_update(self.tau)
        self.learn_count += 1
        return float(loss)
