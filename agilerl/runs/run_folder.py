"""The folder of one run: what was set, what happened, and the best agent.

settings.yaml    what repeats the run
history.jsonl    one row for each agent and evaluation (history.csv has the same)
fitness.png      the fitness of the population
elite/           the best agent that ever was (agent.pt), and what it is (elite.yaml)
checkpoints/     where the run goes on from, if it saves any
report.html      see ``runs.report``
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from agilerl import __version__, checkpoint
from agilerl.algorithms import AGENTS
from agilerl.checkpoint import write_bytes
from agilerl.errors import CheckpointError
from agilerl.training.history import HISTORY, Row, lineage, read_rows, write_rows
from agilerl.training.pictures import fitness_history, save_or_show
from agilerl.training.run import Generation
from agilerl.training.yaml_config import UNREADABLE, parse

SETTINGS, PICTURE = "settings.yaml", "fitness.png"
TIMES = "times.json"
ELITE, SUMMARY = "elite/agent.pt", "elite/elite.yaml"


class RunFolder:
    """Writes the folder of a run; a callback of ``train()``, called with every generation.

    Where a run goes on, its history goes on too, without a row twice.

    Args:
        path: of the folder; it is made.
        settings: of the run, plain values; "env" is the environment's id, or its name.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = dict(settings)
        self.rows: list[Row] | None = None
        self.best_ever: Any = None
        self.path.mkdir(parents=True, exist_ok=True)
        write_yaml(self.path / SETTINGS, {**self.settings, "versions": versions()})

    def __call__(self, generation: Generation) -> None:
        """Add the rows of a generation, and save the best agent if there is a new one."""
        if self.rows is None:
            earlier = read_rows(self.path) if generation.number else []
            self.rows = [row for row in earlier if row["generation"] < generation.number]
            write_rows(self.path, self.rows, "w")
        self.rows += generation.rows
        write_rows(self.path, generation.rows, "a")
        self.add_times(generation)
        if generation.best_ever is not None and generation.best_ever is not self.best_ever:
            self.best_ever = generation.best_ever
            self.save_elite()

    def add_times(self, generation: Generation) -> None:
        """Note how much of the time went into evaluation."""
        before = read_times(self.path) if generation.number else {}
        evaluation = before.get("evaluation", 0.0) + generation.evaluation_seconds
        times = {
            "evaluation": evaluation,
            "total": generation.seconds + generation.evaluation_seconds,
        }
        write_bytes(self.path / TIMES, json.dumps(times).encode())

    def save_elite(self, evaluation: Mapping[str, Any] | None = None) -> None:
        """Write the best agent, and what it is; ``evaluation`` says how it did afterwards."""
        agent, rows = self.best_ever, self.rows or []
        agent.saveCheckpoint(self.path / ELITE)
        settings = {k: plain(v) for k, v in agent.settings().items() if v is not None}
        shape = {"state_dim": settings.pop("state_dim"), "action_dim": settings.pop("action_dim")}
        apart = ("min_action", "max_action", "policy")
        named = {k: settings.pop(k) for k in apart if k in settings}
        summary = {
            "env": self.settings.get("env"),
            "fitness": plain(agent.fitness[-1]) if agent.fitness else None,
            "evaluation": dict(evaluation) if evaluation else None,
            "architecture": agent.architecture,
            "hyperparameters": {k: plain(v) for k, v in agent.hyperparameters.items()},
            "initialPopulation": {
                "algo": agent.algo,
                **shape,
                "one_hot": settings.pop("one_hot"),
                "net_config": evolved_config(agent, settings.pop("net_config")),
                "INIT_HP": {name.upper(): value for name, value in settings.items()},
                **named,
            },
            "schedule": schedule(rows, agent),
            "run": self.settings,
            "versions": versions(),
        }
        write_yaml(self.path / SUMMARY, summary)

    def close(self, target: float | None = None) -> None:
        """Draw the picture of the run, if anything was evaluated."""
        if self.rows:
            title = f"{self.settings.get('algo', '')} on {self.settings.get('env', '')}"
            save_or_show(fitness_history(self.rows, title, target), self.path / PICTURE)


def read_times(path: str | Path) -> dict[str, float]:
    """Return the seconds of evaluation and of all in a run folder; nothing if none were noted."""
    try:
        found = json.loads((Path(path) / TIMES).read_text())
        return {name: float(found[name]) for name in ("evaluation", "total")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def evolved_config(agent: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the net_config of which a new agent has the shape that this one has now."""
    shape = agent.actor.init_dict
    names = {
        "h_size": "hidden_size",
        "c_size": "channel_size",
        "k_size": "kernel_size",
        "s_size": "stride_size",
        "activation": "activation",
    }
    now = {key: shape[name] for key, name in names.items() if name in shape}
    return plain({**config, **now})  # type: ignore[no-any-return]


def schedule(rows: Sequence[Row], agent: Any) -> list[dict[str, Any]]:
    """Return what the settings of an agent and its ancestors were, from when on.

    Each point has the steps of the whole run and of the agent itself at which its settings came
    into force, and the edit that its network took there, if it did.
    """
    own = [row for row in rows if row["index"] == agent.index]
    if not own:
        return []
    names = [*agent.hyperparameters, "architecture"]
    points: list[dict[str, Any]] = []
    at = {"episode": 0, "global_steps": 0, "steps": 0}
    for row in lineage(rows, own[-1]):
        settings = {name: plain(row[name]) for name in names if name in row}
        if not points or any(points[-1][name] != value for name, value in settings.items()):
            edit = points and re.fullmatch(r"\w+\(.*\)", str(row["mutation"]))
            points.append({**at, **settings, "edit": row["mutation"] if edit else None})
        at = {name: row[name] for name in at}
    return points


def versions() -> dict[str, str]:
    """Return the versions of what numbers depend on."""
    import gymnasium
    import numpy
    import torch

    return {
        "agilerl": __version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "gymnasium": gymnasium.__version__,
    }


def plain(value: Any) -> Any:
    """Return a value that YAML and JSON can hold; floats keep nine digits."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.9g}")
    return value if isinstance(value, int | str | bool | None) else str(value)


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Write plain values, all at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, yaml.safe_dump(plain(value), sort_keys=False).encode())


def read_yaml(path: str | Path, name: str) -> dict[str, Any]:
    """Return ``settings.yaml`` or ``elite/elite.yaml`` of a run folder.

    Raises:
        CheckpointError: if it is not there, or malformed.
    """
    file = Path(path) / name
    try:
        found = parse(file.read_text("utf-8"))
    except UNREADABLE as error:
        raise CheckpointError(
            f"{file}: can't be read ({type(error).__name__}); give the folder of a run that has"
            " evaluated its agents."
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: not the file of a run.")
    return found


def load_elite(path: str | Path) -> Any:
    """Return the best agent of a run folder.

    Raises:
        CheckpointError: if there is none, or it can't be read.
    """
    file = Path(path) / ELITE
    if not file.exists():
        raise CheckpointError(f"{file}: no agent there yet; give the folder of a run, runs/NAME.")
    algo = checkpoint.load(file).get("algo")
    if algo not in AGENTS:
        raise CheckpointError(f"{file}: a checkpoint of {algo!r}, expected one of {list(AGENTS)}.")
    return AGENTS[algo].load(file)


def environment_of(path: str | Path, trusted: bool = False) -> str:
    """Return the id of the environment that a run was made in.

    Raises:
        CheckpointError: if it names a module, which would be imported: say ``trusted`` for that.
    """
    name = read_yaml(path, SETTINGS).get("env")
    if not isinstance(name, str) or (":" in name and not trusted):
        raise CheckpointError(
            f"{Path(path) / SETTINGS}: the environment {name!r} would import a module; pass the"
            " environment yourself if you trust that file."
        )
    return name


__all__ = ["ELITE", "HISTORY", "SETTINGS", "SUMMARY", "RunFolder", "read_rows", "read_yaml"]
