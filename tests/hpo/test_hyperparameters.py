"""Ranges of hyper-parameters, and the steps in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agilerl.errors import ConfigError
from agilerl.hpo.hyperparameters import DEFAULTS, Range, ranges_for

DRAWS = st.integers(0, 10**6).map(np.random.default_rng)


@given(value=st.floats(1e-6, 1.0), rng=DRAWS)
def test_lr_moves_by_a_factor_of_three_at_most_within_a_range_that_has_the_start(
    value: float, rng: np.random.Generator
) -> None:
    lr = DEFAULTS["lr"].widened(value)
    new = lr.mutate(value, rng)
    assert min(1e-5, value) <= new <= max(1e-2, value)
    assert value / 3.0001 <= new <= value * 3.0001


@given(value=st.integers(1, 5000), rng=DRAWS, name=st.sampled_from(["batch_size", "learn_step"]))
def test_integers_move_by_a_fifth_and_at_least_by_one(
    value: int, rng: np.random.Generator, name: str
) -> None:
    low, high = DEFAULTS[name].low, DEFAULTS[name].high
    new = DEFAULTS[name].widened(value).mutate(value, rng)
    assert type(new) is int
    assert min(low, value) <= new <= max(high, value)
    step = max(1, round(0.2 * value))
    options = {value - step, value + step, round(0.8 * value), round(1.2 * value)}
    assert new in options or new in (min(low, value), max(high, value))
    if min(low, value) < value < max(high, value):
        assert new != value


def test_a_fifth_of_little_is_still_one() -> None:
    rng, steps = np.random.default_rng(2), Range(1, 16, integer=True)
    assert {steps.mutate(2, rng) for _ in range(30)} == {1, 3}
    assert {steps.mutate(1, rng) for _ in range(30)} == {1, 2}


def test_the_lr_factor_is_log_uniform() -> None:
    rng, wide = np.random.default_rng(0), Range(1e-9, 1e9, log=True)
    logs = np.log([wide.mutate(1.0, rng) for _ in range(4000)]) / math.log(3)
    counts, _ = np.histogram(logs, bins=8, range=(-1, 1))
    assert np.abs(counts - 500).max() < 5 * math.sqrt(500)


def test_the_user_s_256_is_never_cut_to_128() -> None:
    agents_start = Range(8, 128, integer=True).widened(256)
    rng = np.random.default_rng(1)
    assert {agents_start.mutate(256, rng) for _ in range(50)} == {205, 256}


@given(
    low=st.floats(0.01, 50),
    width=st.floats(0, 50),
    rng=DRAWS,
    name=st.sampled_from([*DEFAULTS, "own"]),
)
def test_a_given_range_holds(low: float, width: float, rng: np.random.Generator, name: str) -> None:
    try:
        chosen = ranges_for([name], {name: (low, low + width)})[name]
    except ConfigError:
        assert math.ceil(low) > math.floor(low + width)  # no integer in it
        return
    value: Any = chosen.low
    for _ in range(5):
        value = chosen.mutate(value, rng)
        assert low <= value <= low + width
        assert type(value) is (int if chosen.integer else float)


def test_a_range_of_one_s_own_says_by_its_numbers_what_it_is() -> None:
    ranges = ranges_for(["n", "x", "y"], {"n": (1, 9), "x": (0.001, 1.0), "y": (0.5, 0.9)})
    assert (ranges["n"].integer, ranges["n"].log) == (True, False)
    assert (ranges["x"].integer, ranges["x"].log) == (False, True)
    assert (ranges["y"].integer, ranges["y"].log) == (False, False)
    exact = Range(0.0, 1.0)
    assert ranges_for(["z"], {"z": exact})["z"] == exact


@pytest.mark.parametrize(
    ("names", "given_ranges", "message"),
    [
        (["momentum"], {}, r"no range is known for 'momentum'; pass"),
        (["lr"], {"batch_size": (8, 16)}, "not in rl_hp_selection"),
        (["lr"], {"lr": 0.1}, r"expected \(low, high\)"),
        (["lr"], {"lr": (1e-2, 1e-4)}, "low <= high"),
        (["lr"], {"lr": (0.0, 1e-4)}, "0 < low"),
        (["lr"], {"lr": (float("nan"), 1e-4)}, "finite"),
        (["batch_size"], {"batch_size": (0, 64)}, "0 < low"),
        (["batch_size"], {"batch_size": (8.2, 8.8)}, "integer"),
        (["learn_step"], {"learn_step": ("a", 8)}, "finite"),
    ],
)
def test_bad_ranges_are_named(names: list[str], given_ranges: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ranges_for(names, given_ranges)
