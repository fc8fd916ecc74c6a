"""Losses: hand-computed tables, and each value against its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agilerl.algorithms import losses

Tensor = torch.Tensor
Make = Callable[..., Any]


@pytest.fixture(params=["numpy", "torch"])
def array(request: pytest.FixtureRequest) -> Make:
    """Return what makes arrays of one of the two kinds that losses serve."""
    if request.param == "torch":
        return lambda x: torch.tensor(x, dtype=torch.float64 if kind(x) is float else torch.long)
    return lambda x: np.array(x, dtype=kind(x))


def kind(x: Any) -> type:
    return kind(x[0]) if isinstance(x, list) else type(x)


def test_the_target_is_cut_where_an_episode_terminated_and_only_there(array: Make) -> None:
    rewards, dones = array([1.0, 1.0, -2.0]), array([0.0, 1.0, 0.0])
    targets = losses.td_target(rewards, dones, array([10.0, 10.0, 4.0]), 0.5)
    assert targets.tolist() == [6.0, 1.0, 0.0]


def test_q_learning_is_the_squared_td_error_of_the_action_taken(array: Make) -> None:
    q = array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    value, gradient = losses.q_learning(q, array([2, 0]), array([1.0, 6.0]))
    assert value.item() == (4.0 + 4.0) / 2
    assert gradient.tolist() == [[0.0, 0.0, 2.0], [-2.0, 0.0, 0.0]]


def test_the_td_error_is_not_clipped(array: Make) -> None:
    value, gradient = losses.q_learning(array([[1000.0]]), array([0]), array([0.0]))
    assert (value.item(), gradient.item()) == (1e6, 2000.0)


def test_hubers_loss_is_half_the_square_within_one_and_linear_beyond(array: Make) -> None:
    q, zeros = array([[0.5], [-3.0], [1.0], [9.0]]), array([0, 0, 0, 0])
    value, gradient = losses.q_learning(q, zeros, array([0.0, 0.0, 0.0, 6.0]), huber=True)
    assert value.item() == (0.125 + 2.5 + 0.5 + 2.5) / 4
    assert gradient.reshape(-1).tolist() == [0.125, -0.25, 0.25, 0.25]


def test_the_conservative_penalty_is_logsumexp_less_the_datas_action(array: Make) -> None:
    q = array([[0.0, math.log(3)], [5.0, 5.0]])
    value, gradient = losses.conservative(q, array([0, 1]))
    assert value.item() == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert gradient.reshape(-1).tolist() == pytest.approx([-0.375, 0.375, 0.25, -0.25])


def test_the_conservative_penalty_is_finite_for_huge_values(array: Make) -> None:
    value, gradient = losses.conservative(array([[1e30, 0.0]]), array([0]))
    assert value.item() == 0.0
    assert gradient.tolist() == [[0.0, 0.0]]


def test_squared_error_of_a_critic(array: Make) -> None:
    value, gradient = losses.squared_error(array([3.0, -1.0]), array([1.0, -1.0]))
    assert value.item() == 2.0
    assert gradient.tolist() == [2.0, 0.0]


def test_the_policy_climbs_the_critics_value(array: Make) -> None:
    value, gradient = losses.policy_gradient(array([3.0, -1.0]))
    assert value.item() == -1.0
    assert gradient.tolist() == [-0.5, -0.5]


Pair = tuple[Any, Any]


def _q(f: Callable[[Any, Any, Any], Pair]) -> Callable[[Any], Pair]:
    def loss(outputs: Any) -> Pair:
        rng = torch.Generator().manual_seed(len(outputs))
        actions = torch.randint(outputs.shape[1], (len(outputs),), generator=rng)
        targets = torch.randn(len(outputs), generator=rng, dtype=torch.float64)
        if isinstance(outputs, np.ndarray):
            return f(outputs, actions.numpy(), targets.numpy())
        return f(outputs, actions, targets)

    return loss


PAIRS: dict[str, Callable[[Any], Pair]] = {
    "q_learning": _q(losses.q_learning),
    "huber": _q(lambda *given: losses.q_learning(*given, huber=True)),
    "conservative": _q(lambda q, actions, _: losses.conservative(q, actions)),
    "squared_error": _q(lambda x, _, targets: losses.squared_error(x[:, 0], targets)),
    "policy_gradient": lambda x: losses.policy_gradient(x[:, 0]),
}


@pytest.mark.parametrize("name", PAIRS)
@given(batch=st.integers(1, 9), width=st.integers(1, 6), seed=st.integers(0, 99))
def test_value_and_gradient_belong_together(name: str, batch: int, width: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    outputs = torch.randn(batch, width, generator=rng, dtype=torch.float64) * 3
    given_outputs = outputs.clone()
    with torch.no_grad():
        value, gradient = PAIRS[name](outputs)
    in_numpy = PAIRS[name](outputs.numpy())
    assert value.shape == ()
    assert torch.equal(outputs, given_outputs), "a loss is pure"
    assert in_numpy[0] == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(in_numpy[1], gradient.numpy(), rtol=1e-12, atol=1e-15)
    leaf = outputs.requires_grad_()
    (expected,) = torch.autograd.grad(PAIRS[name](leaf)[0], leaf)
    expected = expected if gradient.dim() == 2 else expected[:, 0]
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
