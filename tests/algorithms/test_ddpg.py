"""DDPG, on cases computed by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms.ddpg import DDPG
from agilerl.hpo.mutation import Mutations
from tests.algorithms.cases import CASES, CNN, tensors
from tests.algorithms.known import SATURATED, ConstantNoise, one_row, put_out, sum_up

LINEAR: dict[str, Any] = {"arch": "mlp", "h_size": [8], "activation": "linear"}


def known(policy: float = 0.0, noise: float = 0.0, **settings: Any) -> Any:
    """Return an agent of bounds [-2, 2] whose target critic says Q(s, a) = a, the online one 0.

    Its policies say ``tanh(policy)``, and its random stream gives ``noise`` only.
    """
    bounds = {"min_action": -2.0, "max_action": 2.0}
    agent: Any = DDPG(
        1, 1, False, net_config=LINEAR, **{"gamma": 0.5, "seed": 0, **bounds, **settings}
    )
    for module in (agent.actor, agent.actor_target):
        put_out(module, policy)
    put_out(agent.critic, 0.0)
    sum_up(agent.critic_target, slice(0, 1))
    agent.rng = ConstantNoise(noise)
    return agent


def target_action(agent: Any) -> float:
    """Return the size of the target action, seen through the critic's loss on one row."""
    return math.sqrt(agent.learn(one_row([0.0]))) / agent.gamma


# ------------------------------------------------------------------------------------- the target


def test_the_target_has_one_minus_done() -> None:
    assert known(SATURATED).learn(one_row([0.0], reward=3.0)) == pytest.approx((3 + 0.5 * 2) ** 2)
    assert known(SATURATED).learn(one_row([0.0], reward=3.0, done=1.0)) == pytest.approx(9.0)


@pytest.mark.parametrize("policy", [0.0, 0.4, SATURATED])
def test_the_target_action_is_the_target_policys_in_the_environments_units(policy: float) -> None:
    assert target_action(known(policy)) == pytest.approx(2 * math.tanh(policy), abs=1e-6)


@pytest.mark.parametrize(
    ("noise", "action"),
    [(1.0, 2 * 0.2), (-1.0, 2 * 0.2), (10.0, 2 * 0.5), (-10.0, 2 * 0.5)],
    ids=["sigma 0.2", "below", "clip 0.5", "clip below"],
)
def test_smoothing_noise_is_measured_in_half_ranges(noise: float, action: float) -> None:
    assert target_action(known(0.0, noise)) == pytest.approx(action, rel=1e-5)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_noised_target_action_is_clamped_to_the_bounds(side: float) -> None:
    assert target_action(known(side * SATURATED, side)) == pytest.approx(2.0, rel=1e-6)


def test_target_smoothing_draws_from_the_agents_stream() -> None:
    one, two = (CASES["DDPG, MLP, kernel"].agent() for _ in "ab")
    batch = CASES["DDPG, MLP, kernel"].batch()
    before = copy.deepcopy(one.rng.bit_generator.state)
    first = one.learn(batch)
    assert one.rng.bit_generator.state != before
    two.rng = np.random.default_rng(123)
    assert two.learn(batch) != first


def test_smoothing_noise_never_writes_into_the_batch() -> None:
    batch = one_row([0.7], reward=0.3)
    copies = [part.clone() for part in batch]
    known(0.3, 1.0).learn(batch)
    assert all(torch.equal(a, b) for a, b in zip(batch, copies, strict=True))


@pytest.mark.parametrize("name", ["DDPG, MLP, kernel", "DDPG, MLP, autograd", "DDPG, CNN"])
def test_the_critics_target_network_values_the_next_state(name: str) -> None:
    case = CASES[name]
    agent = case.agent(gamma=0.5)
    for module in (agent.critic, agent.critic_target):
        put_out(module, 0.0)
    states, actions, rewards, next_states, dones = case.batch()
    batch = [states, actions, 0 * rewards, next_states, 0 * dones]
    put_out(agent.critic_target, 10.0)
    assert agent.learn(batch) == pytest.approx(25.0)


@pytest.mark.parametrize("name", ["DDPG, MLP, kernel", "DDPG, CNN"])
def test_the_target_policy_picks_the_next_action(name: str) -> None:
    case = CASES[name]
    agent = case.agent()
    twin = copy.deepcopy(agent)
    put_out(twin.actor, 3.0, 3.0, 3.0)  # the online policy: it has no say in the target
    assert twin.learn(case.batch()) == agent.learn(case.batch())
    agent, twin = case.agent(), case.agent()
    put_out(twin.actor_target, 3.0, 3.0, 3.0)
    assert twin.learn(case.batch()) != agent.learn(case.batch())


# ----------------------------------------------------------------------------------- the schedule


@pytest.mark.parametrize("policy_freq", [1, 2, 3])
def test_the_actor_and_the_targets_update_every_policy_freq_learn_calls(policy_freq: int) -> None:
    case = CASES["DDPG, MLP, kernel"]
    agent = case.agent(policy_freq=policy_freq, learn_step=6)
    moved = []
    for seed in range(6):
        before = tensors(agent)
        agent.learn(case.batch(seed))
        after = tensors(agent)
        names = {n.rpartition(" ")[0] for n in before if not torch.equal(before[n], after[n])}
        moved.append({n for n in names if n.endswith(("module", "target"))})
        if seed == 3:
            agent = agent.clone()  # the count of learn calls goes with the copy
    some = {"critic module"}
    every = some | {"actor module", "actor target", "critic target"}
    assert moved == [every if call % policy_freq == 0 else some for call in range(1, 7)]


def test_the_actor_climbs_the_critic() -> None:
    agent = known(0.0, lr=1e-2, policy_freq=1, gamma=0.0)
    sum_up(agent.critic, slice(0, 1), weight=1.0)
    before = float(agent.getAction(np.zeros(1, np.float32))[0])
    for _ in range(20):
        sum_up(agent.critic, slice(0, 1), weight=1.0)
        agent.learn(one_row([0.0]))
    assert before == pytest.approx(0.0)
    assert agent.getAction(np.zeros(1, np.float32))[0] > 0.2


def test_the_actors_gradient_is_that_of_the_scaled_action() -> None:
    agent = known(0.3, policy_freq=1)
    agent.lr = 0.0
    sum_up(agent.critic, slice(0, 1), weight=5.0)
    agent.learn(one_row([0.0]))
    moment = agent.optimizer.state[agent.actor.layers["output"].bias]["exp_avg"]
    expected = -5.0 * 2.0 * (1 - math.tanh(0.3) ** 2)  # -dQ/da, half-range, tanh'
    assert moment.item() == pytest.approx(0.1 * expected, rel=1e-5)


# ------------------------------------------------------------------------------------ exploration


def test_exploration_is_gaussian_noise_around_the_policy() -> None:
    agent = DDPG(1, 1, False, seed=0, min_action=-100.0, max_action=100.0)
    put_out(agent.actor, 0.1)
    actions = agent.getAction(np.zeros((20_000, 1), np.float32), epsilon=0.05)[:, 0]
    noise = (actions - 100 * math.tanh(0.1)) / (100 * 0.05)
    assert np.mean(noise) == pytest.approx(0.0, abs=0.03)
    assert np.std(noise) == pytest.approx(1.0, abs=0.03)
    assert np.mean(noise**4) == pytest.approx(3.0, abs=0.2)  # 1.8 if it were uniform
    assert np.mean(np.abs(noise) < 1e-3) < 0.01  # no part of it is greedy


@pytest.mark.parametrize("epsilon", [0.1, 0.4])
def test_epsilon_scales_the_noise_per_action_by_its_half_range(epsilon: float) -> None:
    agent = DDPG(1, 2, False, seed=0, min_action=[-10.0, 0.0], max_action=[10.0, 100.0])
    put_out(agent.actor, 0.0, 0.0)
    actions = agent.getAction(np.zeros((5000, 1), np.float32), epsilon=epsilon)
    assert actions.mean(0) == pytest.approx([0.0, 50.0], abs=2.0)
    inside = np.clip(np.random.default_rng(0).standard_normal(50_000) * epsilon, -1, 1).std()
    assert actions.std(0) / [10.0, 50.0] == pytest.approx([inside, inside], rel=0.05)


def test_explored_actions_stay_within_the_bounds() -> None:
    agent = DDPG(1, 1, False, seed=0, min_action=-2.0, max_action=0.5)
    actions = agent.getAction(np.zeros((2000, 1), np.float32), epsilon=3.0)
    assert (actions.min(), actions.max()) == (-2.0, 0.5)


def test_greedy_actions_are_the_policys_and_draw_nothing() -> None:
    agent = DDPG(1, 1, False, seed=0, min_action=0.0, max_action=4.0)
    before = copy.deepcopy(agent.rng.bit_generator.state)
    put_out(agent.actor, 0.0)
    assert agent.getAction(np.zeros(1, np.float32)).tolist() == [2.0]
    put_out(agent.actor, SATURATED)
    assert agent.getAction(np.zeros((2, 1), np.float32)).tolist() == [[4.0], [4.0]]
    assert agent.rng.bit_generator.state == before


@pytest.mark.parametrize("config", [LINEAR, CNN], ids=["mlp", "cnn"])
def test_heads_are_tanh_for_policies_and_linear_for_critics(config: Any) -> None:
    agent = DDPG((3, 8, 8), 2, False, net_config=config)
    state = torch.zeros(1, 3, 8, 8)
    put_out(agent.actor, 0.5, -SATURATED)
    assert agent.actor(state)[0].tolist() == pytest.approx([math.tanh(0.5), -1.0])
    put_out(agent.critic, -300.0)
    assert agent.critic(state, torch.zeros(1, 2)).tolist() == [[-300.0]]


# -------------------------------------------------------------------------------------- evolution


@pytest.mark.parametrize("name", ["DDPG, MLP, kernel", "DDPG, CNN"])
@pytest.mark.parametrize("new_layer_prob", [0.0, 1.0])
def test_a_mutation_makes_the_same_structural_choice_on_actor_and_critic(
    name: str, new_layer_prob: float
) -> None:
    agent = CASES[name].agent()
    chances = {"no_mutation": 0, "parameters": 0, "rl_hp": 0, "architecture": 3, "activation": 1}
    mutations = Mutations(
        "DDPG", **chances, new_layer_prob=new_layer_prob, rl_hp_selection=["lr"], mutation_sd=0.1
    )
    shapes = ("hidden_size", "activation", "channel_size", "kernel_size", "stride_size")
    seen = set()
    for _ in range(25):
        mutations.mutation([agent])
        nets = (agent.actor, agent.critic, agent.actor_target, agent.critic_target)
        alike = {tuple(getattr(net.spec, field, None) for field in shapes) for net in nets}
        assert len(alike) == 1, agent.mut
        seen |= alike
    assert len(seen) > 3
