"""Games as steps of the token-level decision process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agilerl.algorithms.language_agent import discounted_returns, steps_of
from agilerl.data.language_dataset import TokenGames, pack_games
from agilerl.errors import DatasetError
from tests.algorithms.language_cases import random_games

# begin, action, action, reply, action, end -- and a shorter game that was cut short
GAME = ([1, 3, 4, 6, 5, 2], [0, 1, 1, 0, 1, 0], [0, 0, -1, 0, 2, 0], [0, 0, 0, 0, 1, 0])
CUT = ([1, 5, 7], [0, 1, 0], [0, 3, 0], [0, 0, 0])


def games(*rows: tuple[list[int], list[int], list[float], list[int]]) -> TokenGames:
    return pack_games(
        [(t, [bool(m) for m in mask], r, [bool(e) for e in ends]) for t, mask, r, ends in rows], 0
    )


def read_until(position: int, ids: torch.Tensor) -> list[int]:
    """Return what a causal network has read at a position."""
    row, column = divmod(position, ids.shape[1])
    return ids[row, : column + 1].tolist()


def test_the_state_of_a_step_is_all_that_was_written_before_it() -> None:
    steps = steps_of(games(GAME, CUT), 1.0)
    assert steps.actions.tolist() == [3, 4, 5, 5]
    states = [read_until(position, steps.ids) for position in steps.positions.tolist()]
    assert states == [[1], [1, 3], [1, 3, 4, 6], [1]]


def test_the_next_state_includes_the_reply_and_a_cut_game_goes_on_behind_its_last_token() -> None:
    steps = steps_of(games(GAME, CUT), 1.0)
    following = [read_until(position, steps.ids) for position in steps.next_positions.tolist()]
    assert following[0] == [1, 3]
    assert following[1] == [1, 3, 4, 6]
    assert following[3] == [1, 5, 7]
    assert steps.ended.tolist() == [False, False, True, False]
    assert steps.rewards.tolist() == [0, -1, 2, 3]


def test_discounting_counts_the_agents_tokens_only() -> None:
    steps = steps_of(games(GAME, CUT), 0.5)
    assert steps.returns.tolist() == [0 + 0.5 * 0.0, -1 + 0.5 * 2, 2, 3]
    mask = np.array([[False, True, False, False, True]])
    rewards = np.array([[0, 1, 0, 0, 4]], dtype=np.float32)
    assert discounted_returns(rewards, mask, 0.5)[0, 1] == 1 + 0.5 * 4


def test_the_tail_that_no_step_needs_is_not_read() -> None:
    assert steps_of(games(GAME), 1.0).ids.shape == (1, 4)
    assert steps_of(games(CUT), 1.0).ids.shape == (1, 3)


def test_a_game_that_begins_with_an_action_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"action_mask\[0, 0\].*begin token"):
        steps_of(games(([3, 4], [1, 1], [0, 0], [0, 1])), 1.0)


@given(st.integers(0, 10_000), st.floats(0.1, 1.0))
def test_returns_satisfy_their_recursion(seed: int, gamma: float) -> None:
    steps = steps_of(random_games(6, seed, turns=3), gamma)
    for i in range(len(steps.actions)):
        following = 0.0 if steps.ended[i] else float(steps.returns[i + 1])
        assert float(steps.returns[i]) == pytest.approx(
            float(steps.rewards[i]) + gamma * following, abs=1e-5
        )
        if not steps.ended[i]:
            assert steps.next_positions[i] == steps.positions[i + 1]
