"""Conservative Q-learning for discrete actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from agilerl.algorithms import losses
from agilerl.algorithms.dqn import DQN
from agilerl.algorithms.inputs import Checked, weight


class CQN(DQN):
    """CQL(H) with discrete actions (Kumar et al. 2020), on top of DQN.

    The loss is the TD loss plus ``alpha * (logsumexp Q(s, .) - Q(s, a))``, which pushes down the
    values of actions that the data does not show.  Departure: the TD loss is not halved, unless
    ``huber`` is set; for the same objective ``alpha`` is then half as large.

    Args:
        alpha: weight of the conservative penalty.
        others: see ``DQN`` and ``EvolvableAgent``.
    """

    algo: ClassVar[str] = "CQN"
    own_settings: ClassVar[tuple[str, ...]] = (*DQN.own_settings, "alpha")
    hyperparameter_names: ClassVar[tuple[str, ...]] = (*DQN.hyperparameter_names, "alpha")

    alpha = Checked(weight)

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
        alpha: float = 1.0,
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
            double,
            device,
            accelerator,
            seed,
            huber,
        )
        self.alpha = alpha

    @np.errstate(all="ignore")
    def learn(self, experiences: Sequence[Any]) -> float:
        """Make one step on the conservative loss of a batch, and return the loss."""
        td_loss, td_gradient, values, actions = self.q_loss(experiences)
        penalty, push = losses.conservative(values, actions)
        return self.descend(td_loss + self.alpha * penalty, td_gradient + self.alpha * push)
