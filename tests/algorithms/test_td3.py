"""TD3, where it differs from DDPG."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.td3 import TD3
from tests.algorithms.cases import CASES, assert_learns, tensors
from tests.algorithms.known import ConstantNoise, one_row, put_out

LINEAR: dict[str, Any] = {"arch": "mlp", "h_size": [8], "activation": "linear"}
CASE = CASES["TD3, MLP, kernel"]


@pytest.mark.parametrize("values", [(3.0, -1.0), (-1.0, 3.0), (2.0, 2.0)])
def test_the_target_is_the_lesser_of_both_target_critics(values: tuple[float, float]) -> None:
    agent: Any = TD3(1, 1, False, net_config=LINEAR, gamma=0.5, seed=0)
    agent.rng = ConstantNoise(0.0)
    for critic, value in zip(agent.critics, values, strict=True):
        put_out(critic.target, value)
        put_out(critic.module, 1.0)
    target = 4.0 + 0.5 * min(values)
    assert agent.learn(one_row([0.0], reward=4.0)) == pytest.approx(2 * (1.0 - target) ** 2)


def test_the_critics_begin_apart_and_both_learn() -> None:
    agent = CASE.agent()
    assert list(agent.networks) == ["actor", "critic", "critic_2"]
    pairs = zip(*(critic.module.parameters() for critic in agent.critics), strict=True)
    assert not any(torch.equal(p, q) for p, q in pairs if p.dim() > 1)
    assert_learns(agent, CASE.batch())


def test_the_actor_and_all_targets_wait_for_every_policy_freq_th_step() -> None:
    agent = CASE.agent(policy_freq=3)
    for step in range(1, 7):
        before = tensors(agent)
        agent.learn(CASE.batch(step))
        after = tensors(agent)
        moved = {n for n in before if not torch.equal(before[n], after[n])}
        still = {n for n in before if n.startswith("actor module") or " target " in n}
        assert (still <= moved) if step % 3 == 0 else not still & moved


def test_without_the_second_critic_it_is_ddpg() -> None:
    twin, plain = (cls(4, 2, False, net_config=LINEAR, seed=3) for cls in (TD3, DDPG))
    for name in ("actor", "critic"):
        pairs = zip(*(a.networks[name].module.parameters() for a in (twin, plain)), strict=True)
        assert all(torch.equal(p, q) for p, q in pairs)
