"""A network, its target and its optimiser as one object: they never part."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.errors import AgileRLError
from agilerl.networks import mlp_kernel
from agilerl.networks.evolvable_mlp import EvolvableMLP
from tests.algorithms.cases import assert_same

WAYS = ["kernel", "autograd"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(mlp_kernel, "enabled", request.param == "kernel")
    return str(request.param)


def network(lr: float | None = 1e-2, **shape: Any) -> TrainedNetwork:
    return TrainedNetwork(EvolvableMLP(4, 2, [16, 12], min_mlp_nodes=2, seed=0, **shape), lr=lr)


def inputs(seed: int = 0, rows: int = 8) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))


def train(net: TrainedNetwork, seed: int = 0) -> None:
    """Make one step on the squared outputs, through the verbs."""
    net.backward(2 * net.forward(inputs(seed)))
    net.step()


def train_by_hand(net: TrainedNetwork, seed: int = 0) -> None:
    """Make the same step as a user would, with the real optimiser."""
    net.optimizer.zero_grad()
    net.module(inputs(seed)).square().sum().backward()
    net.optimizer.step()


def weights(net: TrainedNetwork) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.module.parameters()]


# --------------------------------------------------------------------------------------- one truth


def test_steps_by_hand_and_by_the_verbs_keep_one_truth(way: str) -> None:
    mixed, by_hand = network(), network()
    for seed in range(12):
        (train if seed % 3 else train_by_hand)(mixed, seed)
        train_by_hand(by_hand, seed)
    torch.testing.assert_close(weights(mixed), weights(by_hand), rtol=1e-4, atol=1e-6)
    for p, q in zip(mixed.module.parameters(), by_hand.module.parameters(), strict=True):
        mine, its = mixed.optimizer.state[p], by_hand.optimizer.state[q]
        assert mine["step"].item() == its["step"].item() == 12
        torch.testing.assert_close(mine["exp_avg"], its["exp_avg"], rtol=1e-3, atol=1e-6)


def test_the_kernel_serves_a_plain_mlp(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    train(net)
    monkeypatch.setattr(net.module, "forward", None)  # autograd would need it
    train(net)
    monkeypatch.setattr(mlp_kernel, "enabled", False)
    with pytest.raises(TypeError):
        train(net)


def test_switching_the_kernel_off_and_on_keeps_one_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    switched, steady = network(), network()
    for seed in range(8):
        monkeypatch.setattr(mlp_kernel, "enabled", seed % 2 == 0)
        train(switched, seed)
        switched.soft_update(0.2)
        monkeypatch.setattr(mlp_kernel, "enabled", False)
        train(steady, seed)
        steady.soft_update(0.2)
    torch.testing.assert_close(weights(switched), weights(steady), rtol=1e-4, atol=1e-6)
    mine, its = (list(net.target.parameters()) for net in (switched, steady))
    torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)


def test_writing_into_a_parameter_is_seen_at_once(way: str) -> None:
    net = network()
    train(net)
    with torch.no_grad():
        net.module.layers["output"].weight.zero_()
        net.module.layers["output"].bias.fill_(3.0)
    assert net.infer(inputs()).eq(3).all()
    net.module.layers["output"].bias.data = torch.tensor([1.0, 2.0])
    assert net.infer(inputs())[0].tolist() == [1.0, 2.0]
    train(net)
    assert net.module.layers["output"].bias[0].item() < 1.0


def test_another_parameter_in_its_place_is_trained(way: str) -> None:
    net = network()
    train(net)
    fresh = nn.Parameter(torch.ones(2))
    net.module.layers["output"].bias = fresh
    train(net)
    assert fresh.max().item() < 1.0
    assert any(p is fresh for p in net.optimizer.param_groups[0]["params"])


def test_the_optimisers_own_state_dict_comes_and_goes(way: str) -> None:
    one, two = network(), network()
    for seed in range(3):
        train(one, seed)
    two.module.load_state_dict(one.module.state_dict())
    train(two, 7)
    two.module.load_state_dict(one.module.state_dict())
    two.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
    train(one, 4)
    train(two, 4)
    torch.testing.assert_close(weights(one), weights(two), rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [{"betas": (0.5, 0.9)}, {"eps": 0.1}, {"weight_decay": 0.1}, {"maximize": True}],
    ids=str,
)
def test_what_is_set_in_the_optimisers_group_counts(way: str, change: dict[str, Any]) -> None:
    one, two = network(), network()
    one.optimizer.param_groups[0].update(change)
    two.optimizer.param_groups[0].update(change)
    for seed in range(4):
        train(one, seed)
        train_by_hand(two, seed)
    torch.testing.assert_close(weights(one), weights(two), rtol=1e-4, atol=1e-6)


def test_descend_is_the_same_step(way: str) -> None:
    one, two = network(), network()
    for seed in range(4):
        train(one, seed)
        two.descend(two.module(inputs(seed)).square().sum())
    torch.testing.assert_close(weights(one), weights(two), rtol=1e-4, atol=1e-6)


def test_input_gradients_leave_the_parameters_gradient_as_it_was(way: str) -> None:
    one, two = network(), network()
    for net in (one, two):
        net.backward(2 * net.forward(inputs()))
    two.forward(inputs(1))
    two.input_gradient(torch.ones(8, 2))
    one.step()
    two.step()
    torch.testing.assert_close(weights(one), weights(two), rtol=0, atol=0)


# ---------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_the_soft_update_moves_the_target_by_tau(way: str, tau: float) -> None:
    net = network()
    train(net)
    before = [p.clone() for p in net.target.parameters()]
    net.soft_update(tau)
    expected = [old.lerp(new, tau) for old, new in zip(before, weights(net), strict=True)]
    torch.testing.assert_close([p.detach() for p in net.target.parameters()], expected)
    assert not any(p.requires_grad for p in net.target.parameters())


def test_the_target_is_a_copy_that_training_leaves_alone(way: str) -> None:
    net = network()
    before = net.infer(inputs(), target=True)
    train(net)
    assert torch.equal(net.infer(inputs(), target=True), before)
    assert not torch.equal(net.infer(inputs()), before)


def test_a_frozen_network_has_no_optimiser_and_never_changes(way: str) -> None:
    net = network(lr=None)
    before = weights(net)
    net.infer(inputs())
    with pytest.raises(AttributeError, match="frozen"):
        _ = net.optimizer
    net.module.add_node()
    assert net.infer(inputs(), target=True).shape == (8, 2)
    assert weights(net)[0].shape[0] + weights(net)[2].shape[0] > len(before[0]) + len(before[2])


def test_no_target_is_told() -> None:
    net = TrainedNetwork(EvolvableMLP(4, 2, [8], seed=0), lr=1e-2, target_of=None)
    train(net)
    with pytest.raises(AttributeError, match="no target"):
        _ = net.target


class Composite(nn.Module):
    """A trunk and a head under one optimiser; the head alone has a target."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = EvolvableMLP(4, 6, [8], seed=0)
        self.head = EvolvableMLP(6, 2, [8], seed=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.trunk(x))
        return out


def test_in_a_composite_each_part_is_followed_and_one_part_has_the_target() -> None:
    net = TrainedNetwork(Composite(), lr=1e-2, target_of="head")
    assert len(net.evolvables) == 2
    train(net)
    trunk, head = net.evolvables
    trunk.add_node(0, 4)
    net.sync()
    head.add_node(0, 3)
    assert net.target.spec.hidden_size == (11,)
    held = [id(p) for p in net.optimizer.param_groups[0]["params"]]
    assert held == [id(p) for p in net.module.parameters()]
    before = weights(net)
    train(net)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))
    net.soft_update(1.0)
    torch.testing.assert_close(list(net.target.parameters()), list(head.parameters()))


# ------------------------------------------------------------------------------------------- state


def test_a_state_that_does_not_fit_changes_nothing(way: str) -> None:
    net = network()
    train(net)
    good = net.state_dict()
    adam = good["optimizer"]
    for broken in (
        {k: v for k, v in good.items() if k != "target"},
        {**good, "module": {**good["module"], "layers.output.bias": torch.zeros(3)}},
        {**good, "module": {**good["module"], "layers.output.bias": torch.zeros(2).double()}},
        {**good, "optimizer": {**adam, "moments": {"layers.output.bias": {}}}},
        {**good, "optimizer": {**adam, "options": {**adam["options"], "lr": "fast"}}},
    ):
        before = net.state_dict()
        with pytest.raises((AgileRLError, KeyError)):
            net.prepare_load(broken)
        assert_same(net.state_dict(), before)
    train(net)


def test_a_state_shares_no_memory_with_the_network(way: str) -> None:
    net = network()
    train(net)
    state = net.state_dict()
    copied = copy.deepcopy(state)
    train(net, 1)
    net.soft_update(0.5)
    assert_same(state, copied)


def test_weights_that_are_not_finite_are_noticed() -> None:
    net = network()
    assert net.is_finite()
    with torch.no_grad():
        net.module.layers["output"].bias[0] = float("nan")
    assert not net.is_finite()


def test_a_state_keeps_each_parameters_own_number_of_steps(way: str) -> None:
    one, two = network(), network()
    for seed in range(6):
        one.module.layers["linear_0"].requires_grad_(seed >= 3)
        train(one, seed)
    train(two)
    two.prepare_load(one.state_dict())()
    for net in (one, two):
        for seed in range(3):
            train(net, 10 + seed)
    steps = {float(two.optimizer.state[p]["step"]) for p in two.module.parameters()}
    assert steps == {6.0, 9.0}
    assert_same(two.state_dict(), one.state_dict())


# ---------------------------------------------------------------------------------------- clipping


@pytest.mark.parametrize("limit", [1e-3, 0.5, 1e3])
def test_the_gradient_is_clipped_as_torch_clips_it(way: str, limit: float) -> None:
    net, by_hand = network(), network()
    for seed in range(4):
        net.backward(2 * net.forward(inputs(seed)))
        net.step(limit)
        by_hand.optimizer.zero_grad()
        by_hand.module(inputs(seed)).square().sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(by_hand.module.parameters(), limit)
        assert (norm > limit) == (limit < 1), "both ways are tried"
        by_hand.optimizer.step()
    for p, q in zip(net.module.parameters(), by_hand.module.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
        mine, its = (x.optimizer.state[y]["exp_avg"] for x, y in ((net, p), (by_hand, q)))
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-9)
