"""EvolvableGPT: how it is built and copied, and its dropout."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from agilerl.errors import ConfigError
from agilerl.networks.evolvable_gpt import EvolvableGPT
from tests.networks.gpt import padded, small, tokens

# ---------------------------------------------------------------------------------- construction


def test_one_seed_gives_one_network() -> None:
    first, second, other = (
        EvolvableGPT(2, 11, 8, 2, 16, 8, seed=seed).named_tensors() for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["wte.weight"], other["wte.weight"])


def test_initial_weights_are_those_of_gpt2() -> None:
    values = EvolvableGPT(4, 500, 64, 4, 256, 64, seed=0).named_tensors()
    assert values["wte.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert values["block_1.fc.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert values["block_1.mlp_out.weight"].std() == pytest.approx(0.02 / 8**0.5, rel=0.05)
    assert not values["block_0.qkv.bias"].any()
    assert (values["norm.weight"] == 1).all()


def test_limits_include_the_start() -> None:
    spec = EvolvableGPT(2, 11, 8, 2, 16, 8, min_heads=4, seed=0).spec
    assert (spec.min_layers, spec.max_layers) == (2, 16)
    assert (spec.min_heads, spec.min_feedfwd) == (2, 16)
    assert EvolvableGPT(20, 11, 8, 2, 16, 8, seed=0).spec.max_layers == 20


def test_without_biases_there_are_none() -> None:
    net = small(bias=False)
    assert not [name for name, _ in net.named_parameters() if name.endswith("bias")]
    assert net(tokens(1, 4)).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_layer": 0}, "n_layer"),
        ({"n_head": 5}, "n_head"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"activation": "prelu"}, "activation"),
        ({"min_layers": 9, "max_layers": 8}, "min_layers"),
        ({"vocab_size": 2.5}, "vocab_size"),
        ({"max_head": 5}, "Did you mean 'max_heads'"),
        ({"device": "cuda:77"}, "device"),
        (
            {"weights": {"wte.weight": torch.zeros(1)}},
            r"weights: wte.weight: expected \(31, 24\), got \(1,\)",
        ),
    ],
)
def test_a_bad_argument_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        small(**changes)


# ------------------------------------------------------------------------------------ dropout


def test_dropout_keeps_the_mean_and_works_in_training_only() -> None:
    net = small(dropout=0.25)
    dropped = net.drop(torch.ones(400, 500), 0.25)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (dropped == 0).float().mean() == pytest.approx(0.25, abs=0.005)
    ids = tokens(2, 6)
    assert not torch.equal(net(ids), net(ids))
    net.eval()
    assert torch.equal(net(ids), net(ids))


@pytest.mark.parametrize("left", [True, False, None])
def test_the_path_with_dropout_computes_the_same_attention(left: bool | None) -> None:
    net, ids = small(dropout=0.5), tokens(2, 9)
    mask = None if left is None else padded((9, 4), 9, left)
    net.drop.forward = lambda x, p: x  # type: ignore[method-assign]
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    trained = net(ids, mask)[real]
    torch.testing.assert_close(trained, net.eval()(ids, mask)[real], atol=1e-5, rtol=0)


def test_dropout_draws_from_its_own_stream_that_copies_with_it() -> None:
    net, ids = small(dropout=0.3), tokens(2, 6)
    net(ids)
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    expected = net(ids)
    for twin in twins:
        assert torch.equal(twin(ids), expected)
    assert not torch.equal(net.clone()(ids), net(ids))


# ------------------------------------------------------------------------------------ copies


def test_the_head_stays_tied_to_the_embedding() -> None:
    net, ids = small(), tokens(1, 4)
    other = small(seed=5)
    other.load_state_dict(net.state_dict())
    edited = net.clone()
    edited.add_layer()
    edited.add_node()
    edited.remove_head()
    for copied in (net, net.clone(), copy.deepcopy(net), edited, other, net.to("cpu").double()):
        names = [name for name, p in copied.named_parameters() if p.shape[0] == 31]
        assert names == ["layers.wte.weight"]
        before = copied.head(copied.hidden(ids).detach())
        with torch.no_grad():
            copied.layers["wte"].weight.mul_(2)
        hidden = copied.hidden(ids).detach()
        expected = hidden @ copied.layers["wte"].weight.T
        torch.testing.assert_close(copied(ids), expected)
        assert not torch.allclose(copied(ids), before)


def test_copies_are_independent_and_equal() -> None:
    net, ids = small(), tokens(1, 4)
    expected = net(ids).detach()
    copies = [net.clone(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    copies.append(EvolvableGPT(**{**net.init_dict, "seed": 9}))
    copies[-1].load_state_dict(net.state_dict())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    for copied in copies:
        assert torch.equal(copied(ids), expected)


def test_restore_takes_over_shape_and_weights() -> None:
    net, ids = small(), tokens(1, 4)
    other = small(seed=5)
    net.add_layer()
    net.add_head(numb_new_heads=1)
    shape = {key: value for key, value in net.init_dict.items() if key != "device"}
    other.restore(shape, net.named_tensors())
    assert other.spec == net.spec
    assert torch.equal(other(ids), net(ids))
