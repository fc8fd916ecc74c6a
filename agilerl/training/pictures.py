"""Pictures of a population."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Backends of matplotlib that draw to files only.
FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


def save_or_show(figure: Figure, path: str | Path | None) -> Figure:
    """Save ``figure`` to ``path``, or show it where there is a screen, and return it."""
    import matplotlib.pyplot as plt

    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    elif plt.get_backend().lower() not in FILE_BACKENDS:
        plt.show()
    plt.close(figure)
    return figure


def _figure(title: str, x: str, y: str) -> tuple[Figure, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def population_score(pop: Sequence[Any]) -> Figure:
    """Return a figure of fitness against training steps, one line for each agent.

    Agents share the past of their common ancestors: later lines are thinner, so that those below
    are seen where several are the same.
    """
    figure, axes = _figure("Fitness of the population", "training steps of the agent", "fitness")
    widths = np.linspace(1.5 + min(len(pop) - 1, 5) * 1.3, 1.5, max(len(pop), 1))
    for agent, width in zip(pop, widths, strict=False):
        steps = agent.steps[: len(agent.fitness)]
        if len(steps) < len(agent.fitness):  # a loop of one's own that does not count steps
            steps = range(1, len(agent.fitness) + 1)
            axes.set_xlabel("evaluation")
        axes.plot(steps, agent.fitness, linewidth=width, label=f"agent {agent.index}")
    if pop:
        axes.legend(frameon=False, fontsize="small")
    return figure


def fitness_history(
    rows: Sequence[dict[str, Any]], title: str, target: float | None = None
) -> Figure:
    """Return a figure of the population's fitness against global steps, mutations marked.

    Args:
        rows: one for each agent and generation, with the columns of ``history.csv``.
        title: of the figure.
        target: drawn as a line.
    """
    from matplotlib.ticker import EngFormatter

    figure, axes = _figure(title, "global steps (all agents, evaluation included)", "mean return")
    by_generation: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_generation.setdefault(int(row["generation"]), []).append(row)
    steps = [group[0]["global_steps"] for group in by_generation.values()]
    kinds = {
        "learning rate": ("o", "tab:green"),
        "other setting": ("D", "tab:olive"),
        "all settings": ("P", "tab:cyan"),
        "restart": ("X", "tab:brown"),
        "architecture": ("s", "tab:purple"),
        "weights": ("^", "tab:orange"),
        "elite": ("*", "tab:red"),
        "survivor": (".", "tab:red"),
        "none": (".", "tab:gray"),
    }
    for kind, (marker, colour) in kinds.items():
        points = [r for r in rows if kind_of(r["mutation"]) == kind]
        if not points:
            continue
        axes.scatter(
            [r["global_steps"] for r in points],
            [r["fitness"] for r in points],
            marker=marker,
            color=colour,
            s=18,
            alpha=0.7,
            label=kind,
        )
    finite = [_finite([row["fitness"] for row in group]) for group in by_generation.values()]
    best = [max(values) for values in finite]
    mean = [sum(values) / len(values) for values in finite]
    axes.plot(steps, best, color="tab:blue", label="best")
    axes.plot(steps, mean, color="tab:blue", linestyle="--", alpha=0.6, label="mean")
    if target is not None:
        axes.axhline(target, color="black", linewidth=0.8, linestyle=":", label="target")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(frameon=False, fontsize="small", ncols=3)
    return figure


def _finite(values: Sequence[float]) -> list[float]:
    """Return the finite ones of ``values``; NaN, which is not drawn, where there are none."""
    return [value for value in values if math.isfinite(value)] or [math.nan]


def kind_of(mutation: str | None) -> str:
    """Return the kind of a mutation from its label."""
    label = mutation or "none"
    if label.split()[0] in ("none", "elite", "survivor", "weights", "restart"):
        return label.split()[0]
    if "(" in label:
        return "architecture"
    if ", " in label:
        return "all settings"
    return "learning rate" if label.startswith("lr ") else "other setting"
