"""Losses: hand-computed tables, and each value against its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agilerl.algorithms import losses

Tensor = torch.Tensor


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_the_target_is_cut_where_an_episode_terminated_and_only_there() -> None:
    targets = losses.td_target(column(1, 1, -2), column(0, 1, 0), column(10, 10, 4), 0.5)
    assert targets.tolist() == [[6.0], [1.0], [0.0]]


def test_q_learning_is_the_squared_td_error_of_the_action_taken() -> None:
    q = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    value, gradient = losses.q_learning(q, torch.tensor([[2], [0]]), torch.tensor([[1.0], [6.0]]))
    assert value.item() == (4.0 + 4.0) / 2
    assert gradient.tolist() == [[0.0, 0.0, 2.0], [-2.0, 0.0, 0.0]]


def test_the_td_error_is_not_clipped() -> None:
    value, gradient = losses.q_learning(
        torch.tensor([[1000.0]]), torch.tensor([[0]]), torch.tensor([[0.0]])
    )
    assert (value.item(), gradient.item()) == (1e6, 2000.0)


def test_the_conservative_penalty_is_logsumexp_less_the_datas_action() -> None:
    q = torch.tensor([[0.0, math.log(3)], [5.0, 5.0]], dtype=torch.float64)
    value, gradient = losses.conservative(q, torch.tensor([[0], [1]]))
    assert value.item() == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert gradient.flatten().tolist() == pytest.approx([-0.375, 0.375, 0.25, -0.25])


def test_the_conservative_penalty_is_finite_for_huge_values() -> None:
    value, gradient = losses.conservative(torch.tensor([[1e30, 0.0]]), torch.tensor([[0]]))
    assert value.item() == 0.0
    assert gradient.tolist() == [[0.0, 0.0]]


def test_squared_error_of_a_critic() -> None:
    value, gradient = losses.squared_error(column(3, -1), column(1, -1))
    assert value.item() == 2.0
    assert gradient.tolist() == [[2.0], [0.0]]


def test_the_policy_climbs_the_critics_value() -> None:
    value, gradient = losses.policy_gradient(column(3, -1))
    assert value.item() == -1.0
    assert gradient.tolist() == [[-0.5], [-0.5]]


def _q(f: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], object]:
    def loss(outputs: Tensor) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(len(outputs))
        actions = torch.randint(outputs.shape[1], (len(outputs), 1), generator=rng)
        targets = torch.randn(len(outputs), 1, generator=rng, dtype=outputs.dtype)
        return f(outputs, actions, targets)

    return loss


PAIRS: dict[str, Callable[[Tensor], object]] = {
    "q_learning": _q(losses.q_learning),
    "conservative": _q(lambda q, actions, _: losses.conservative(q, actions)),
    "squared_error": lambda x: losses.squared_error(x[:, :1], x[:, :1].detach().roll(1, 0) + 0.3),
    "policy_gradient": lambda x: losses.policy_gradient(x[:, :1]),
}


@pytest.mark.parametrize("name", PAIRS)
@given(batch=st.integers(1, 9), width=st.integers(1, 6), seed=st.integers(0, 99))
def test_value_and_gradient_belong_together(name: str, batch: int, width: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    outputs = torch.randn(batch, width, generator=rng, dtype=torch.float64) * 3
    given_outputs = outputs.clone()
    with torch.no_grad():
        value, gradient = PAIRS[name](outputs)  # type: ignore[misc]
    assert value.shape == ()
    assert torch.equal(outputs, given_outputs), "a loss is pure"
    leaf = outputs.requires_grad_()
    (expected,) = torch.autograd.grad(PAIRS[name](leaf)[0], leaf)  # type: ignore[index]
    expected = expected[:, : gradient.shape[1]]
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
