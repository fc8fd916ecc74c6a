"""The watch over the global generators sees each of them, and puts them back."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.conftest import global_rng_states, restore_global_rngs

DRAWS: dict[str, Callable[[], object]] = {
    "random": random.random,
    "numpy": lambda: np.random.rand(),  # noqa: NPY002 - a draw that must be noticed
    "torch": lambda: torch.rand(1),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.global_rng
def test_a_draw_from_a_global_generator_is_seen_and_undone(name: str) -> None:
    before = global_rng_states()
    DRAWS[name]()
    after = global_rng_states()
    assert [key for key in before if before[key] != after[key]] == [name]

    restore_global_rngs(before)
    assert global_rng_states() == before
