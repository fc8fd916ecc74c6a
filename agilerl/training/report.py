"""What a run leaves behind: a folder with its history, a picture, and the elite."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agilerl.checkpoint import write_bytes
from agilerl.components.make_env import make_env
from agilerl.components.transitions import evaluate
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import CheckpointError
from agilerl.training.observers import CSVLogger
from agilerl.training.pictures import fitness_history, save_or_show

HISTORY = "history.csv"
PICTURE = "fitness.png"
ELITE = "elite.pt"
SUMMARY = "elite.yaml"


class RunFolder:
    """The folder of one run, ``history.csv`` growing in it while the run goes on.

    Args:
        path: of the folder; it is made.
        env_name: id of the environment.
        swap_channels: images come as [H, W, C].
    """

    def __init__(self, path: str | Path, env_name: str, swap_channels: bool = False) -> None:
        self.path = Path(path)
        self.env_name = env_name
        self.swap_channels = swap_channels
        self.history = CSVLogger(self.path / HISTORY)

    def write(
        self, pop: Sequence[Any], target: float | None, settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write the picture, the elite's checkpoint and its summary; return the summary.

        Args:
            pop: the population, fittest first.
            target: drawn in the picture.
            settings: of the run, noted in the summary.
        """
        elite = pop[0]
        elite.saveCheckpoint(self.path / ELITE)
        summary = {
            "env": self.env_name,
            "algo": elite.algo,
            "hyperparameters": {k: _rounded(v) for k, v in elite.hyperparameters.items()},
            "architecture": elite.architecture,
            "network": {k: v for k, v in elite.actor.init_dict.items() if k != "device"},
            "fitness": _rounded(elite.fitness[-1]) if elite.fitness else None,
            "swap_channels": self.swap_channels,
            "run": dict(settings),
        }
        text = yaml.safe_dump(summary, sort_keys=False)
        write_bytes(self.path / SUMMARY, text.encode())
        rows = read_history(self.path / HISTORY)
        if rows:
            title = f"{elite.algo} on {self.env_name}, population of {len(pop)}"
            save_or_show(fitness_history(rows, title, target), self.path / PICTURE)
        return summary

    def describe(self, summary: Mapping[str, Any]) -> str:
        """Return, in a few lines, where everything is and what evolution found."""
        settings = "  ".join(f"{k} {v:g}" for k, v in summary["hyperparameters"].items())
        return "\n".join(
            (
                f"elite      {settings}",
                f"network    {summary['architecture']}",
                f"written    {self.path}/  ({PICTURE}, {HISTORY}, {ELITE}, {SUMMARY})",
                f"replay     {Path(sys.executable).name} -m agilerl.training.replay {self.path}",
            )
        )


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a ``history.csv``, numbers as numbers; none if there is no such file."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row.update({k: float(row[k]) for k in ("generation", "global_steps", "fitness")})
    return rows


def load_elite(path: str | Path, classes: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the elite of a run folder and its summary.

    Args:
        path: of the folder.
        classes: agent classes by the name of their algorithm.

    Raises:
        CheckpointError: if the folder is not that of a run that has ended.
    """
    folder = Path(path)
    try:
        summary = yaml.safe_load((folder / SUMMARY).read_text())
        agent = classes[summary["algo"]].load(folder / ELITE)
        summary["env"], summary["swap_channels"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: expected the folder of a run, with {SUMMARY} and {ELITE} ({error!r})."
        ) from error
    return agent, summary


def returns_of(
    agent: Any, summary: Mapping[str, Any], episodes: int, seed: int | None, render: bool = False
) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the undiscounted returns [episodes] of an elite in its environment."""
    mode = {"render_mode": "human"} if render else {}
    env = InProcessVectorEnv([make_env(summary["env"], **mode)], seed=seed)
    try:
        spec = env.spec
        longest = (spec.max_episode_steps if spec else None) or 10_000
        agent.adapt_to_env(env)
        act = agent.getAction
        returns = evaluate(act, env, episodes, longest, bool(summary["swap_channels"]))
        return np.asarray(returns[0])
    finally:
        env.close()
