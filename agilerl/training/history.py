"""The history of a run: one row for each agent and evaluation.

A row is a dict of plain values, the same for CSV, W&B, pictures and checkpoints.  It is where
lineage is kept: ``parent`` is the index of the agent in the generation before that this one was
cloned from, ``mutation`` says what changed after that.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agilerl.errors import CheckpointError

Row = dict[str, Any]

#: The files of a history: JSON lines, which read as what was written, and a table for people.
HISTORY, TABLE = "history.jsonl", "history.csv"

#: The hyper-parameters that are noted of an agent that does not list its own.
COMMON = ("lr", "batch_size", "learn_step")


def rows_of(
    population: Sequence[Any], fitnesses: Sequence[float], counters: Row, new: bool = True
) -> list[Row]:
    """Return the rows of a population that was just evaluated, by slot.

    Args:
        population: the agents.
        fitnesses: theirs.
        counters: how far the run is; every row begins with them.
        new: whether the agents were selected and mutated since they were evaluated last; otherwise
            no mutation is noted.
    """
    return [
        {
            **counters,
            "slot": slot,
            "index": agent.index,
            "parent": getattr(agent, "parent", None),
            "mutation": getattr(agent, "mut", None) if new else None,
            "fitness": float(fitness),
            "fitness_se": getattr(agent, "fitness_se", None),
            "score": float(agent.scores[-1]) if agent.scores else None,
            "steps": int(agent.steps[-1]),
            "updates": getattr(agent, "learn_count", None),
            "diverged": bool(getattr(agent, "diverged", False)),
            "architecture": str(getattr(agent, "architecture", "")),
            **hyperparameters(agent),
        }
        for slot, (agent, fitness) in enumerate(zip(population, fitnesses, strict=True))
    ]


def hyperparameters(agent: Any) -> dict[str, float]:
    """Return the learning hyper-parameters of an agent of any kind."""
    own = getattr(agent, "hyperparameters", None)
    if own is None:
        own = {name: getattr(agent, name) for name in COMMON if hasattr(agent, name)}
    return dict(own)


def by_generation(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows of each generation, in order."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(int(row["generation"]), []).append(row)
    return list(groups.values())


def fitness_table(rows: Iterable[Row]) -> list[list[float]]:
    """Return ``fitnesses[generation][agent]``."""
    return [[row["fitness"] for row in group] for group in by_generation(rows)]


def lineage(rows: Sequence[Row], row: Row) -> list[Row]:
    """Return the rows of an agent and its ancestors, oldest first.

    Args:
        rows: of the whole history.
        row: of the agent.
    """
    line = [row]
    for group in reversed(by_generation(rows)[: row["generation"]]):
        before = {earlier["index"]: earlier for earlier in group}
        younger = line[-1]  # a child has an index that nobody had in the generation before
        found = before.get(younger["index"]) or before.get(younger["parent"])
        if found is not None:  # else its parent was brought back from an earlier generation
            line.append(found)
    return line[::-1]


# ------------------------------------------------------------------------------------------ files


def write_rows(path: Path, rows: Sequence[Row], mode: str) -> None:
    """Write rows of the history as JSON lines and as a table."""
    with (path / HISTORY).open(mode) as lines:
        lines.writelines(json.dumps({k: as_json(v) for k, v in row.items()}) + "\n" for row in rows)
    if mode == "w" and not rows:
        (path / TABLE).unlink(missing_ok=True)
        return
    new = mode == "w" or not (path / TABLE).exists()
    with (path / TABLE).open("w" if new else "a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


def as_json(value: Any) -> Any:
    """Return what stands for a value in JSON, which knows no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(path: str | Path) -> list[Row]:
    """Return the history of a run folder; a fitness that was not finite is -inf.

    Raises:
        CheckpointError: if it is not there, or malformed.
    """
    file = Path(path) / HISTORY
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        for row in rows:
            row["fitness"] = float("-inf") if row["fitness"] is None else float(row["fitness"])
            int(row["generation"]), int(row["global_steps"]), int(row["index"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no {HISTORY} there; give the folder of a run, runs/NAME."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: not the history of a run ({error!r}).") from error
    return rows
