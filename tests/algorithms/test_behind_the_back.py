"""What is done to a network behind its owner's back is followed: edits, moves, hooks, freezing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from agilerl.algorithms.dqn import DQN
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks import mlp_kernel
from tests.algorithms.cases import (
    CASES,
    assert_learns,
    assert_optimisers_hold_the_live_parameters,
    trained,
)
from tests.algorithms.test_moments import moments
from tests.algorithms.test_trained_network import Composite, inputs, network, train, train_by_hand

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
            net.sync()
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
    before = [p.detach().clone() for p in net.module.parameters()]
    train(net)
    held = [id(p) for p in net.optimizer.param_groups[0]["params"]]
    assert held == [id(p) for p in net.module.parameters()]
    pairs = zip(net.module.parameters(), before, strict=True)
    assert not any(torch.equal(new, old) for new, old in pairs)


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


def test_an_assignment_is_seen_by_the_very_next_verb(way: str) -> None:
    agent = CASES["DDPG, MLP, kernel"].agent(policy_freq=3)
    batch = CASES["DDPG, MLP, kernel"].batch()
    agent.learn(batch)  # the actor is asked, and neither steps nor moves its target
    weights = {name: value * 0.5 for name, value in agent.actor.state_dict().items()}
    agent.actor.load_state_dict(weights, assign=True)
    states = batch[0]
    with torch.no_grad():
        torch.testing.assert_close(agent.policy_network.infer(states), agent.actor(states))
    critic = agent.networks["critic"]
    critic.module.load_state_dict(
        {name: value * 0.5 for name, value in critic.module.state_dict().items()}, assign=True
    )
    critic.soft_update(1.0)
    for new, online in zip(critic.target.parameters(), critic.module.parameters(), strict=True):
        assert torch.equal(new, online)


def test_gradients_can_be_changed_between_backward_and_step(way: str) -> None:
    net, plain = network(), network()
    for one, clip in ((net, True), (plain, False)):
        one.backward(2 * one.forward(inputs()))
        if clip:
            total = torch.nn.utils.clip_grad_norm_(one.module.parameters(), 1e-3)
            assert total > 1e-2
    pairs = zip(net.module.parameters(), plain.module.parameters(), strict=True)
    norms = [(p.grad.norm().item(), q.grad.norm().item()) for p, q in pairs]
    assert all(0 < clipped < whole / 10 for clipped, whole in norms)
    net.step()
    moments_after = [net.optimizer.state[p]["exp_avg"] for p in net.module.parameters()]
    for p, mean in zip(net.module.parameters(), moments_after, strict=True):
        torch.testing.assert_close(mean, 0.1 * p.grad)


@pytest.mark.parametrize("kind", ["tensor", "module"])
def test_a_hook_on_a_gradient_is_called(way: str, kind: str) -> None:
    net, seen = network(), []
    train(net)
    if kind == "tensor":
        net.module.layers["output"].weight.register_hook(seen.append)
    else:
        net.module.layers["output"].register_full_backward_hook(lambda *call: seen.append(call))
    train(net)
    assert len(seen) == 1


@pytest.mark.parametrize("layer", ["linear_0", "output"])
def test_a_layer_that_was_frozen_for_a_time_learns_on_as_under_plain_adam(
    way: str, layer: str
) -> None:
    net, by_hand = network(), network()
    for seed in range(30):
        for one, step in ((net, train), (by_hand, train_by_hand)):
            one.module.layers[layer].requires_grad_(seed >= 20)
            step(one, seed)
    for p, q in zip(net.module.parameters(), by_hand.module.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_a_frozen_layer_stays_frozen_through_an_edit(way: str) -> None:
    net = network()
    net.module.layers["linear_0"].requires_grad_(False)
    net.module.change_activation("tanh")
    net.module.add_layer()
    train(net)
    frozen = [name for name, p in net.module.layers.named_parameters() if not p.requires_grad]
    assert frozen == ["linear_0.weight", "linear_0.bias"]


def test_an_activation_that_was_exchanged_is_the_one_that_serves(way: str) -> None:
    net = network()
    train(net)
    net.module.layers["act_0"] = torch.nn.Tanh()
    with torch.no_grad():
        torch.testing.assert_close(net.infer(inputs()), net.module(inputs()))


def test_a_parametrised_layer_learns(way: str) -> None:
    net = network()
    torch.nn.utils.parametrizations.weight_norm(net.module.layers["linear_0"])
    before = net.module(inputs()).detach()
    train(net)
    assert not torch.equal(net.module(inputs()), before)


def test_an_agent_that_first_acted_in_inference_mode_learns_by_autograd(way: str) -> None:
    agent = CASE.agent()
    with torch.inference_mode():
        agent.getAction(CASE.states(4))
    agent.actor.layers["linear_0"].requires_grad_(False)
    before = agent.actor.layers["output"].weight.detach().clone()
    agent.learn(CASE.batch())
    assert not torch.equal(agent.actor.layers["output"].weight, before)


# ----------------------------------------------------------------------------- while it learns


class Meddler(DQN):
    """An agent that does something else on the way to its loss: what ``then`` says, once."""

    then: ClassVar[list[Callable[[Any], object]]] = []

    def loss(self, values: Any, actions: Any, targets: Any) -> tuple[Any, Any]:
        while self.then:
            self.then.pop()(self)
        return super().loss(values, actions, targets)


@pytest.fixture
def meddler() -> Any:
    agent = replace(CASE, cls=Meddler).agent()
    agent.learn(CASE.batch())
    return agent


@pytest.mark.parametrize("copied", [Meddler.clone, copy.deepcopy])
@pytest.mark.parametrize("edit", ["add_node", "add_layer"])
def test_a_copy_made_while_learning_follows_edits(
    way: str, meddler: Any, copied: Callable[[Any], Any], edit: str
) -> None:
    copies: list[Any] = []
    meddler.then.append(lambda agent: copies.append(copied(agent)))
    meddler.learn(CASE.batch())
    (twin,) = copies
    getattr(twin.actor, edit)()
    assert_learns(twin, CASE.batch(9))


def test_an_optimiser_that_is_reset_while_learning_is_followed(way: str, meddler: Any) -> None:
    meddler.then.append(lambda agent: agent.optimizer.state.clear())
    meddler.learn(CASE.batch())
    states = meddler.optimizer.state
    assert {int(states[p]["step"]) for p in meddler.actor.parameters()} == {1}
    assert_learns(meddler, CASE.batch(9))


@pytest.mark.parametrize("asked", [lambda a: a.policy_network.module, lambda a: a.actor])
def test_weights_that_are_exchanged_while_learning_are_followed(
    way: str, meddler: Any, asked: Callable[[Any], torch.nn.Module]
) -> None:
    other = {k: v.clone() + 1 for k, v in CASE.agent().actor.state_dict().items()}
    targets = {k: v.clone() for k, v in meddler.actor_target.state_dict().items()}
    meddler.then.append(lambda agent: asked(agent).load_state_dict(other, assign=True))
    meddler.learn(CASE.batch())
    for name, value in meddler.actor_target.state_dict().items():
        online = meddler.actor.state_dict()[name]
        assert (online - other[name]).abs().max() < 0.5, name
        torch.testing.assert_close(value, targets[name].lerp(online, meddler.tau))
    assert_learns(meddler, CASE.batch(9))


def test_learning_that_fails_leaves_nothing_taken_for_granted(way: str, meddler: Any) -> None:
    meddler.then.append(lambda agent: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        meddler.learn(CASE.batch())
    meddler.actor.add_node()
    assert_learns(meddler, CASE.batch(9))


def test_a_kernel_that_is_turned_off_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = trained(CASE)
    monkeypatch.setattr(mlp_kernel, "enabled", False)
    weights = {k: v.clone() for k, v in agent.actor.state_dict().items()}
    agent.actor.load_state_dict(weights, assign=True)
    assert_learns(agent, CASE.batch(9))
