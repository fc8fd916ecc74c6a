"""Conservative Q-learning for discrete actions."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from agilerl.algorithms import losses
from agilerl.algorithms.dqn import DQN
from agilerl.algorithms.settings import hyperparameter


@dataclass(eq=False, repr=False)
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

    _: KW_ONLY
    alpha: float = hyperparameter(1.0, range=(1e-2, 10.0), log=True)

    def loss(self, values: Any, actions: Any, targets: Any) -> tuple[Any, Any]:
        """Return the conservative loss [] of Q values [B, A] and its gradient."""
        td_loss, td_gradient = super().loss(values, actions, targets)
        penalty, push = losses.conservative(values, actions)
        return td_loss + self.alpha * penalty, td_gradient + self.alpha * push
