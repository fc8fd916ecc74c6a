"""Behavioural cloning on Wordle, from a configuration to a result."""

from __future__ import annotations

from agilerl.algorithms.bc_lm import BC_LM
from agilerl.training.language_config import BCRunConfig
from agilerl.training.language_run import Outcome, run_experiment


def train(config: BCRunConfig, verbose: bool = True) -> Outcome:
    """Clone the games of the configured data; see ``language_run.run_experiment``."""
    outcome = run_experiment(config, verbose)
    assert isinstance(outcome.agent, BC_LM)
    return outcome
