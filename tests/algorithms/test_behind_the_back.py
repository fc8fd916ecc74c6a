"""What is done to a network behind its owner's back is followed: edits, moves, hooks, freezing."""

from __future__ import annotations

import copy

import pytest
import torch

from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks import mlp_kernel
from tests.algorithms.cases import (
    CASES,
    assert_learns,
    assert_optimisers_hold_the_live_parameters,
    trained,
)
from tests.algorithms.test_moments import moments
from tests.algorithms.test_trained_network import Composite, inputs, network, train

CASE = CASES["DQN, MLP, kernel"]


@pytest.fixture(params=["kernel", "autograd"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(mlp_kernel, "enabled", request.param == "kernel")
    return str(request.param)


def test_the_moments_follow_two_edits_made_at_once_as_they_follow_one_by_one() -> None:
    one, two = network(), network()
    for net in (one, two):
        for seed in range(3):
            train(net, seed)
        net.module.add_node(hidden_layer=0, numb_new_nodes=3)
        if net is one:
            net.follow()
        net.module.remove_node(hidden_layer=0, numb_new_nodes=5)
    mine, its = moments(two), moments(one)
    assert all(torch.equal(mine[name], its[name]) for name in its)


def test_the_parts_of_a_composite_can_be_edited_at_once() -> None:
    net = TrainedNetwork(Composite(), lr=1e-2, target_of="head")
    train(net)
    trunk, head = net.evolvables
    trunk.add_node(0, 4)
    head.add_node(0, 3)
    train(net)
    held = [id(p) for p in net.optimizer.param_groups[0]["params"]]
    assert held == [id(p) for p in net.module.parameters()]


def test_after_to_on_the_online_network_alone_the_agent_learns(way: str) -> None:
    agent = CASE.agent()
    agent.actor.to(torch.float64)
    before = [p.detach().clone() for p in agent.actor.parameters()]
    targets = [p.detach().double() for p in agent.actor_target.parameters()]
    agent.learn(CASE.batch(9))
    pairs = zip(agent.actor.parameters(), before, strict=True)
    assert not any(torch.equal(new, old) for new, old in pairs)
    for new, old, online in zip(
        agent.actor_target.parameters(), targets, agent.actor.parameters(), strict=True
    ):
        torch.testing.assert_close(new, old.lerp(online, agent.tau))


def test_after_to_in_the_middle_of_training_the_agent_learns(way: str) -> None:
    agent = trained(CASE)
    agent.actor.to(torch.float64)
    agent.actor_target.to(torch.float64)
    assert_learns(agent, CASE.batch(9))
    assert_optimisers_hold_the_live_parameters(agent)


def test_a_layer_that_the_user_froze_stays_and_the_others_learn(way: str) -> None:
    agent = trained(CASE)
    agent.actor.layers["linear_0"].requires_grad_(False)
    before = copy.deepcopy(agent.actor.layers)
    agent.learn(CASE.batch(9))
    assert torch.equal(agent.actor.layers["linear_0"].weight, before["linear_0"].weight)
    assert not torch.equal(agent.actor.layers["output"].weight, before["output"].weight)


def test_the_optimiser_holds_the_live_parameters_right_after_an_assignment(way: str) -> None:
    agent = trained(CASE)
    weights = {name: value.clone() for name, value in agent.actor.state_dict().items()}
    agent.actor.load_state_dict(weights, assign=True)
    assert_optimisers_hold_the_live_parameters(agent)


def test_an_edit_after_a_step_by_hand_on_one_layer_alone(way: str) -> None:
    net = network()
    net.module.layers["output"].bias.grad = torch.ones(2)
    net.optimizer.step()
    net.module.add_node()
    train(net)


def test_a_hook_on_a_layer_is_called(way: str) -> None:
    net, seen = network(), []
    net.module.layers["linear_0"].register_forward_hook(lambda *call: seen.append(call))
    net.infer(inputs())
    assert len(seen) == 1


def test_an_edit_between_a_step_and_its_soft_update_reaches_the_target(way: str) -> None:
    net = network()
    train(net)
    net.module.add_node(hidden_layer=0, numb_new_nodes=3)
    net.soft_update(1.0)
    for new, online in zip(net.target.parameters(), net.module.parameters(), strict=True):
        assert torch.equal(new, online)


def test_a_move_between_a_step_and_its_soft_update_is_followed(way: str) -> None:
    net = network()
    train(net)
    net.module.to(torch.float64)
    net.soft_update(1.0)
    train(net)
    net.soft_update(1.0)
    for new, online in zip(net.target.parameters(), net.module.parameters(), strict=True):
        torch.testing.assert_close(new.double(), online)
