"""What the report says of a history, computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agilerl.runs.analysis import (
    KEPT,
    founders,
    hyperparameters_in,
    mutation_effects,
    warnings_of,
    winner_line,
)

INF = float("inf")


def row(generation: int, index: int, fitness: float, **more: Any) -> dict[str, Any]:
    return {
        "generation": generation,
        "episode": generation + 1,
        "global_steps": 100 * (generation + 1),
        "train_steps": 80 * (generation + 1),
        "eval_steps": 20 * (generation + 1),
        "seconds": 1.0 + generation,
        "slot": index % 3,
        "index": index,
        "parent": None,
        "mutation": None,
        "fitness": fitness,
        "fitness_se": 1.0,
        "score": None,
        "steps": 30 * (generation + 1),
        "updates": 5,
        "architecture": "8-8 relu",
        "lr": 1e-3,
        **more,
    }


#: Three agents; 1 is replaced by a child of 0, then 2 and the child by children of the child.
ROWS = [
    row(0, 0, 10.0),
    row(0, 1, 2.0),
    row(0, 2, 5.0),
    row(1, 0, 14.0, mutation="elite"),
    row(1, 3, 20.0, parent=0, mutation="lr 0.001 -> 0.002", lr=2e-3),
    row(1, 2, 6.0, mutation="elite"),
    row(2, 3, 22.0, mutation="elite", lr=2e-3),
    row(2, 4, 19.0, parent=3, mutation="add_node(0, 8)", lr=2e-3),
    row(2, 5, 30.0, parent=3, mutation="lr 0.002 -> 0.004", lr=4e-3),
]


def test_effects_are_from_the_parent_s_last_fitness_to_the_child_s_first() -> None:
    effects = {effect.kind: effect for effect in mutation_effects(ROWS)}
    # lr: 20 - 10 and 30 - 20; an edit: 19 - 20; kept: 14 - 10, 6 - 5, 22 - 20
    assert (effects["learning rate"].count, effects["learning rate"].mean) == (2, 10.0)
    assert (effects["learning rate"].low, effects["learning rate"].high) == (10.0, 10.0)
    assert (effects["architecture"].count, effects["architecture"].mean) == (1, -1.0)
    assert math.isnan(effects["architecture"].low)
    kept = effects[KEPT]
    assert kept.count == 3
    assert kept.mean == pytest.approx(7 / 3)
    half = 1.96 * math.sqrt(((4 - 7 / 3) ** 2 + (1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2) / 2 / 3)
    assert (kept.low, kept.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert mutation_effects(ROWS)[0].kind == KEPT  # the most frequent first


def test_changes_to_or_from_infinity_are_left_out() -> None:
    rows = [row(0, 0, -INF), row(1, 0, 3.0), row(2, 0, -INF)]
    assert mutation_effects(rows) == []


def test_the_winner_s_line_goes_back_to_its_first_ancestor() -> None:
    assert [(r["generation"], r["index"]) for r in winner_line(ROWS)] == [(0, 0), (1, 3), (2, 5)]


def test_a_parent_that_was_brought_back_is_found() -> None:
    rows = [row(0, 0, 50.0), row(1, 1, 3.0, parent=0), row(2, 2, 60.0, parent=0)]
    assert [r["index"] for r in winner_line(rows)] == [0, 2]
    (effect,) = [e for e in mutation_effects(rows) if e.count == 2]
    assert effect.mean == (3 - 50 + 60 - 50) / 2


def test_founders_are_who_each_generation_comes_from() -> None:
    assert founders(ROWS) == [{0, 1, 2}, {0, 2}, {0}]


def test_hyper_parameters_are_the_numbers_beside_the_columns() -> None:
    assert hyperparameters_in(ROWS) == ["lr"]


def test_warnings_in_words() -> None:
    settings = {"init_hp": {"LR": {"low": 1e-5, "high": 4e-3}}}
    found = " ".join(warnings_of(ROWS, settings))
    assert "lr (0.004) sits on the upper end" in found
    assert "Since generation 2 every agent descends from agent 0" in found
    assert "noise" not in found
    noisy = [{**r, "fitness_se": 100.0, "updates": 0} for r in ROWS]
    noisy[0]["fitness"] = 500.0
    noisy[1]["fitness"] = -INF
    found = " ".join(warnings_of(noisy, {}))
    assert "the noise of evaluation exceeded the spread" in found
    assert "never learnt: 3, 4, 5" in found
    assert "had diverged" in found
    assert "fallen back" in found


def test_a_run_of_which_there_is_nothing_to_say() -> None:
    assert warnings_of([row(0, 0, 1.0)], {}) == []
