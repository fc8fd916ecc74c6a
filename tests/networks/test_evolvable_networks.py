"""Every network under sequences of edits: the suite of ``conformance`` on MLPs and CNNs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.networks.activations import ACTIVATIONS, MUTABLE
from agilerl.networks.evolvable_mlp import EvolvableMLP
from agilerl.seeding import generator
from tests.devices import each_device
from tests.networks.conformance import (
    CASES,
    EXACT,
    GROWTH,
    NetworkCase,
    check_consistent,
    check_copies,
    check_edits,
    check_limits,
    cnn,
    mlp,
    on,
    weigh,
)

SEEDS = st.integers(0, 1000)
GROWING = [(case, method) for case in CASES.values() for method in case.edits if method in GROWTH]


def sequences(case: NetworkCase) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from([*case.edits, "change_activation"]), min_size=1, max_size=8)


@each_device
@pytest.mark.parametrize("name", CASES)
@given(data=st.data(), seed=SEEDS, activation=st.sampled_from(MUTABLE))
@settings(max_examples=15, deadline=None)
def test_any_sequence_of_edits_keeps_the_network_whole(
    name: str, device: str, data: st.DataObject, seed: int, activation: str
) -> None:
    case = on(CASES[name], device)
    net = weigh(case.make(activation=activation), seed)
    check_edits(case, net, data.draw(sequences(case)), seed)


@each_device
@pytest.mark.parametrize("name", CASES)
@given(data=st.data(), seed=SEEDS, activation=st.sampled_from(list(ACTIVATIONS)))
@settings(max_examples=6, deadline=None)
def test_copies_after_any_sequence_of_edits_are_the_same_and_independent(
    name: str, device: str, data: st.DataObject, seed: int, activation: str
) -> None:
    case = on(CASES[name], device)
    net = weigh(case.make(activation=activation, layer_norm=bool(seed % 2)), seed)
    for method in data.draw(sequences(case)):
        net.edit(method, generator(seed))
    check_copies(case, net)


@each_device
@pytest.mark.parametrize("name", CASES)
@given(data=st.data(), seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_with_layer_norm_and_tight_limits_edits_stay_within_them(
    name: str, device: str, data: st.DataObject, seed: int
) -> None:
    case = on(CASES[name], device)
    limits: dict[str, int] = {"min_mlp_nodes": 24, "max_mlp_nodes": 40, "max_hidden_layers": 2}
    if name.startswith("cnn"):
        limits |= {"min_channels": 4, "max_channels": 12, "max_cnn_layers": 3}
    net = case.make(layer_norm=True, **limits)
    for method in data.draw(sequences(case)):
        net.edit(method, generator(seed))
        check_consistent(net)
        check_limits(net)
        assert torch.isfinite(case.outputs(net)).all()


@pytest.mark.parametrize(("case", "method"), GROWING, ids=lambda v: getattr(v, "name", v))
@pytest.mark.parametrize("activation", ["relu", "linear", "elu"])
def test_growing_is_function_preserving(case: NetworkCase, method: str, activation: str) -> None:
    for seed in range(5):
        net = weigh(case.make(activation=activation), seed)
        before = case.outputs(net)
        assert net.edit(method, generator(seed)) is not None
        change = (case.outputs(net) - before).abs().max()
        assert change < EXACT * max(1.0, float(before.abs().max()))


#: How far a new layer bends the outputs, relative to their size, where it can't be exact.
BENT = {"gelu": 1e-5, "softplus": 1e-5, "lrelu": 1e-5, "prelu": 1e-5}
BENT |= {"tanh": 0.02, "sigmoid": 0.05, "softsign": 0.1}


@pytest.mark.parametrize(("case", "method"), GROWING, ids=lambda v: getattr(v, "name", v))
@pytest.mark.parametrize("activation", BENT)
def test_where_an_activation_makes_exactness_impossible_the_change_is_bounded(
    case: NetworkCase, method: str, activation: str
) -> None:
    bound = BENT[activation] if method.endswith("layer") else EXACT
    for seed in range(3):
        net = weigh(case.make(activation=activation), seed)
        before = case.outputs(net)
        assert net.edit(method, generator(seed)) is not None
        change = (case.outputs(net) - before).norm() / before.norm()
        assert change < bound


#: The same after five new layers on top of each other: they hardly add up.
STACKED = {"relu": 0.0, "linear": 0.0, "elu": 5e-6, "lrelu": 5e-6, "prelu": 5e-6}
STACKED |= {"gelu": 1e-5, "softplus": 3e-5, "tanh": 0.005, "sigmoid": 0.005, "softsign": 0.01}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_stack_of_five_new_layers_stays_within_its_bound(
    case: NetworkCase, activation: str
) -> None:
    """The numbers stand in the comment of ``activations.PASS_ON``."""
    for seed in range(3):
        net = weigh(case.make(activation=activation, max_hidden_layers=9), seed)
        before = case.outputs(net)
        for _ in range(5):
            net.edit("add_layer" if isinstance(net, EvolvableMLP) else "add_mlp_layer")
        change = (case.outputs(net) - before).norm() / before.norm()
        assert change <= STACKED[activation]


@pytest.mark.parametrize("method", ["add_node", "add_mlp_node", "add_cnn_channel"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_new_units_are_alive_they_learn(method: str, layer_norm: bool) -> None:
    case = CASES["mlp" if method == "add_node" else "cnn"]
    net = case.make(layer_norm=layer_norm)
    choice = net.edit(method, generator(0))
    assert choice is not None
    net(*case.inputs(16)).square().sum().backward()
    first = "conv_0" if method == "add_cnn_channel" else "linear_0"
    rows = getattr(net.layers[first], "weight")  # noqa: B009 - a module's attribute is no Tensor
    assert rows.detach().flatten(1).norm(dim=1).min() > 0


# ------------------------------------------------------------------------------------------- others


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_apply_is_that_of_torch_modules(case: NetworkCase) -> None:
    network, seen = case.make(), []
    network.apply(seen.append)
    assert set(seen) == set(network.modules())
    assert network.pending_edits is None


def test_output_vanish_scales_the_last_layers_initial_weights_by_a_tenth() -> None:
    for make in (mlp, cnn):
        small, full = make(output_vanish=True), make(output_vanish=False)
        for name, value in full.named_tensors().items():
            factor = 0.1 if name == "output.weight" else 1.0
            torch.testing.assert_close(small.named_tensors()[name], value * factor)


def test_images_are_divided_by_255_once_and_on_request_only() -> None:
    net, raw = cnn(), cnn(normalize=False)
    pixels = CASES["cnn"].inputs(4)[0]
    torch.testing.assert_close(net(pixels), net(pixels.float() / 255))
    torch.testing.assert_close(raw(pixels), net(pixels.float()))
    assert not torch.allclose(net(pixels), raw(pixels))


@pytest.mark.parametrize("make", [mlp, cnn])
def test_the_same_seed_gives_the_same_weights_and_the_same_edits(make: Any) -> None:
    one, two, other = make(seed=3), make(seed=3), make(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    for method in (*one.LAYER_EDITS, *one.NODE_EDITS):
        assert one.edit(method) == two.edit(method)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_initial_weights_are_uniform_within_one_over_the_root_of_the_fan_in() -> None:
    weight = mlp(hidden_size=[400, 8]).named_tensors()["linear_0.weight"]
    bound = 5**-0.5
    assert weight.abs().max() <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert abs(float(weight.mean())) < 0.02


def test_an_edit_keeps_the_dtype_and_the_mode() -> None:
    net = mlp().double().eval()
    net.add_node()
    net.add_layer()
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    assert not any(module.training for module in net.modules())
    assert net(torch.zeros(1, 5)).dtype == torch.float64


def test_a_mutation_draws_only_from_relu_elu_and_gelu() -> None:
    for start, others in (("tanh", {"relu", "elu", "gelu"}), ("relu", {"elu", "gelu"})):
        net = mlp(activation=start)
        plans = [net.plan("change_activation", generator(seed)) for seed in range(40)]
        assert {plan.spec.activation for plan in plans} == others
