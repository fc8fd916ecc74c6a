"""Implicit Language Q-Learning on Wordle, from a configuration to a result."""

from __future__ import annotations

from agilerl.algorithms.ilql import ILQL
from agilerl.training.language_config import ILQLRunConfig
from agilerl.training.language_run import Outcome, run_experiment


def train(config: ILQLRunConfig, verbose: bool = True) -> Outcome:
    """Train on the configured data, from ``model.load``; see ``language_run.run_experiment``."""
    outcome = run_experiment(config, verbose)
    assert isinstance(outcome.agent, ILQL)
    return outcome
