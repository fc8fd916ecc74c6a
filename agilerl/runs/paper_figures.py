"""The figures of the report as PNG files, for papers: drawn by matplotlib, without a browser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agilerl.runs.analysis import ancestors_rows, hyperparameters_in, winner_line
from agilerl.training.history import Row
from agilerl.training.pictures import fitness_history, save_or_show

GREY, ORANGE = "0.6", "tab:orange"


def write_figures(folder: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> list[Path]:
    """Write ``fitness.png``, ``tree.png`` and ``hyperparameters.png``; return their paths."""
    title = f"{settings.get('algo', '')} on {settings.get('env', '')}"
    figures = {
        "fitness": fitness_history(list(rows), title, settings.get("target")),
        "tree": tree(rows, title),
        "hyperparameters": hyperparameters(rows, title),
    }
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            save_or_show(figure, folder / f"{name}.png")
            paths.append(folder / f"{name}.png")
    return paths


def tree(rows: Sequence[Row], title: str) -> Any:
    """Return the family tree; the line of the elite is thick."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    winners = {(row["generation"], row["index"]) for row in winner_line(rows)}
    sources = ancestors_rows(rows)
    lines: dict[bool, tuple[list[float], list[float]]] = {True: ([], []), False: ([], [])}
    for row in rows:
        source = sources[row["generation"], row["index"]]
        if source is None:
            continue
        ends = ((row["generation"], row["index"]), (source["generation"], source["index"]))
        across, up = lines[all(end in winners for end in ends)]
        across += [source["generation"], row["generation"], math.nan]
        up += [source["slot"], row["slot"], math.nan]
    axes.plot(*lines[False], color=GREY, linewidth=0.6, zorder=1)
    axes.plot(*lines[True], color=ORANGE, linewidth=2.5, zorder=1)
    known = [row for row in rows if math.isfinite(row["fitness"])]
    drawn = axes.scatter(
        [row["generation"] for row in known],
        [row["slot"] for row in known],
        c=[row["fitness"] for row in known],
        s=18,
        zorder=2,
    )
    figure.colorbar(drawn, ax=axes, label="fitness")
    axes.set(title=title, xlabel="generation", ylabel="slot")
    return figure


def hyperparameters(rows: Sequence[Row], title: str) -> Any:
    """Return the hyper-parameters that changed over global steps, or None if none did."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    names = [x for x in hyperparameters_in(rows) if len({row.get(x) for row in rows}) > 1]
    if not names:
        return None
    size = (8, 1.2 + 1.5 * len(names))
    figure, panels = plt.subplots(
        len(names), 1, figsize=size, sharex=True, layout="constrained", squeeze=False
    )
    winner = winner_line(rows)
    for axes, name in zip(panels[:, 0], names, strict=True):
        known = [row for row in rows if row.get(name) is not None]
        own = [row for row in winner if row.get(name) is not None]
        steps = [row["global_steps"] for row in known]
        axes.plot(steps, [row[name] for row in known], ".", color=GREY, markersize=4)
        axes.step(
            [row["global_steps"] for row in own],
            [row[name] for row in own],
            where="post",
            color=ORANGE,
            linewidth=2.5,
        )
        values = [row[name] for row in known]
        if min(values) > 0 and max(values) / min(values) > 20:
            axes.set_yscale("log")
        axes.set_ylabel(name)
    panels[0, 0].set_title(title)
    panels[-1, 0].set_xlabel("global steps")
    panels[-1, 0].xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure
