"""Small observations made larger: the scale, and an agent that learns with it."""

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
from agilerl.algorithms.observation_scale import ObservationScale
from agilerl.errors import CheckpointError, EnvError
from tests.algorithms.cases import CASES, assert_same, differing, tensors

CASE = CASES["scaled DQN, MLP, kernel"]


def seen(*batches: Any) -> ObservationScale:
    scale = ObservationScale(np.shape(batches[0])[1])
    for batch in batches:
        scale.see(np.asarray(batch, np.float32))
    return scale


# -------------------------------------------------------------------------------------- the scale


@given(
    arrays(np.float32, (12, 3), elements=st.floats(-2, 2, width=32)),
    st.lists(st.integers(1, 11), max_size=4, unique=True).map(sorted),
)
def test_entries_below_one_reach_one_and_others_stay_however_batches_come(
    rows: Any, cuts: list[int]
) -> None:
    scale = seen(*np.split(rows, cuts))
    largest = np.abs(rows).max(0)
    np.testing.assert_array_equal(scale.largest, np.minimum(largest, 1))
    reached = np.abs(scale(rows)).max(0)
    small = (largest > 0.01) & (largest < 1)
    np.testing.assert_allclose(reached[small], 1, rtol=1e-6)
    np.testing.assert_array_equal(reached[largest >= 1], largest[largest >= 1])


def test_by_hand() -> None:
    scale = seen([[0.1, 0.5, 3.0, 0.0]], [[-0.2, 0.4, -5.0, 0.0]])
    np.testing.assert_allclose(
        scale(np.float32([[0.1, -0.25, 40.0, 0.3]])), [[0.5, -0.5, 40, 0.3]], rtol=1e-6
    )


def test_no_entry_is_multiplied_by_more_than_a_hundred() -> None:
    scale = seen([[1e-9, 0.004]])
    np.testing.assert_allclose(scale(np.float32([[1e-9, 0.004]])), [[1e-7, 0.4]], rtol=1e-6)


def test_an_entry_that_grows_is_divided_by_less_and_at_last_left_alone() -> None:
    scale = seen([[0.2]])
    assert (scale.identity, scale.settled) == (False, False)
    scale.see(np.float32([[0.5]]))
    np.testing.assert_allclose(scale(np.float32([[0.2]])), [[0.4]])
    scale.see(np.float32([[-1.5]]))
    assert scale.identity
    assert scale.settled
    given = np.float32([[0.2]])
    assert scale(given) is given


def test_arrays_and_tensors_give_the_same_and_stay_as_they_were() -> None:
    scale = seen([[0.5, 0.25]])
    values = np.float32([[0.3, -4.0], [0.7, 0.1]])
    before = values.copy()
    one, other = scale(values), scale(torch.from_numpy(values))
    assert (one.dtype, other.dtype) == (np.float32, torch.float32)
    np.testing.assert_array_equal(one, other.numpy())
    np.testing.assert_array_equal(values, before)


def test_what_is_not_finite_goes_on_to_where_it_is_noticed() -> None:
    scale = seen([[0.1, 0.5]])
    bad = np.float32([[np.nan, 0.5]])
    scale.see(bad)
    np.testing.assert_array_equal(scale(bad), [[np.nan, 1]])


# ------------------------------------------------------------------------------------------ agents


def in_units(batch: list[torch.Tensor], factor: torch.Tensor) -> list[torch.Tensor]:
    states, actions, rewards, next_states, dones = batch
    return [states * factor, actions, rewards, next_states * factor, dones]


def test_small_units_of_observations_do_not_matter() -> None:
    factor = torch.tensor([0.1, 0.5, 0.25, 1.0])
    part = torch.tensor(0.1)  # normal deviates that stay below 1
    one, other = CASE.agent(), CASE.agent()
    for seed in range(20):
        one.learn(in_units(CASE.batch(seed), part))
        other.learn(in_units(CASE.batch(seed), part * factor))
    states = CASE.states(64) / 10
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


def test_acting_changes_nothing_in_the_scale_and_learning_does() -> None:
    agent = CASE.agent()
    agent.getAction(CASE.states(8), 0.5)
    assert not agent.observation_scale.largest.any()
    agent.learn(CASE.batch())
    largest = CASE.batch()[0].abs().amax(0)
    np.testing.assert_array_equal(agent.observation_scale.largest, largest.clamp(max=1).numpy())


def test_observations_of_another_shape_are_refused_and_leave_the_scale_alone() -> None:
    agent = CASE.agent()
    states, *others = CASE.batch()
    with pytest.raises(EnvError, match=r"expected observations of shape \(4,\), got \(3,\)"):
        agent.learn([states[:, :3], *others])
    assert not agent.observation_scale.largest.any()


def test_a_clone_and_a_checkpoint_see_with_the_same_scale(tmp_path: Path) -> None:
    agent = CASE.agent()
    for seed in range(3):
        agent.learn(in_units(CASE.batch(seed), torch.tensor([0.1, 1.0, 9.0, 0.01])))
    before = agent.observation_scale.state_dict()
    agent.saveCheckpoint(tmp_path / "agent.pt")
    stranger = CASE.agent(seed=5)
    stranger.loadCheckpoint(tmp_path / "agent.pt")
    for twin in (agent.clone(), copy.deepcopy(agent), DQN.load(tmp_path / "agent.pt"), stranger):
        assert_same(twin.observation_scale.state_dict(), agent.observation_scale.state_dict())
        twin.learn(CASE.batch(9))
    assert_same(agent.observation_scale.state_dict(), before)


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
        ({"largest": torch.zeros(3)}, r"largest: expected 4 values, got \(3,\)"),
        ({"largest": "wide"}, "incomplete or inconsistent"),
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
