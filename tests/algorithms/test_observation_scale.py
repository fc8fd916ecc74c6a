"""Observations in units of their spread: the statistics, and an agent that learns with them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agilerl.algorithms.dqn import DQN
from agilerl.algorithms.observation_scale import EVERY_BATCH, INTERVAL, ObservationScale
from agilerl.errors import CheckpointError
from tests.algorithms.cases import CASES, assert_same, differing, tensors

CASE = CASES["scaled DQN, MLP, kernel"]


def seen(*batches: Any) -> ObservationScale:
    scale = ObservationScale(np.shape(batches[0])[1])
    for batch in batches:
        scale.update(np.asarray(batch, np.float32))
    return scale


# ------------------------------------------------------------------------------------- statistics


@given(
    arrays(np.float32, (12, 3), elements=st.floats(-1e4, 1e4, width=32)),
    st.lists(st.integers(1, 11), max_size=4, unique=True).map(sorted),
)
def test_mean_and_variance_are_those_of_all_rows_however_they_come(
    rows: Any, cuts: list[int]
) -> None:
    scale = seen(*np.split(rows, cuts))
    assert scale.count == 12
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(scale.mean, exact.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scale.variance, exact.var(0), rtol=1e-9, atol=1e-6)


def test_entries_are_brought_to_a_spread_of_one_to_ten_and_keep_their_zero() -> None:
    scale = seen([[0.0, 3.0, 300.0], [0.2, 7.0, 100.0]])  # spreads 0.1, 2, 100; means 0.1, 5, 200
    np.testing.assert_allclose(
        scale([[0.2, 0.0, -20.0], [-0.1, 4.0, 50.0]]), [[2, 0, -2], [-1, 4, 5]], rtol=1e-6
    )


def test_of_a_far_mean_what_is_beyond_three_spreads_is_taken_off() -> None:
    scale = seen([[99.9, -1001.0], [100.1, -999.0]])
    np.testing.assert_allclose(scale([[100.1, -1002.0]]), [[4, -5]], rtol=1e-4)


def test_an_entry_that_was_always_the_same_is_zero() -> None:
    scale = seen([[0.1, -7.0]] * 7, [[0.1, -7.0]])
    np.testing.assert_allclose(scale([[0.1, -7.0], [0.6, -7.5]]), [[0, 0], [0.5, -0.5]], atol=1e-6)


def test_what_is_ten_spreads_away_is_cut() -> None:
    scale = seen([[-0.1, -2.0, -100.0], [0.1, 2.0, 100.0]])
    far, near = np.full((1, 3), 5000.0), np.array([[0.5, -15.0, -900.0]])
    np.testing.assert_allclose(scale(far), [[10, 20, 100]], rtol=1e-6)
    np.testing.assert_allclose(scale(near), [[5, -15, -90]], rtol=1e-6)


def test_before_anything_was_seen_observations_stay_as_they_are() -> None:
    np.testing.assert_array_equal(ObservationScale(2)([[0.5, -3.0]]), [[0.5, -3.0]])


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_arrays_and_tensors_give_the_same_float32(kind: Any) -> None:
    scale = seen([[1.0, 2.0], [3.0, 5.0], [-9.0, 5.0]])
    values = np.array([[3, -40], [7, 100_000]], kind)
    before = values.copy()
    one, other = scale(values), scale(torch.from_numpy(values))
    assert (one.dtype, other.dtype) == (np.float32, torch.float32)
    np.testing.assert_allclose(one, other.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(values, before)


def test_batches_count_at_every_call_at_first_and_at_some_later_on() -> None:
    scale = ObservationScale(1)
    counted = []
    for call in range(EVERY_BATCH + 2 * INTERVAL):
        before = scale.count
        scale.see(np.ones((4, 1)), call)
        if scale.count > before:
            counted.append(call)
    assert counted[:EVERY_BATCH] == list(range(EVERY_BATCH))
    assert counted[EVERY_BATCH:] == [112, 128]


def test_what_is_not_finite_goes_on_to_where_it_is_noticed() -> None:
    scale = seen([[1.0], [np.nan]])
    assert np.isnan(scale(np.ones((1, 1)))).all()


# ------------------------------------------------------------------------------------------ agents


def in_units(batch: list[torch.Tensor], factor: torch.Tensor) -> list[torch.Tensor]:
    states, actions, rewards, next_states, dones = batch
    return [states * factor, actions, rewards, next_states * factor, dones]


def test_small_units_of_observations_do_not_matter() -> None:
    factor = torch.tensor([0.01, 0.5, 1e-6, 0.1])
    half = torch.tensor(0.5)  # a spread below 1
    one, other = CASE.agent(), CASE.agent()
    for seed in range(20):
        one.learn(in_units(CASE.batch(seed), half))
        other.learn(in_units(CASE.batch(seed), half * factor))
    states = CASE.states(64) / 2
    np.testing.assert_array_equal(one.getAction(states), other.getAction(states * factor.numpy()))
    for name, value in tensors(one).items():
        torch.testing.assert_close(value, tensors(other)[name], rtol=1e-2, atol=1e-4, msg=name)


def test_before_learning_an_agent_acts_as_one_that_does_not_scale() -> None:
    plain = DQN(4, 3, False, net_config=CASE.net_config, seed=0)
    scaled = DQN(4, 3, False, net_config=CASE.net_config, seed=0, scale_observations=True)
    states = CASE.states(64)
    np.testing.assert_array_equal(plain.getAction(states), scaled.getAction(states))


@pytest.mark.parametrize("way", ["one-hot, kernel", "CNN"])
def test_what_is_no_vector_stays_as_it_is(way: str) -> None:
    case = CASES[f"DQN, {way}"]
    plain, scaled = case.agent(), case.agent(scale_observations=True)
    assert scaled.observation_scale is None
    for agent in (plain, scaled):
        agent.learn(case.batch())
    assert differing(tensors(plain), tensors(scaled)) == []


def test_acting_and_evaluating_count_nothing_and_learning_does() -> None:
    agent = CASE.agent()
    agent.getAction(CASE.states(8), 0.5)
    assert agent.observation_scale.count == 0
    agent.learn(CASE.batch())
    assert agent.observation_scale.count == len(CASE.batch()[0])


def test_a_clone_and_a_checkpoint_see_with_the_same_scale(tmp_path: Path) -> None:
    agent = CASE.agent()
    for seed in range(3):
        agent.learn(in_units(CASE.batch(seed), torch.tensor([0.1, 1.0, 9.0, 1.0])))
    agent.saveCheckpoint(tmp_path / "agent.pt")
    stranger = CASE.agent(seed=5)
    stranger.loadCheckpoint(tmp_path / "agent.pt")
    for twin in (agent.clone(), copy.deepcopy(agent), DQN.load(tmp_path / "agent.pt"), stranger):
        assert_same(twin.observation_scale.state_dict(), agent.observation_scale.state_dict())
        twin.learn(CASE.batch(9))
    assert agent.observation_scale.count == 3 * len(CASE.batch()[0])


def test_a_file_from_before_there_was_a_scale_is_read() -> None:
    state = DQN(4, 3, False, seed=0).state_dict()
    assert "observation_scale" not in state
    del state["settings"]["scale_observations"]
    agent = CASE.agent()
    agent.load_state_dict(state)
    assert agent.scale_observations is False
    assert agent.observation_scale is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": torch.zeros(3)}, r"mean: expected 4 values, got \(3,\)"),
        ({"variance": "wide"}, "incomplete or inconsistent"),
        ({"count": -1}, "count: expected an integer >= 0, got -1"),
        (None, "incomplete or inconsistent.*observation_scale"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_the_agent_stays(
    change: dict[str, Any] | None, message: str
) -> None:
    agent = CASE.agent()
    agent.learn(CASE.batch())
    before = agent.state_dict()
    state = CASE.agent(seed=3).state_dict()
    if change is None:
        del state["observation_scale"]
    else:
        state["observation_scale"] |= change
    with pytest.raises(CheckpointError, match=message):
        agent.load_state_dict(state)
    assert_same(agent.state_dict(), before)
