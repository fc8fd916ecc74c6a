"""One page that shows what evolution did: ``report.html`` in the folder of a run.

The page needs no network: plotly's script (extra ``report``) is part of it, which makes it about 5
MB.  The same figures are drawn by matplotlib as PNG files, in ``figures/``.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from agilerl.checkpoint import write_bytes
from agilerl.errors import CheckpointError, ConfigError
from agilerl.runs.analysis import (
    Effect,
    ancestors_rows,
    hyperparameters_in,
    mutation_effects,
    warnings_of,
    winner_line,
)
from agilerl.runs.page import PAGE, plotly_script
from agilerl.runs.paper_figures import write_figures
from agilerl.runs.run_folder import SETTINGS, SUMMARY, read_rows, read_times, read_yaml
from agilerl.training.history import Row, by_generation

#: How a trace is drawn, in plotly's words.
Style = dict[str, Any]

#: Colours that are told apart on light and dark, and by those who see no red or no green.
ALL, BEST, MEAN, WINNER, TARGET = "#8a93a3", "#2f7ed8", "#7a9cc6", "#e07a1f", "#c0392b"
#: Half the width of a 95 % interval, in standard errors.
NORMAL_95 = 1.96
#: More points than this are drawn by WebGL.
MANY = 3000
#: As many generations have a tick each.
FEW = 12


def write_report(path: str | Path) -> Path:
    """Write ``report.html`` and ``figures/`` into the folder of a run; return the page's path.

    Raises:
        CheckpointError: if the folder is not that of a run that has evaluated its agents.
        ConfigError: if plotly is not installed.
    """
    folder = Path(path)
    rows = read_rows(folder)
    if not rows:
        raise CheckpointError(f"{folder}: nothing was evaluated yet, there is nothing to show.")
    settings = read_yaml(folder, SETTINGS) if (folder / SETTINGS).exists() else {}
    elite = read_yaml(folder, SUMMARY) if (folder / SUMMARY).exists() else {}
    page = page_of(rows, settings, elite, read_times(folder))
    write_bytes(folder / "report.html", page.encode())
    write_figures(folder / "figures", rows, settings)
    return folder / "report.html"


def page_of(
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    elite: Mapping[str, Any],
    times: Mapping[str, float] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        rows: of the history.
        settings: of the run.
        elite: ``elite.yaml``, or nothing.
        times: ``times.json``, or nothing.
    """
    title = f"{settings.get('algo', 'Run')} on {settings.get('env', 'an environment')}"
    figures = {
        "fitness": fitness_figure(rows, settings.get("target")),
        "tree": tree_figure(rows),
        "hyperparameters": hyperparameter_figure(rows, settings),
        "architecture": architecture_figure(rows),
    }
    parts = {
        "title": html.escape(title),
        "summary": summary_html(rows, settings, elite, times or {}),
        "warnings": warnings_html(warnings_of(rows, settings)),
        "mutations": effects_html(mutation_effects(rows)),
        "settings": html.escape(yaml.safe_dump(dict(settings), sort_keys=False)),
        "command": html.escape(str(settings.get("command", "not known: begun by a script"))),
        "script": plotly_script(),
        **{f"figure_{name}": figure_html(figure, name) for name, figure in figures.items()},
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], PAGE)


def plotly() -> Any:
    """Return plotly's graph objects; raise ``ConfigError`` if plotly is not installed."""
    try:
        import plotly.graph_objects as graphs
    except ImportError as error:
        raise ConfigError(
            "report: plotly is not installed; pip install 'agilerl[report]' (about 40 MB)."
        ) from error
    return graphs


def figure_html(figure: Any, name: str) -> str:
    """Return a figure as a part of the page: its values, drawn when it comes into view."""
    if figure is None:
        return '<p class="note">Nothing to show: this run has no such values.</p>'
    values = figure.to_json().replace("</", "<\\/")
    height = figure.layout.height
    return (
        f'<div id="plot-{name}" class="plotly-graph-div" style="height:{height}px"></div>'
        f'<script type="application/json" id="values-{name}">{values}</script>'
    )


def styled(figure: Any, height: int = 380) -> Any:
    """Return a figure with the page's own look: no background, and room for a phone."""
    grid = "rgba(128,128,128,0.22)"
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 12, "t": 28, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=grid, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=grid, zeroline=False, automargin=True)
    return figure


# --------------------------------------------------------------------------------------- figures


def finite(value: Any) -> Any:
    """Return a number that can be drawn; None leaves a gap."""
    return value if value is not None and math.isfinite(value) else None


def points(graphs: Any, rows: Sequence[Row], y: Sequence[Any], **style: Any) -> Any:
    """Return one point for each row, against global steps, that says on hover whose it is."""
    kind = graphs.Scattergl if len(rows) > MANY else graphs.Scatter
    return kind(x=[row["global_steps"] for row in rows], y=list(y), text=hover(rows), **style)


def distinct(rows: Sequence[Row], name: str) -> list[Row]:
    """Return one row for each point that differs in global steps or in ``name``."""
    return list({(row["global_steps"], row[name]): row for row in rows}.values())


def hover(rows: Sequence[Row]) -> list[str]:
    """Return what is said of an agent under the pointer."""
    return [
        f"agent {row['index']}, generation {row['generation']}<br>"
        f"fitness {row['fitness']:.1f}<br>{html.escape(str(row.get('mutation') or 'kept'))}<br>"
        f"{html.escape(str(row.get('architecture', '')))}"
        for row in rows
    ]


def fitness_figure(rows: Sequence[Row], target: float | None) -> Any:
    """Return the fitness of all agents over global steps, or time, the best with its noise."""
    graphs = plotly()
    groups = by_generation(rows)
    best = [max(group, key=lambda row: row["fitness"]) for group in groups]
    elite = winner_line(rows)[-1:]
    noise = [NORMAL_95 * (row.get("fitness_se") or 0.0) for row in best]
    text = "%{text}<extra></extra>"
    agents: Style = {"mode": "markers", "name": "agents"}
    agents |= {"marker": {"size": 5, "color": ALL, "opacity": 0.55}, "hovertemplate": text}
    mean: Style = {"mode": "lines", "name": "mean", "line": {"color": MEAN, "dash": "dot"}}
    mean |= {"hovertemplate": "mean %{y:.1f}<extra></extra>"}
    curve: Style = {"mode": "lines+markers", "name": "best, 95 % interval", "marker": {"size": 6}}
    curve |= {"line": {"color": BEST, "width": 2.5}, "hovertemplate": text}
    curve |= {"error_y": {"type": "data", "array": noise, "thickness": 1, "width": 2}}
    star: Style = {"mode": "markers", "name": "elite", "hovertemplate": text}
    star |= {"marker": {"symbol": "star", "size": 14, "color": WINNER}}
    sources = [rows, [group[0] for group in groups], best, elite]
    values = [fitnesses(rows), list(map(mean_of, groups)), fitnesses(best), fitnesses(elite)]
    figure = graphs.Figure(
        [
            points(graphs, source, y, **style)
            for source, y, style in zip(sources, values, (agents, mean, curve, star), strict=True)
        ]
    )
    if target is not None:
        figure.add_hline(y=target, line={"color": TARGET, "width": 1, "dash": "dash"})
    figure.update_layout(updatemenus=[axis_buttons(sources)])
    figure.update_layout(xaxis_title="global steps", yaxis_title="mean return")
    return styled(figure, 460).update_layout(margin={"b": 90})


def fitnesses(rows: Sequence[Row]) -> list[Any]:
    """Return the fitness of each row; None where it is no number."""
    return [finite(row["fitness"]) for row in rows]


def mean_of(group: Sequence[Row]) -> float | None:
    """Return the mean fitness of those that have one."""
    values = [row["fitness"] for row in group if math.isfinite(row["fitness"])]
    return sum(values) / len(values) if values else None


def axis_buttons(sources: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Return the buttons that put steps or seconds on the axis of these traces."""
    axes = {"steps": ("global_steps", "global steps"), "seconds": ("seconds", "seconds")}
    buttons = [
        {
            "label": label,
            "method": "update",
            "args": [
                {"x": [[row.get(key) for row in source] for source in sources]},
                {"xaxis.title.text": title},
            ],
        }
        for label, (key, title) in axes.items()
    ]
    place = {"x": 1, "xanchor": "right", "y": -0.2, "yanchor": "top"}
    return {"type": "buttons", "direction": "right", **place, "buttons": buttons}


def tree_figure(rows: Sequence[Row]) -> Any:
    """Return the family tree: who came from whom, and how good each was."""
    graphs = plotly()
    edges, line, texts = descent(rows)
    kind = graphs.Scattergl if len(rows) > MANY else graphs.Scatter
    worst = min((r["fitness"] for r in rows if math.isfinite(r["fitness"])), default=0.0)
    values = [row["fitness"] if math.isfinite(row["fitness"]) else worst for row in rows]
    size = max(3.0, min(10.0, 300 / len({row["slot"] for row in rows})))
    color: Style = {"color": values, "colorscale": "Viridis", "showscale": True}
    color |= {"colorbar": {"title": "fitness", "thickness": 10, "len": 0.9}}
    lines: Style = {"mode": "lines", "hoverinfo": "skip"}
    agents: Style = {"mode": "markers", "name": "agents", "showlegend": False, "text": texts}
    places = [row["generation"] for row in rows], [row["slot"] for row in rows]
    figure = graphs.Figure(
        [
            kind(**edges, **lines, name="descent", line={"color": ALL, "width": 0.7}),
            kind(**line, **lines, name="the elite's line", line={"color": WINNER, "width": 3}),
            kind(
                x=places[0],
                y=places[1],
                **agents,
                hovertemplate="%{text}<extra></extra>",
                marker={"size": size, **color},
            ),
        ]
    )
    figure.update_layout(xaxis_title="generation", yaxis_title="slot")
    figure.update_yaxes(dtick=1 if size > 6 else None)
    figure.update_xaxes(dtick=1 if rows[-1]["generation"] <= FEW else None)
    return styled(figure, 420)


def descent(rows: Sequence[Row]) -> tuple[dict[str, list[Any]], dict[str, list[Any]], list[str]]:
    """Return the lines of the family tree, those of the elite's ancestors, and a text a row."""
    sources = ancestors_rows(rows)
    edges: dict[str, list[Any]] = {"x": [], "y": []}
    line: dict[str, list[Any]] = {"x": [], "y": []}
    winners = {(row["generation"], row["index"]) for row in winner_line(rows)}
    texts = []
    for row in rows:
        source = sources[row["generation"], row["index"]]
        change = ""
        if source is not None:
            both = (source["generation"], source["index"]) in winners
            won = both and (row["generation"], row["index"]) in winners
            into = line if won else edges
            into["x"] += [source["generation"], row["generation"], None]
            into["y"] += [source["slot"], row["slot"], None]
            change = f"<br>change {row['fitness'] - source['fitness']:+.1f} from its parent"
        texts.append(hover([row])[0] + change)
    return edges, line, texts


def agents_and_winner(
    known: Sequence[Row],
    winner: Sequence[Row],
    value: Callable[[Row], Any],
    template: str,
    legend: bool = True,
) -> list[Any]:
    """Return two traces of a value over global steps: of all agents, and of the elite's line."""
    graphs = plotly()
    common: Style = {"hovertemplate": template, "showlegend": legend}
    dots: Style = {"mode": "markers", "marker": {"size": 5, "color": ALL, "opacity": 0.55}}
    steps: Style = {"mode": "lines", "line": {"color": WINNER, "width": 3, "shape": "hv"}}
    return [
        points(graphs, known, list(map(value, known)), name="agents", **dots, **common),
        points(
            graphs, winner, list(map(value, winner)), name="the elite's line", **steps, **common
        ),
    ]


def hyperparameter_figure(rows: Sequence[Row], settings: Mapping[str, Any]) -> Any:
    """Return each hyper-parameter over global steps: all agents, and the elite's line."""
    names = hyperparameters_in(rows)
    names = [name for name in names if len({row.get(name) for row in rows}) > 1] or names
    if not names:
        return None
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=len(names), cols=1, shared_xaxes=True, subplot_titles=names, vertical_spacing=0.06
    )
    winner = winner_line(rows)
    for number, name in enumerate(names, start=1):
        known = distinct([row for row in rows if row.get(name) is not None], name)
        own = [row for row in winner if row.get(name) is not None]
        template = f"{name} %{{y:.3g}}<br>%{{text}}<extra></extra>"
        for trace in agents_and_winner(known, own, itemgetter(name), template, number == 1):
            figure.add_trace(trace, number, 1)
        values = [row[name] for row in known]
        if min(values) > 0 and max(values) / min(values) > 20:
            figure.update_yaxes(type="log", row=number, col=1)
    figure.update_xaxes(title_text="global steps", row=len(names), col=1)
    return styled(figure, 120 + 170 * len(names)).update_layout(
        legend={"y": 1 + 0.06 / len(names)}, margin={"t": 60}
    )


def size_of(architecture: str) -> int:
    """Return the hidden units, or channels and units, that a summary of a network names."""
    return sum(int(number) for number in re.findall(r"\d+", str(architecture)))


def architecture_figure(rows: Sequence[Row]) -> Any:
    """Return the size of the networks over global steps."""

    def size(row: Row) -> int:
        return size_of(row.get("architecture", ""))

    known = distinct(list(filter(size, rows)), "architecture")
    if not known:
        return None
    winner = list(filter(size, winner_line(rows)))
    traces = agents_and_winner(known, winner, size, "%{text}<extra></extra>")
    figure = plotly().Figure(traces)
    figure.update_layout(xaxis_title="global steps", yaxis_title="hidden units")
    return styled(figure)


# ----------------------------------------------------------------------------------------- texts


def summary_html(
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    elite: Mapping[str, Any],
    times: Mapping[str, float],
) -> str:
    """Return the numbers that a person wants first."""
    last, winner = rows[-1], winner_line(rows)[-1]
    trained, tested = last.get("train_steps", 0), last.get("eval_steps", 0)
    total = max(trained + tested, 1)
    facts = [("best fitness", f"{winner['fitness']:.1f}", f"in generation {winner['generation']}")]
    found = elite.get("evaluation")
    if found:
        low, high = found["ci95"]
        facts.append(
            (
                "elite on fresh episodes",
                f"{found['mean']:.1f}",
                f"95 % interval {low:.1f} to {high:.1f}, {found['episodes']} episodes",
            )
        )
    if settings.get("target") is not None:
        facts.append(("target", f"{settings['target']:g}", "mean return"))
    pace = f"{total / max(last['seconds'], 1e-9):,.0f} steps/s"
    if times.get("total"):
        pace += f", {100 * times['evaluation'] / times['total']:.0f} % of it evaluation"
    facts += [
        ("steps", f"{total:,}", f"{100 * tested / total:.0f} % of them evaluation"),
        ("time", f"{last['seconds']:.0f} s", pace),
        ("generations", str(len(by_generation(rows))), f"{len(by_generation(rows)[-1])} agents"),
    ]
    return "".join(
        f'<div class="fact"><span>{html.escape(name)}</span><b>{html.escape(value)}</b>'
        f"<small>{html.escape(note)}</small></div>"
        for name, value, note in facts
    )


def warnings_html(warnings: Sequence[str]) -> str:
    """Return what to look out for as a list."""
    if not warnings:
        return '<p class="note">Nothing stands out.</p>'
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in warnings) + "</ul>"


def effects_html(effects: Sequence[Effect]) -> str:
    """Return the table of mutation kinds."""
    if not effects:
        return '<p class="note">No agent was mutated and evaluated afterwards.</p>'
    lines = []
    for effect in effects:
        known = math.isfinite(effect.low)
        interval = f"{effect.low:+.1f} to {effect.high:+.1f}" if known else "one only"
        lines.append(
            f"<tr><td>{html.escape(effect.kind)}</td><td>{effect.count}</td>"
            f"<td>{effect.mean:+.1f}</td><td>{interval}</td></tr>"
        )
    head = "<tr><th>kind</th><th>evaluated</th><th>mean change</th><th>95 % interval</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"
