"""A network, its target and its optimiser as one object: they never part."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from agilerl.algorithms.optimizer_state import adopt, moments_of, rest_of
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.errors import CheckpointError
from agilerl.networks import mlp_kernel
from agilerl.networks.evolvable_cnn import EvolvableCNN
from agilerl.networks.evolvable_mlp import EvolvableMLP

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
    net.follow()
    head.add_node(0, 3)
    assert net.target.spec.hidden_size == (11,)
    held = [id(p) for p in net.optimizer.param_groups[0]["params"]]
    assert held == [id(p) for p in net.module.parameters()]
    before = weights(net)
    train(net)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))
    net.soft_update(1.0)
    torch.testing.assert_close(list(net.target.parameters()), list(head.parameters()))


# ------------------------------------------------------------------------- moments follow an edit


def layered(kind: str) -> TrainedNetwork:
    if kind == "mlp":
        return network()
    cnn = EvolvableCNN((2, 6, 6), [6, 6], [3, 2], [1, 1], [12], 2, seed=0, min_mlp_nodes=2)
    return TrainedNetwork(cnn, lr=1e-2)


def moments(net: TrainedNetwork) -> dict[str, torch.Tensor]:
    return {n: net.optimizer.state[p]["exp_avg"] for n, p in net.module.layers.named_parameters()}


def images(seed: int) -> torch.Tensor:
    return torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


GROWTH = [
    ("mlp", "add_node", {"hidden_layer": 0, "numb_new_nodes": 5}),
    ("mlp", "add_node", {"hidden_layer": 1, "numb_new_nodes": 5}),
    ("mlp", "add_layer", {}),
    ("cnn", "add_cnn_channel", {"hidden_layer": 0, "numb_new_channels": 5}),
    ("cnn", "add_mlp_node", {"hidden_layer": 0, "numb_new_nodes": 5}),
    ("cnn", "add_cnn_layer", {}),
    ("cnn", "add_mlp_layer", {}),
]


@pytest.mark.parametrize(("kind", "method", "choice"), GROWTH)
def test_growth_keeps_the_moments_of_kept_weights_and_new_ones_are_zero(
    kind: str, method: str, choice: dict[str, int]
) -> None:
    net = layered(kind)
    for seed in range(3):
        net.backward(2 * net.forward(inputs(seed) if kind == "mlp" else images(seed)))
        net.step()
    before = {name: value.clone() for name, value in moments(net).items()}
    assert net.evolvable.edit(method, **choice) is not None
    after = moments(net)
    for name, new in after.items():
        expected = torch.zeros(new.shape)
        if name in before:
            assert before[name].abs().sum() > 0
            expected[tuple(slice(n) for n in before[name].shape)] = before[name]
        assert torch.equal(new, expected), name
    steps = {float(net.optimizer.state[p]["step"]) for p in net.module.parameters()}
    assert steps == {3.0}


def test_shrinking_keeps_the_moments_of_what_stays() -> None:
    net = network()
    for seed in range(3):
        train(net, seed)
    before = {name: value.clone() for name, value in moments(net).items()}
    rows = net.module.named_tensors()["linear_0.weight"].clone()
    net.module.remove_node(hidden_layer=0, numb_new_nodes=6)
    kept = net.module.named_tensors()["linear_0.weight"]
    index = [next(i for i, row in enumerate(rows) if torch.equal(row, k)) for k in kept]
    after = moments(net)
    assert torch.equal(after["linear_0.weight"], before["linear_0.weight"][index])
    assert torch.equal(after["linear_1.weight"], before["linear_1.weight"][:, index])
    assert torch.equal(after["output.weight"], before["output.weight"])


def test_the_moments_survive_a_change_of_activation_or_learning_rate() -> None:
    net = network()
    train(net)
    before = {name: value.clone() for name, value in moments(net).items()}
    net.module.change_activation("gelu")
    net.lr = 0.5
    after = moments(net)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert net.lr == net.optimizer.param_groups[0]["lr"] == 0.5
    assert net.target.spec.activation == "gelu"


def test_the_target_follows_growth_and_is_not_reset() -> None:
    net = network()
    for seed in range(3):
        train(net, seed)
        net.soft_update(0.3)
    before = net.infer(inputs(), target=True), net.infer(inputs())
    assert not torch.equal(*before)
    net.module.add_node()
    net.module.add_layer()
    assert net.target.spec == net.module.spec
    for target, old in ((True, before[0]), (False, before[1])):
        assert (net.infer(inputs(), target=target) - old).abs().max() < 1e-6


# ---------------------------------------------------------------------------------- optimiser state


def test_parameters_of_others_in_the_same_optimiser_stay() -> None:
    others = [nn.Parameter(torch.ones(2)) for _ in "ab"]
    held, live = ({"w": nn.Parameter(torch.ones(n))} for n in (3, 4))
    optimizer = torch.optim.Adam([others[0], held["w"], others[1]])
    for p in (*others, held["w"]):
        p.grad = torch.ones_like(p)
    optimizer.step()
    kept, rest = moments_of(optimizer, held), rest_of(optimizer, held)
    assert set(kept["w"]) == {"exp_avg", "exp_avg_sq"}
    adopt(optimizer, held, live, {"w": {"exp_avg": torch.full((4,), 7.0)}}, rest)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
        id(p) for p in (others[0], live["w"], others[1])
    ]
    assert set(optimizer.state) == {*others, live["w"]}
    assert optimizer.state[live["w"]]["exp_avg"].tolist() == [7.0] * 4
    assert optimizer.state[live["w"]]["step"].item() == 1


# ------------------------------------------------------------------------------------------- state


def assert_same(one: Any, other: Any) -> None:
    """Two states are the same bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_a_state_that_does_not_fit_changes_nothing(way: str) -> None:
    net = network()
    train(net)
    good = net.state()
    for broken in (
        {k: v for k, v in good.items() if k != "target"},
        {**good, "moments": {"layers.output.bias": {"exp_avg": torch.zeros(3)}}},
        {**good, "moments": {"layers.nobody": {"exp_avg": torch.zeros(2)}}},
        {**good, "shapes": {"": {**good["shapes"][""], "hidden_size": [5]}}},
        {**good, "shapes": {"": {**good["shapes"][""], "colour": "red"}}},
        {**good, "lr": "fast"},
    ):
        before = net.state()
        with pytest.raises(CheckpointError, match=r"does not fit|another shape"):
            net.load_state(broken)
        assert_same(net.state(), before)
    train(net)


def test_a_state_shares_no_memory_with_the_network(way: str) -> None:
    net = network()
    train(net)
    state = net.state()
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
