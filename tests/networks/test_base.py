"""Edits are declared once; specs check themselves; files that are not trusted cost no memory."""

from __future__ import annotations

import inspect
import time
from typing import Any

import pytest
import torch

from agilerl.errors import ConfigError
from agilerl.networks import base
from agilerl.networks.base import Choice, Edit, EditRefused, EvolvableNetwork, edit, parameter_limit
from agilerl.networks.evolvable_cnn import EvolvableCNN
from agilerl.networks.evolvable_gpt import EvolvableGPT
from agilerl.networks.evolvable_mlp import EvolvableMLP
from agilerl.seeding import Generator, generator, lent_streams
from tests.networks.conformance import cnn, mlp
from tests.networks.gpt import small, tokens

MAKERS = {"mlp": mlp, "cnn": cnn, "gpt": small}

# -------------------------------------------------------------------------------------------- edits


def test_the_edits_of_a_class_are_those_that_it_declares_in_order() -> None:
    """Mutations draw from these tuples: another order is another run."""
    assert EvolvableMLP.LAYER_EDITS == ("add_layer", "remove_layer")
    assert EvolvableMLP.NODE_EDITS == ("add_node", "remove_node")
    assert EvolvableCNN.LAYER_EDITS == (
        "add_cnn_layer",
        "remove_cnn_layer",
        "add_mlp_layer",
        "remove_mlp_layer",
    )
    assert EvolvableCNN.NODE_EDITS == (
        "add_cnn_channel",
        "remove_cnn_channel",
        "change_cnn_kernel",
        "add_mlp_node",
        "remove_mlp_node",
    )
    assert EvolvableGPT.LAYER_EDITS == ("add_layer", "remove_layer")
    assert EvolvableGPT.NODE_EDITS == ("add_node", "remove_node", "add_head", "remove_head")


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_an_edit_has_the_signature_and_the_docstring_of_its_plan(make: Any) -> None:
    net: EvolvableNetwork = make()
    for name in (*net.LAYER_EDITS, *net.NODE_EDITS, "change_activation"):
        method = getattr(net, name)
        assert method.__doc__
        assert method.__name__ == name
        arguments = inspect.signature(method).parameters
        assert all(argument.default is None for argument in arguments.values()), name
        assert "rng" in arguments


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_a_plan_changes_nothing_and_the_edit_by_name_or_by_method_is_the_same(make: Any) -> None:
    for name in (*make().LAYER_EDITS, *make().NODE_EDITS, "change_activation"):
        net, by_name, by_method = make(), make(), make()
        before, spec = {k: v.clone() for k, v in net.named_tensors().items()}, net.spec
        try:
            planned = net.plan(name, generator(3))
        except EditRefused:
            continue
        assert net.spec == spec
        assert all(torch.equal(before[key], v) for key, v in net.named_tensors().items())
        assert by_name.edit(name, generator(3)) == planned.choice
        assert getattr(by_method, name)(rng=generator(3)) == planned.choice
        assert by_name.spec == by_method.spec == planned.spec
        pairs = zip(by_name.parameters(), by_method.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


class Doubling(EvolvableMLP):
    """A user's own network, with an edit of its own and one that is another."""

    @edit("node")
    def widen_twofold(self, rng: Generator | None = None) -> Edit:
        """Double the first hidden layer."""
        size = self.spec.hidden_size[0]
        return self.plan_units(rng, 0, size, grow=True)

    @edit("node")
    def add_node(
        self,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
        rng: Generator | None = None,
    ) -> Edit:
        """Refuse."""
        raise EditRefused("never")


def test_a_subclass_adds_and_replaces_edits() -> None:
    net = Doubling(5, 3, [8, 9], seed=0)
    assert net.NODE_EDITS == ("add_node", "remove_node", "widen_twofold")
    assert EvolvableMLP.NODE_EDITS == ("add_node", "remove_node")
    choice: Choice | None = net.edit("widen_twofold")
    assert choice == {"hidden_layer": 0, "numb_new_nodes": 8}
    assert net.spec.hidden_size == (16, 9)
    assert net.add_node(0, 1) is None


# ----------------------------------------------------------------------------------- random streams


def test_the_owners_of_streams_are_the_network_and_a_gpts_dropout() -> None:
    net = mlp()
    assert net.rng_owners == [net]
    gpt = small(dropout=0.3)
    assert gpt.rng_owners == [gpt, gpt.drop]
    assert all(hasattr(owner, "rng") for owner in gpt.rng_owners)


def test_dropout_draws_from_a_lent_stream_and_gets_its_own_back() -> None:
    net, other, ids = small(dropout=0.3), small(dropout=0.3, seed=5), tokens(2, 6)
    other.load_state_dict(net.state_dict())
    own = net.drop.rng.get_state()
    outputs = []
    for one in (net, other, net):
        with lent_streams(one.rng_owners, 7, "episode"):
            outputs.append(one(ids))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(net.drop.rng.get_state(), own)


# ------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("make", "limits", "named"),
    [
        (mlp, {"min_mlp_nodes": 9, "max_mlp_nodes": 8}, "min_mlp_nodes: 9 is above"),
        (mlp, {"min_hidden_layers": 3, "max_hidden_layers": 2}, "min_hidden_layers"),
        (cnn, {"min_channels": 9, "max_channels": 8}, "min_channels: 9 is above"),
        (cnn, {"min_cnn_layers": 3, "max_cnn_layers": 2}, "min_cnn_layers"),
        (cnn, {"max_channel": 8}, "Did you mean 'max_channels'"),
        (mlp, {"max_channels": 8}, "unknown key 'max_channels'"),
        (mlp, {"min_mlp_nodes": 0}, "min_mlp_nodes"),
    ],
)
def test_limits_that_cannot_be_are_named(make: Any, limits: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make(**limits)


FORGED: list[tuple[Any, dict[str, Any], str]] = [
    (mlp, {"min_mlp_nodes": 600}, "min_mlp_nodes: 600 is above"),
    (mlp, {"max_mlp_nodes": 16}, "max_mlp_nodes: .* 32, got 16"),
    (mlp, {"max_hidden_layers": 1}, "max_hidden_layers"),
    (mlp, {"hidden_size": [64] * 100_000}, "max_hidden_layers"),
    (mlp, {"hidden_size": [64] * 100_000, "max_hidden_layers": 100_000}, "linear_0"),
    (mlp, {"hidden_size": [32] * 100_000, "max_hidden_layers": 100_000}, "linear_2"),
    (mlp, {"hidden_size": [20_000] * 3, "max_mlp_nodes": 20_000}, "linear_0"),
    (mlp, {"num_inputs": 10**12}, "linear_0"),
    (mlp, {"hidden_size": [32]}, "has no linear_1.bias"),
    (mlp, {"hidden_size": []}, "hidden_size"),
    (mlp, {"layer_norm": "yes"}, "layer_norm"),
    (mlp, {"colour": "red"}, "expected the fields"),
    (cnn, {"channel_size": [10**6] * 2, "max_channels": 10**6}, "conv_0"),
    (cnn, {"max_channels": 4}, "max_channels"),
    (cnn, {"extra_inputs": 10**12}, "linear_0"),
    (small, {"n_layer": 10**9, "max_layers": 10**9}, "block_3"),
    (small, {"n_layer": 10**9}, "max_layers"),
    (small, {"vocab_size": 10**9}, "wte"),
    (small, {"n_head": 10**6, "max_heads": 10**6}, "qkv"),
    (small, {"head_dim": None}, "head_dim"),
]


@pytest.mark.parametrize(("make", "changes", "named"), FORGED)
def test_a_forged_shape_is_refused_before_memory_is_allocated(
    make: Any, changes: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make()
    shape = {key: value for key, value in net.init_dict.items() if key != "device"}
    before, spec = {k: v.clone() for k, v in net.named_tensors().items()}, net.spec
    monkeypatch.setattr(base, "materialise", lambda *_: pytest.fail("memory was allocated"))
    start = time.process_time()
    with pytest.raises(ConfigError, match=named):
        net.restore({**shape, **changes}, net.named_tensors())
    assert time.process_time() - start < 1
    assert net.spec == spec
    assert all(torch.equal(before[key], v) for key, v in net.named_tensors().items())


def test_values_beyond_the_shape_are_refused() -> None:
    net = mlp()
    shape = {key: value for key, value in net.init_dict.items() if key != "device"}
    values = {**net.named_tensors(), "linear_7.weight": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"has no linear_7\.weight"):
        net.restore(shape, values)


@pytest.mark.parametrize("sizes", [[64] * 100_000, [20_000] * 3], ids=["deep", "wide"])
def test_within_a_parameter_limit_no_larger_network_is_built(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = sum(p.numel() for p in mlp().parameters())
    with parameter_limit(count):
        mlp()
        with pytest.raises(ConfigError, match="more than 1,347 parameters"):
            mlp(hidden_size=[32, 33])
        monkeypatch.setattr(base, "materialise", lambda *_: pytest.fail("memory was allocated"))
        with pytest.raises(ConfigError, match="out of all proportion"):
            mlp(hidden_size=sizes)
    monkeypatch.undo()
    assert mlp(hidden_size=[32, 33]).spec.hidden_size == (32, 33)
