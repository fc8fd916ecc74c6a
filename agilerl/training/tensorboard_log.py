"""Logging to TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from agilerl.errors import ConfigError
from agilerl.training.run import Generation


class TensorBoardLogger:
    """A callback of ``train()`` that logs each generation against global steps.

    Args:
        path: folder of the event files.

    Raises:
        ConfigError: if tensorboard is not installed (extra ``tensorboard``).
    """

    def __init__(self, path: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "tensorboard: not installed; pip install 'agilerl[tensorboard]'."
            ) from error
        self.writer: Any = SummaryWriter(str(path))

    def __call__(self, generation: Generation) -> None:
        """Log best and mean fitness, and every number in the rows of the agents."""
        step = generation.global_steps
        values = {"fitness/best": generation.best_fitness}
        values["fitness/mean"] = sum(generation.fitnesses) / len(generation.fitnesses)
        for row in generation.rows:
            values |= {
                f"agent_{row['slot']}/{name}": value
                for name, value in row.items()
                if isinstance(value, int | float) and name != "slot"
            }
        for name, value in values.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, step)
        self.writer.flush()
