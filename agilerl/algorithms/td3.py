"""Twin delayed deep deterministic policy gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agilerl.algorithms.ddpg import DDPG


@dataclass(eq=False, repr=False)
class TD3(DDPG):
    """TD3 (Fujimoto et al. 2018): DDPG with two critics whose targets are the lesser of the two.

    A single critic's errors are found and exploited by its own targets, which overestimates values;
    the lesser of two independent ones does not.  The actor climbs the first critic.  The paper's
    other two parts, delayed policy updates and target smoothing, are in ``DDPG`` already.
    Departures: actions are explored with the training loop's epsilon in place of Normal(0, 0.1),
    and there are no random actions at the start.

    Args: see ``DDPG`` and ``EvolvableAgent``.
    """

    algo: ClassVar[str] = "TD3"
    CRITICS: ClassVar[tuple[str, ...]] = ("critic", "critic_2")
