"""The agents, one file an algorithm."""

from __future__ import annotations

from agilerl.algorithms.agent import Agent
from agilerl.algorithms.base import EvolvableAgent
from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.cqn import CQN
from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.algorithms.ilql import ILQL
from agilerl.algorithms.td3 import TD3

#: The agents that train on transitions, by the name of their algorithm.
AGENTS: dict[str, type[EvolvableAgent]] = {agent.algo: agent for agent in (DQN, CQN, DDPG, TD3)}
#: All agents, likewise.
ALGORITHMS: dict[str, type[Agent]] = {**AGENTS, **{agent.algo: agent for agent in (BC_LM, ILQL)}}

__all__ = [
    "AGENTS",
    "ALGORITHMS",
    "BC_LM",
    "CQN",
    "DDPG",
    "DQN",
    "ILQL",
    "TD3",
    "Agent",
    "EvolvableAgent",
]
