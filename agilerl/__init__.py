"""Evolutionary hyper-parameter optimisation for deep reinforcement learning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from agilerl.algorithms.cqn import CQN
    from agilerl.algorithms.ddpg import DDPG
    from agilerl.algorithms.dqn import DQN
    from agilerl.components.replay_buffer import ReplayBuffer
    from agilerl.errors import (
        AgileRLError,
        CheckpointError,
        ConfigError,
        DatasetError,
        EnvError,
    )
    from agilerl.hpo.mutation import Mutations
    from agilerl.hpo.selection import TruncationSelection
    from agilerl.hpo.tournament import TournamentSelection
    from agilerl.runs.evaluation import check_env, evaluate
    from agilerl.runs.evolve import Run, evolve
    from agilerl.training.train import train
    from agilerl.utils.utils import initialPopulation, makeVectEnvs

#: What ``from agilerl import NAME`` finds, and where; it is loaded when it is asked for.
_WHERE = {
    "evolve": "agilerl.runs.evolve",
    "Run": "agilerl.runs.evolve",
    "evaluate": "agilerl.runs.evaluation",
    "check_env": "agilerl.runs.evaluation",
    "train": "agilerl.training.train",
    "initialPopulation": "agilerl.utils.utils",
    "makeVectEnvs": "agilerl.utils.utils",
    "ReplayBuffer": "agilerl.components.replay_buffer",
    "TournamentSelection": "agilerl.hpo.tournament",
    "TruncationSelection": "agilerl.hpo.selection",
    "Mutations": "agilerl.hpo.mutation",
    "DQN": "agilerl.algorithms.dqn",
    "DDPG": "agilerl.algorithms.ddpg",
    "CQN": "agilerl.algorithms.cqn",
    "AgileRLError": "agilerl.errors",
    "CheckpointError": "agilerl.errors",
    "ConfigError": "agilerl.errors",
    "DatasetError": "agilerl.errors",
    "EnvError": "agilerl.errors",
}

__all__ = [
    "CQN",
    "DDPG",
    "DQN",
    "AgileRLError",
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "EnvError",
    "Mutations",
    "ReplayBuffer",
    "Run",
    "TournamentSelection",
    "TruncationSelection",
    "__version__",
    "check_env",
    "evaluate",
    "evolve",
    "initialPopulation",
    "makeVectEnvs",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a name of the package when it is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'agilerl' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    """Return the names of the package."""
    return sorted({*globals(), *_WHERE})
