"""One seed, many independent streams, the same in every process."""

from __future__ import annotations

import contextlib
import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agilerl.errors import ConfigError
from agilerl.seeding import (
    branch,
    derive,
    generator,
    lent_streams,
    load_stream_state,
    stream_state,
)

SEEDS = st.integers(0, 2**63)
NAMES = st.text("abcdefgh_", max_size=8)
KEYS = st.lists(st.one_of(st.integers(0, 1000), NAMES), max_size=3).map(tuple)


def start(rng: np.random.Generator) -> list[int]:
    return copy.deepcopy(rng).integers(2**62, size=4).tolist()


@given(seed=SEEDS, keys=KEYS)
def test_the_same_seed_and_keys_give_the_same_stream(seed: int, keys: tuple[int | str]) -> None:
    assert start(generator(seed, *keys)) == start(generator(seed, *keys))
    assert derive(seed, *keys) == derive(seed, *keys)


@given(seed=SEEDS, other=SEEDS, keys=KEYS)
def test_another_seed_gives_another_stream(seed: int, other: int, keys: tuple[int | str]) -> None:
    same = start(generator(seed, *keys)) == start(generator(other, *keys))
    assert same == (seed == other)


@given(seed=SEEDS, one=KEYS, two=KEYS)
def test_another_key_gives_another_stream(
    seed: int, one: tuple[int | str], two: tuple[int | str]
) -> None:
    assert (start(generator(seed, *one)) == start(generator(seed, *two))) == (one == two)


def test_streams_of_many_keys_are_uncorrelated() -> None:
    draws = np.stack([generator(0, "agent", i).standard_normal(2000) for i in range(20)])
    correlations = np.corrcoef(draws)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 0.1


def test_the_streams_are_the_same_in_every_process_and_version() -> None:
    """These numbers are a promise: they reproduce the runs that users have made."""
    assert generator(0).integers(1000, size=3).tolist() == [850, 636, 511]
    assert generator(1, "a", 2).integers(1000, size=3).tolist() == [724, 351, 762]
    assert derive(1, "actor") == 867209037


def test_without_a_seed_every_stream_is_another() -> None:
    streams = [start(generator()) for _ in range(20)]
    assert all(a != b for a, b in itertools.combinations(streams, 2))
    assert len({derive(None) for _ in range(5)}) > 1


@given(seed=SEEDS, keys=KEYS)
def test_a_derived_seed_fits_everywhere(seed: int, keys: tuple[int | str]) -> None:
    assert 0 <= derive(seed, *keys) < 2**31
    assert type(derive(seed, *keys)) is int


def test_derived_seeds_rarely_meet() -> None:
    assert len({derive(0, "episode", i) for i in range(5000)}) == 5000


@given(seed=SEEDS)
def test_a_branch_is_a_stream_of_its_own_that_its_parent_determines(seed: int) -> None:
    parent, twin = generator(seed), generator(seed)
    child, second = branch(parent), branch(parent)
    streams = [start(rng) for rng in (parent, child, second, twin)]
    assert all(a != b for a, b in itertools.combinations(streams, 2))
    assert start(branch(twin)) == streams[1]


def test_a_branch_is_independent_of_later_draws() -> None:
    parent = generator(3)
    child = branch(parent)
    before = start(child)
    parent.random(100)
    assert start(child) == before


@pytest.mark.parametrize("seed", [np.int64(5), np.uint8(5), 5])
def test_any_integral_seed_will_do(seed: int) -> None:
    assert start(generator(seed)) == start(generator(5))


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True, [1]])
def test_a_seed_that_is_no_natural_number_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="seed: expected an integer >= 0"):
        generator(seed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed"):
        derive(seed)  # type: ignore[arg-type]


class Owner:
    """Something that draws."""

    def __init__(self, rng: Any) -> None:
        self.rng = rng

    def draw(self) -> float:
        if isinstance(self.rng, torch.Generator):
            return float(torch.rand(1, generator=self.rng))
        return float(self.rng.random())


def owners() -> list[Owner]:
    return [Owner(np.random.default_rng(1)), Owner(torch.Generator().manual_seed(1))]


@pytest.mark.parametrize("which", [0, 1], ids=["numpy", "torch"])
def test_a_stream_goes_on_where_its_state_was_taken(which: int) -> None:
    owner, other = owners()[which], owners()[which]
    owner.draw()
    state = stream_state(owner.rng)
    expected = [owner.draw() for _ in range(3)]
    load_stream_state(other.rng, state)
    assert [other.draw() for _ in range(3)] == expected


def test_lent_streams_are_told_apart_and_the_own_ones_come_back_where_they_were() -> None:
    here, untouched = owners(), owners()
    drawn = {}
    for key in ("a", "b"):
        with lent_streams(here, 5, key):
            drawn[key] = [owner.draw() for owner in here]
    with contextlib.suppress(KeyError), lent_streams(here, 5, "a"):
        assert [owner.draw() for owner in here] == drawn["a"]
        raise KeyError
    assert len({*drawn["a"], *drawn["b"]}) == 4
    assert [owner.draw() for owner in here] == [owner.draw() for owner in untouched]
