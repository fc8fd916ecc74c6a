"""Deep Q-learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from agilerl.algorithms import losses
from agilerl.algorithms.arrays import to_array
from agilerl.algorithms.base import Array, EvolvableAgent, learning
from agilerl.algorithms.settings import Setting, device_setting, flag, no_accelerator, setting
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.components.spaces import check_discrete_actions
from agilerl.finite import finite
from agilerl.networks.base import EvolvableNetwork
from agilerl.networks.build import build_network
from agilerl.seeding import derive


@dataclass(eq=False, repr=False)
class DQN(EvolvableAgent):
    """Deep Q-network (Mnih et al. 2015), with double Q-learning (van Hasselt et al. 2016).

    Departures: the loss is the mean squared TD error without clipping, unless ``huber`` is set,
    and the target network moves by Polyak averaging at each learn step.

    Args:
        double: the online network picks the next action and the target network values it.
        huber: Huber's loss of the TD error: its gradient is that of half the square within 1, and
            clipped beyond, as in the paper.
        others: see ``EvolvableAgent``.
    """

    algo: ClassVar[str] = "DQN"
    discrete: ClassVar[bool] = True

    double: bool = setting(False, flag)
    device: Setting[str | torch.device | None, torch.device] = device_setting()
    accelerator: None = setting(None, no_accelerator)
    _: KW_ONLY
    huber: bool = setting(False, flag)

    def build_networks(self) -> dict[str, TrainedNetwork]:
        """Return the Q network: a linear head with one value for each action."""

        def build() -> EvolvableNetwork:
            return build_network(
                self.net_config,
                self.observation_shape,
                self.action_dim,
                device=self.device,
                seed=derive(self.seed, "actor"),
            )

        return {"actor": TrainedNetwork(self.own_policy(build), lr=self.lr)}

    def adapt_to_env(self, env: Any) -> None:
        """Raise ``EnvError`` if the environment's actions are not 0..action_dim-1."""
        check_discrete_actions(env, self.action_dim)

    def act(self, states: Any, epsilon: float) -> Array:
        """Return the actions [N] of highest value; each is random with probability epsilon."""
        averaged = self.averaged_policy and epsilon == 0
        values = to_array(self.policy_network.infer(states, target=averaged))
        if not finite(values):
            self.note_divergence("Q values are")
        actions: Array = values.argmax(1)
        if epsilon > 0:
            chance, choice = self.rng.random((2, len(actions)))
            explore = chance < epsilon
            if explore.any():
                actions[explore] = (choice[explore] * self.action_dim).astype(np.int64)
        return actions

    def loss(self, values: Any, actions: Any, targets: Any) -> tuple[Any, Any]:
        """Return the loss [] of Q values [B, A] and its gradient with respect to them."""
        return losses.q_learning(values, actions, targets, self.huber)

    @learning
    def learn(self, experiences: Sequence[Any]) -> float:
        """Make one step on the loss of a batch, move the target, and return the loss."""
        states, actions, rewards, next_states, dones = self.unpack(experiences)
        q = self.policy_network
        next_q = q.infer(next_states, target=True)
        chooser = q.infer(next_states) if self.double else next_q
        targets = losses.q_targets(rewards, dones, next_q, chooser, self.gamma)
        loss = self.descend(q, *self.loss(q.forward(states), actions, targets))
        q.soft_update(self.tau)
        self.learn_count += 1
        return loss
