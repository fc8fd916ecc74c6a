"""The page: complete, of one piece, and there whatever a run lacks."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from agilerl import CheckpointError
from agilerl.runs.report import page_of, write_report
from agilerl.training.history import read_rows, write_rows
from tests.front.test_analysis import INF, ROWS, row

SETTINGS = {"env": "CartPole-v1", "algo": "DQN", "target": 25.0, "command": "agilerl train X"}


class Parts(HTMLParser):
    """Collects the plots and headings of a page, and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.plots: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        found = dict(attributes)
        if "plotly-graph-div" in (found.get("class") or ""):
            self.plots.append(found["id"])
        for name in ("src", "href"):
            if name in found and not found[name].startswith(("data:", "#")):
                self.loads.append(found[name])


def parts_of(page: str) -> Parts:
    parts = Parts()
    parts.feed(page)
    return parts


def test_a_page_has_all_figures_and_loads_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS, "w")
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / "times.json").write_text('{"evaluation": 1.0, "total": 4.0}')
    path = write_report(tmp_path)
    page = path.read_text("utf-8")
    parts = parts_of(page)
    assert parts.plots == ["plot-fitness", "plot-tree", "plot-hyperparameters", "plot-architecture"]
    assert parts.loads == []
    assert "agilerl train X" in page
    assert "Since generation 2" in page
    assert "25 % of it evaluation" in page
    assert re.search(r"learning rate</td><td>2</td><td>\+10\.0", page)
    names = {"fitness.png", "tree.png", "hyperparameters.png"}
    assert {p.name for p in (tmp_path / "figures").iterdir()} == names


@pytest.mark.parametrize(
    "rows",
    [
        [row(0, 0, 1.0)],
        [row(0, 0, -INF), row(0, 1, 2.0)],
        [{k: v for k, v in r.items() if k not in ("lr", "fitness_se", "updates")} for r in ROWS],
        [{**r, "architecture": ""} for r in ROWS],
        [row(g, i, float(g * i)) for g in range(60) for i in range(64)],
    ],
    ids=["one", "diverged", "bare", "no network", "many"],
)
def test_a_page_is_there_whatever_a_run_lacks(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write_rows(tmp_path, rows, "w")
    assert write_report(tmp_path).stat().st_size > 1e6


def test_what_a_stranger_wrote_is_shown_as_text() -> None:
    rows = [row(0, 0, 1.0, mutation="<script>alert(1)</script>", architecture="<b>8</b>")]
    page = page_of(rows, {**SETTINGS, "env": "<img src=x>", "command": "</pre><script>"}, {})
    assert "<script>alert" not in page
    assert "<img src=x>" not in page
    assert "</pre><script>" not in page


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"history\.jsonl"):
        write_report(tmp_path)
    (tmp_path / "history.jsonl").write_text("{broken")
    with pytest.raises(CheckpointError, match="not the history of a run"):
        write_report(tmp_path)
    (tmp_path / "history.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="nothing was evaluated"):
        write_report(tmp_path)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS[:3], "w")
    write_rows(tmp_path, [*ROWS[3:], row(3, 9, -INF)], "a")
    assert read_rows(tmp_path) == [*ROWS, row(3, 9, -INF)]
