"""Those who watch a language run, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from agilerl.training.evolution import Generation
from agilerl.training.language_config import RunConfig
from agilerl.training.language_state import RunState
from agilerl.training.observers import Progress
from agilerl.training.wandb_log import WandbLogger

Observer = Callable[[Generation], None]


class Watch:
    """The progress line, wandb, and the observers of a user.

    Args:
        config: of the run.
        episodes: in all.
        start: what the run goes on from.
        observers: each is called with every generation.
        verbose: show the progress line on stderr.
    """

    def __init__(
        self,
        config: RunConfig,
        episodes: int,
        start: RunState,
        observers: Sequence[Observer],
        verbose: bool,
    ) -> None:
        self.start = start
        self.progress = Progress(episodes) if verbose else None
        self.logger = WandbLogger("agilerl", asdict(config)) if config.wandb else None
        own = [watcher for watcher in (self.progress, self.logger) if watcher is not None]
        self.observers: list[Observer] = [*own, *observers]

    def after_episode(self, done: int, steps: int, pop: Sequence[Any]) -> None:
        """Show that an episode is over."""
        if self.progress is not None:
            start = self.start
            self.progress.after_episode(start.episode + done, start.global_steps + steps, pop)

    def __call__(self, generation: Generation) -> None:
        """Tell everybody of a generation."""
        for observe in self.observers:
            observe(generation)

    def close(self, end: str) -> None:
        """Leave the last line, print how the run ended, and end the log."""
        if self.progress is not None:
            self.progress.close(end)
        if self.logger is not None:
            self.logger.close()
