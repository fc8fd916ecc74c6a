"""Logging to Weights & Biases."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agilerl.errors import ConfigError
from agilerl.training.run import Generation, RunObserver
from agilerl.training.run_state import RunState

#: Seconds to wait for the server before the run goes on offline.
PATIENCE = 20


class WandbLogger(RunObserver):
    """Logs each generation: fitness, hyper-parameters, architecture and mutation of every agent.

    Without a login, or where the server can't be reached, the run is logged offline (one line
    says so); ``wandb sync`` uploads it later.

    Whatever fails here never ends a run or loses anything: it is told once, and nothing more is
    logged.

    Args:
        project: name of the project; the variable ``WANDB_PROJECT`` goes first.
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
        project = os.environ.get("WANDB_PROJECT") or project
        self.run: Any = None
        with self._told():
            self.run = self._start(project, dict(config))
            if hasattr(self.run, "define_metric"):  # not where logging is disabled
                self.run.define_metric("global_steps")
                self.run.define_metric("*", step_metric="global_steps")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn whatever wandb raises into a line on stderr, and log nothing from then on."""
        try:
            yield
        except Exception as error:  # the network's or the server's affair, whatever it is
            self.run = None
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"wandb: {what}; nothing more is logged there.", file=sys.stderr)

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
        except Exception as error:  # whatever a server that is down makes wandb raise
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
        if self.run is not None:
            with self._told():
                self.run.log(row)

    def close(self, state: RunState, message: str) -> None:
        """End the run."""
        if self.run is not None:
            with self._told():
                self.run.finish()
