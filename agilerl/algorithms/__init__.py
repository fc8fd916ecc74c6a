"""The agents, one file an algorithm."""

from __future__ import annotations

from agilerl.algorithms.base import EvolvableAgent
from agilerl.algorithms.cqn import CQN
from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN

#: The agents that train on transitions, by the name of their algorithm.
AGENTS: dict[str, type[EvolvableAgent]] = {agent.algo: agent for agent in (DQN, CQN, DDPG)}
