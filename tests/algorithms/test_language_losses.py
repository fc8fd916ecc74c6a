"""Each loss of language agents against a case computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from agilerl.algorithms import language_losses as losses

T = torch.tensor


def test_behavioural_cloning_is_the_negative_log_likelihood() -> None:
    logits = T([[0.0, math.log(3.0)], [math.log(2.0), 0.0]])
    loss = losses.behavioural_cloning(logits, T([1, 1]))
    torch.testing.assert_close(loss, T([math.log(4 / 3), math.log(3.0)]))


def test_expectile_weighs_targets_above_by_its_level_and_below_by_the_rest() -> None:
    loss = losses.expectile(T([1.0, 1.0, 1.0]), T([3.0, 0.0, 1.0]), 0.8)
    torch.testing.assert_close(loss, T([0.8 * 4, 0.2 * 1, 0.0]))


@pytest.mark.parametrize(("level", "expected"), [(0.5, 0.25), (0.9, 0.75)])
def test_the_minimum_of_the_expectile_loss_is_the_expectile(level: float, expected: float) -> None:
    # of the targets 0, 0, 0, 1: level * (1 - v) = 3 * (1 - level) * v
    targets = T([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for _ in range(2000):
        loss = losses.expectile(value.expand(4), targets, level).mean()
        (gradient,) = torch.autograd.grad(loss, value)
        with torch.no_grad():
            value -= 0.5 * gradient
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_td_targets_add_the_discounted_next_value() -> None:
    targets = losses.td_targets(T([1.0, -1.0]), T([2.0, 0.0]), 0.5)
    torch.testing.assert_close(targets, T([2.0, -1.0]))


def test_q_learning_takes_the_value_of_the_action_taken() -> None:
    loss = losses.q_learning(T([[1.0, 5.0], [2.0, 7.0]]), T([1, 0]), T([3.0, 2.5]))
    torch.testing.assert_close(loss, T([4.0, 0.25]))


def test_the_conservative_penalty_is_logsumexp_less_the_action() -> None:
    loss = losses.conservative(T([[0.0, 0.0, math.log(2.0)]]), T([2]))
    torch.testing.assert_close(loss, T([math.log(4.0) - math.log(2.0)]))


def test_advantages_weigh_the_likelihood_up_to_the_highest_weight() -> None:
    logits = torch.zeros(3, 2)
    advantages = T([0.0, math.log(2.0), 9.0])
    loss = losses.advantage_weighted(logits, T([0, 1, 0]), advantages, 2.0, 5.0)
    torch.testing.assert_close(loss, math.log(2.0) * T([1.0, 4.0, 5.0]))
    plain = losses.advantage_weighted(logits, T([0, 1, 0]), advantages, 0.0, 5.0)
    torch.testing.assert_close(plain, losses.behavioural_cloning(logits, T([0, 1, 0])))


def test_targets_get_no_gradient_and_what_is_trained_does() -> None:
    made = {
        name: torch.tensor([0.1 * i, 0.6], requires_grad=True)
        for i, name in enumerate(("v", "target", "next", "adv"))
    }
    q, logits = (torch.arange(6.0).reshape(2, 3).requires_grad_() for _ in "ab")
    actions = T([0, 2])
    total = (
        losses.expectile(made["v"], made["target"], 0.7)
        + losses.q_learning(q, actions, losses.td_targets(made["target"], made["next"], 0.9))
        + losses.advantage_weighted(logits, actions, made["adv"], 1.0, 20.0)
    )
    total.sum().backward()
    for target in ("target", "next", "adv"):
        assert made[target].grad is None, target
    for trained in (made["v"], q, logits):
        assert trained.grad is not None
        assert trained.grad.any()


def test_perturbed_logits_are_log_pi_plus_beta_times_the_advantage() -> None:
    logits = T([[math.log(0.5), math.log(0.25), math.log(0.25)]])
    q, v = T([[1.0, 2.0, 0.0]]), T([1.0])
    found = losses.perturbed(logits, q, v, 2.0, 0.0)
    expected = T([[math.log(0.5), math.log(0.25) + 2.0, math.log(0.25) - 2.0]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(losses.perturbed(logits, q, v, 0.0, 0.0), logits)


def test_a_token_that_the_data_hardly_shows_cannot_win_whatever_its_value() -> None:
    logits = T([[math.log(0.9), math.log(0.095), math.log(0.005)], [0.0, 0.0, -torch.inf]])
    q = T([[0.0, 1.0, 1e6], [0.0, 1.0, 1e6]])
    found = losses.perturbed(logits, q, T([0.0, 0.0]), 10.0, 0.01)
    assert found.argmax(-1).tolist() == [1, 1]
    assert found[:, 2].tolist() == [-torch.inf, -torch.inf]


def test_the_likeliest_token_stays_even_if_all_are_rare() -> None:
    found = losses.perturbed(T([[0.0, 0.1, 0.0]]), torch.zeros(1, 3), T([0.0]), 1.0, 0.9)
    assert torch.isfinite(found).tolist() == [[False, True, False]]
