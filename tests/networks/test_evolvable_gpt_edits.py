"""EvolvableGPT: growing changes nothing, shrinking takes the least useful, Adam follows."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks.evolvable_gpt import EvolvableGPT
from agilerl.seeding import generator
from tests.devices import each_device

GROWTH = ("add_layer", "add_node", "add_head")
EDITS = (*GROWTH, "remove_layer", "remove_node", "remove_head", "change_activation")


def small(**changes: Any) -> EvolvableGPT:
    """Return a network whose biases and norms are not what they are at the start."""
    shape = {
        "n_layer": 3,
        "vocab_size": 19,
        "n_embd": 16,
        "n_head": 4,
        "dim_feedfwd": 100,
        "block_size": 12,
        "min_layers": 1,
        "max_layers": 6,
        "seed": 0,
    }
    net = EvolvableGPT(**{**shape, **changes})
    stream = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.empty(parameter.shape).normal_(0, 0.1, generator=stream)
            parameter.add_(noise.to(parameter))
    return net


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(19, shape, generator=torch.Generator().manual_seed(1))


def learn(trained: TrainedNetwork, steps: int = 1) -> float:
    """Make Adam steps on a fixed next-token problem; return the last loss."""
    ids = tokens(4, 8)
    loss = torch.tensor(0.0)
    for _ in range(steps):
        logits = trained.module(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        trained.descend(loss)
    return float(loss.detach())


def moments(trained: TrainedNetwork) -> dict[str, torch.Tensor]:
    """Return Adam's first moments by the parameter's name relative to ``layers``."""
    named = trained.module.named_parameters()
    state = trained.optimizer.state
    return {name.removeprefix("layers."): state[p]["exp_avg"].clone() for name, p in named}


@each_device
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("method", GROWTH)
def test_growth_leaves_the_logits_as_they_are(method: str, bias: bool, device: str) -> None:
    net, ids = small(bias=bias, device=device), tokens(3, 10).to(device)
    before = net(ids).detach()
    for _ in range(3):
        assert getattr(net, method)() is not None
    assert (net(ids) - before).abs().max() <= 1e-6
    assert net.spec != small(bias=bias).spec
    assert {p.device.type for p in net.parameters()} == {device}


@pytest.mark.parametrize("method", GROWTH)
def test_what_has_grown_learns(method: str) -> None:
    trained = TrainedNetwork(small(), lr=1e-2, target_of=None)
    old = {name: tuple(p.shape) for name, p in trained.module.named_parameters()}
    getattr(trained.module, method)()
    start = {name: p.detach().clone() for name, p in trained.module.named_parameters()}
    learn(trained, 3)
    grown = [
        name for name, p in trained.module.named_parameters() if tuple(p.shape) != old.get(name)
    ]
    assert grown
    for name in grown:
        moved = trained.module.get_parameter(name) != start[name]
        assert moved.float().mean() > 0.9, name


def test_a_removed_block_is_the_one_that_writes_least() -> None:
    net = small()
    with torch.no_grad():
        for name in ("attn_out", "mlp_out"):
            net.layers["block_1"].get_submodule(name).weight.mul_(0.01)
    kept = {name: value.clone() for name, value in net.named_tensors().items()}
    assert net.remove_layer() == {"block": 1}
    after = net.named_tensors()
    assert torch.equal(after["block_0.fc.weight"], kept["block_0.fc.weight"])
    assert torch.equal(after["block_1.fc.weight"], kept["block_2.fc.weight"])
    assert "block_2.fc.weight" not in after
    assert net.remove_layer(block=0) == {"block": 0}
    assert torch.equal(net.named_tensors()["block_0.fc.weight"], kept["block_2.fc.weight"])


def test_a_new_block_that_has_learnt_nothing_is_the_first_to_go() -> None:
    net, ids = small(), tokens(2, 9)
    before = net(ids).detach()
    net.add_layer()
    net.add_layer()
    assert net.remove_layer() == {"block": 4}  # the last of two that write nothing
    assert net.remove_layer() == {"block": 3}
    assert torch.equal(net(ids), before)


def test_removed_units_are_those_with_outgoing_weights_of_zero() -> None:
    net, ids = small(), tokens(2, 9)
    quiet = {0: [3, 7, 50], 1: [0, 1, 99], 2: [10, 20, 30]}
    with torch.no_grad():
        for block, units in quiet.items():
            net.layers[f"block_{block}"].mlp_out.weight[:, units] = 0
    before = net(ids).detach()
    assert net.remove_node(numb_new_nodes=3) == {"numb_new_nodes": 3}
    assert net.spec.dim_feedfwd == 97
    torch.testing.assert_close(net(ids).detach(), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_removed_heads_are_those_with_outgoing_weights_of_zero(bias: bool) -> None:
    net, ids = small(bias=bias), tokens(2, 9)
    with torch.no_grad():
        for block, head in enumerate((2, 0, 3)):
            net.layers[f"block_{block}"].attn_out.weight[:, 4 * head : 4 * head + 4] = 0
    before = net(ids).detach()
    assert net.remove_head(numb_new_heads=1) == {"numb_new_heads": 1}
    assert (net.spec.n_head, net.spec.head_dim) == (3, 4)
    torch.testing.assert_close(net(ids).detach(), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        ("add_layer", {"max_layers": 3}),
        ("remove_layer", {"min_layers": 3}),
        ("add_node", {"max_feedfwd": 110}),
        ("remove_node", {"min_feedfwd": 90}),
        ("add_head", {"max_heads": 4}),
        ("remove_head", {"min_heads": 4}),
    ],
)
def test_an_edit_beyond_a_limit_is_left_out(method: str, limits: dict[str, int]) -> None:
    net = small(**limits)
    spec = net.spec
    assert getattr(net, method)() is None
    assert net.spec == spec


@pytest.mark.parametrize("method", EDITS)
def test_an_edit_pickles_and_makes_the_same_change_elsewhere(method: str) -> None:
    net, other = small(), small()
    edit = net.plan(method, generator(3))
    net.apply_edit(edit)
    other.apply_edit(pickle.loads(pickle.dumps(edit)))
    assert net.spec == other.spec
    ours, theirs = net.named_tensors(), other.named_tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", EDITS)
def test_a_choice_can_be_made_again_on_another_network(method: str) -> None:
    net, other = small(), small(seed=5)
    choice = net.edit(method, generator(3))
    assert choice is not None
    assert other.edit(method, generator(4), **choice) == choice
    assert net.spec == other.spec


@pytest.mark.parametrize("method", EDITS)
def test_adam_and_target_follow_every_edit(method: str) -> None:
    trained = TrainedNetwork(small(), lr=1e-3)
    learn(trained, 3)
    before = moments(trained)
    net = trained.module
    assert isinstance(net, EvolvableGPT)
    edit = net.plan(method, generator(3))
    net.apply_edit(edit)
    assert [id(p) for p in trained.optimizer.param_groups[0]["params"]] == [
        id(p) for p in net.parameters()
    ]
    after, expected = moments(trained), edit.transfer(before, True)
    assert after.keys() == expected.keys()
    assert all(torch.equal(after[name], expected[name]) for name in after)
    assert trained.target.spec == net.spec
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    first = learn(trained)
    learn(trained, 20)
    assert learn(trained) < first
    assert all(not torch.equal(p, start[name]) for name, p in net.named_parameters())
    steps = {float(entry["step"]) for entry in trained.optimizer.state.values()}
    assert steps == {25.0}
    trained.soft_update(1.0)
    ids = tokens(2, 6)
    assert torch.equal(trained.infer(ids), trained.infer(ids, target=True))


@pytest.mark.parametrize("method", GROWTH)
def test_moments_of_kept_weights_stay_and_new_ones_are_zero(method: str) -> None:
    trained = TrainedNetwork(small(), lr=1e-3, target_of=None)
    learn(trained, 2)
    before = moments(trained)
    getattr(trained.module, method)()
    after = moments(trained)
    for name, value in after.items():
        kept = before[name].abs().sum() if name in before else torch.tensor(0.0)
        torch.testing.assert_close(value.abs().sum(), kept, msg=name)
    shape = trained.evolvable.spec
    if method == "add_head":
        for part in range(3):
            rows = after["block_1.qkv.weight"].view(3, shape.n_head, 4, 16)[part, :4]
            old = before["block_1.qkv.weight"].view(3, 4, 4, 16)[part]
            assert torch.equal(rows, old)


def test_a_checkpoint_of_an_edited_network_continues_the_same() -> None:
    trained = TrainedNetwork(small(), lr=1e-3)
    learn(trained, 2)
    trained.module.add_head()
    trained.module.remove_layer()
    learn(trained, 2)
    other = TrainedNetwork(small(seed=8), lr=1e-2)
    state = trained.state_dict()
    other.take_shapes_of(state)
    other.prepare_load(state)()
    assert learn(other, 3) == learn(trained, 3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(EDITS), min_size=1, max_size=8), st.integers(0, 2**31))
def test_any_sequence_of_edits_gives_a_network_that_reads_and_decodes(
    methods: list[str], seed: int
) -> None:
    net, ids, rng = small(), tokens(2, 7), generator(seed)
    for method in methods:
        before = net(ids).detach()
        choice = net.edit(method, rng)
        if method in GROWTH and choice is not None:
            assert (net(ids) - before).abs().max() <= 1e-6
    spec = net.spec
    assert spec.min_layers <= spec.n_layer <= spec.max_layers
    assert {name: p.shape for name, p in net.layers.named_parameters()} == {
        name: p.shape for name, p in EvolvableGPT(**net.init_dict).layers.named_parameters()
    }
    written = net.generate(ids, 3, temperature=0)
    logits = net(written)
    assert torch.equal(logits[:, 6:9].argmax(-1), written[:, 7:])
