"""What the history of a run says: effects of mutations, ancestors, and what to look out for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agilerl.training.history import Row, by_generation, lineage
from agilerl.training.pictures import kind_of

#: Half the width of a 95 % interval of a normal distribution, in standard deviations.
NORMAL_95 = 1.96
#: A hyper-parameter is on its bound that is so near to it, as a ratio.
NEAR = 1.02
#: What rows have beside hyper-parameters.
COLUMNS = (
    "generation",
    "episode",
    "global_steps",
    "train_steps",
    "eval_steps",
    "seconds",
    "slot",
    "index",
    "parent",
    "mutation",
    "fitness",
    "fitness_se",
    "score",
    "steps",
    "updates",
    "architecture",
)
#: The kind of an agent that was evaluated before and went on as it was.
KEPT = "kept as it was"


@dataclass(frozen=True)
class Effect:
    """What one kind of mutation did to fitness.

    Attributes:
        kind: of the mutation.
        count: how often it was evaluated.
        mean: of the change, from the parent's last fitness to the child's first.
        low: lower end of the 95 % interval of the mean; NaN where there is one only.
        high: upper end, likewise.
    """

    kind: str
    count: int
    mean: float
    low: float
    high: float


def hyperparameters_in(rows: Sequence[Row]) -> list[str]:
    """Return the names of the hyper-parameters that a history notes."""
    names = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    return [name for name in names if all(isinstance(r.get(name, 0), int | float) for r in rows)]


def ancestors_rows(rows: Sequence[Row]) -> dict[tuple[int, int], Row | None]:
    """Return, for each agent by generation and index, the row that it continues or comes from."""
    before: dict[int, Row] = {}
    ever: dict[int, Row] = {}
    found: dict[tuple[int, int], Row | None] = {}
    for group in by_generation(rows):
        for row in group:
            source = (
                before.get(row["index"]) or before.get(row["parent"]) or ever.get(row["parent"])
            )
            found[row["generation"], row["index"]] = source
        before = {row["index"]: row for row in group}
        ever |= before
    return found


def mutation_effects(rows: Sequence[Row]) -> list[Effect]:
    """Return what each kind of mutation did to fitness, the most frequent first.

    The change is from the last evaluation of the parent to the first one of the child; learning in
    between is part of it, so that it is to be compared with that of agents that were kept.  Changes
    from or to a fitness that is not finite are left out.
    """
    sources = ancestors_rows(rows)
    changes: dict[str, list[float]] = {}
    for row in rows:
        source = sources[row["generation"], row["index"]]
        if source is None:
            continue
        same = source["index"] == row["index"]
        kind = KEPT if same else kind_of(row["mutation"])
        change = row["fitness"] - source["fitness"]
        if math.isfinite(change):
            changes.setdefault(kind, []).append(change)
    effects = [Effect(kind, len(x), *mean_interval(x)) for kind, x in changes.items()]
    return sorted(effects, key=lambda effect: -effect.count)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of values and its 95 % interval, from the normal distribution."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = NORMAL_95 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def winner_line(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the fittest agent that ever was and of its ancestors, oldest first."""
    best = max(rows, key=lambda row: row["fitness"])
    return lineage(rows, best)


def founders(rows: Sequence[Row]) -> list[set[int]]:
    """Return the agents of the first generation that those of each generation come from."""
    sources = ancestors_rows(rows)
    roots: dict[tuple[int, int], int] = {}
    found = []
    for group in by_generation(rows):
        for row in group:
            source = sources[row["generation"], row["index"]]
            roots[row["generation"], row["index"]] = (
                row["index"] if source is None else roots[source["generation"], source["index"]]
            )
        found.append({roots[row["generation"], row["index"]] for row in group})
    return found


def warnings_of(rows: Sequence[Row], settings: Mapping[str, Any]) -> list[str]:
    """Return, in words, what a person should know of a run before trusting it."""
    groups = by_generation(rows)
    checks = (bound_warnings, founder_warning, noise_warning, learning_warning, fitness_warning)
    return [text for check in checks for text in check(rows, groups, settings)]


def bound_warnings(
    rows: Sequence[Row], groups: Sequence[Sequence[Row]], settings: Mapping[str, Any]
) -> list[str]:
    """Tell of hyper-parameters of the winner that sit on the end of their range."""
    winner = winner_line(rows)[-1]
    found = []
    for name in hyperparameters_in(rows):
        given = (settings.get("init_hp") or {}).get(name.upper())
        if not isinstance(given, Mapping) or winner.get(name) is None:
            continue
        for end, low in (("lower", given["low"]), ("upper", given["high"])):
            ratio = winner[name] / low if low and winner[name] else math.inf
            if 1 / NEAR <= ratio <= NEAR:
                found.append(
                    f"The winner's {name} ({winner[name]:.3g}) sits on the {end} end of its range;"
                    " a wider range may hold a better one."
                )
    return found


def founder_warning(
    rows: Sequence[Row], groups: Sequence[Sequence[Row]], settings: Mapping[str, Any]
) -> list[str]:
    """Tell since when all agents come from one."""
    roots = founders(rows)
    if len(groups[0]) < 2 or len(roots[-1]) > 1:
        return []
    since = next(i for i, found in enumerate(roots) if len(found) == 1 and found == roots[-1])
    return [
        f"Since generation {groups[since][0]['generation']} every agent descends from agent"
        f" {next(iter(roots[-1]))}; what the others had started with is gone."
    ]


def noise_warning(
    rows: Sequence[Row], groups: Sequence[Sequence[Row]], settings: Mapping[str, Any]
) -> list[str]:
    """Tell if evaluations were too noisy to rank the agents."""
    noisy = counted = 0
    for group in groups:
        errors = [row["fitness_se"] for row in group if row.get("fitness_se") is not None]
        values = [row["fitness"] for row in group if math.isfinite(row["fitness"])]
        if len(errors) > 1 and len(values) > 1:
            counted += 1
            noisy += float(np.mean(errors)) > float(np.std(values, ddof=1))
    if not counted or noisy <= counted / 2:
        return []
    return [
        f"In {noisy} of {counted} generations the noise of evaluation exceeded the spread of the"
        " population: selection was mostly chance. Evaluate longer (evo_loop, race), or less often."
    ]


def learning_warning(
    rows: Sequence[Row], groups: Sequence[Sequence[Row]], settings: Mapping[str, Any]
) -> list[str]:
    """Tell of agents that had never learnt when the run ended."""
    idle = [row["index"] for row in groups[-1] if row.get("updates") == 0]
    if not idle:
        return []
    return [f"Agents that have never learnt: {', '.join(map(str, idle))}; see learning_starts."]


def fitness_warning(
    rows: Sequence[Row], groups: Sequence[Sequence[Row]], settings: Mapping[str, Any]
) -> list[str]:
    """Tell of agents that diverged, and of a best agent that was lost."""
    found = []
    diverged = sum(not math.isfinite(row["fitness"]) for row in rows)
    if diverged:
        found.append(f"{diverged} evaluations were of agents that had diverged (fitness -inf).")
    best = max(row["fitness"] for row in rows)
    last = max(row["fitness"] for row in groups[-1])
    spread = max(r["fitness"] for r in rows) - min(
        (r["fitness"] for r in rows if math.isfinite(r["fitness"])), default=0.0
    )
    if math.isfinite(best) and best - last > spread / 4:
        found.append(
            f"The best fitness was {best:.1f}, the last generation's best {last:.1f}: the"
            " population has fallen back. elite/ holds the agent that was best."
        )
    return found
