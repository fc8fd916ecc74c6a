"""Logging to Weights & Biases."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from agilerl.errors import ConfigError
from agilerl.training.run import Generation, RunObserver, RunState

#: Seconds to wait for the server before the run goes on offline.
PATIENCE = 20


class WandbLogger(RunObserver):
    """Logs each generation: fitness, hyper-parameters, architecture and mutation of every agent.

    Without a login, or where the server can't be reached, the run is logged offline (one line
    says so); ``wandb sync`` uploads it later.

    Args:
        project: name of the project.
        config: of the run.

    Raises:
        ConfigError: if wandb is not installed.
    """

    def __init__(self, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                "wb: wandb is not installed; run `pip install wandb`, or pass wb=False."
            ) from error
        self.wandb = wandb
        self.run = self._start(project, dict(config))

    def _start(self, project: str, config: dict[str, Any]) -> Any:
        wandb = self.wandb
        arguments: dict[str, Any] = {
            "project": project,
            "config": config,
            "reinit": "finish_previous",
        }
        if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
            return wandb.init(**arguments)
        reason = "not logged in"
        try:
            if wandb.login(prompt=False, verify=False):
                return wandb.init(**arguments, settings=wandb.Settings(init_timeout=PATIENCE))
        except (wandb.Error, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"wandb: {reason}; logging offline, `wandb sync` uploads it later.", file=sys.stderr)
        return wandb.init(**arguments, mode="offline", settings=wandb.Settings(silent=True))

    def __call__(self, generation: Generation) -> None:
        """Log a generation against global steps."""
        fitnesses = generation.fitnesses
        row: dict[str, Any] = {
            "global_steps": generation.global_steps,
            "train_steps": generation.train_steps,
            "eval_steps": generation.eval_steps,
            "episode": generation.episode,
            "fitness/best": generation.best_fitness,
            "fitness/mean": sum(fitnesses) / len(fitnesses),
        }
        for agent in generation.rows:
            own = {key: value for key, value in agent.items() if key not in row}
            row.update({f"agent_{agent['slot']}/{key}": value for key, value in own.items()})
        self.run.log(row)

    def close(self, state: RunState, message: str) -> None:
        """End the run."""
        self.run.finish()
