"""Shrinking takes what is least useful, limits hold, kernels change within bounds."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from agilerl.errors import ConfigError
from agilerl.seeding import generator
from tests.networks.conformance import CASES, EXACT, check_limits, cnn, mlp, weigh

# ---------------------------------------------------------------------------------------- shrinking


def test_shrinking_an_mlp_removes_the_least_useful_units() -> None:
    net = mlp(hidden_size=[6, 5], min_mlp_nodes=1)
    outgoing = torch.tensor([5.0, 0.1, 3.0, 0.2, 9.0, 1.0])
    with torch.no_grad():
        net.layers["linear_1"].weight.copy_(torch.ones(5, 6) * outgoing)
        net.layers["linear_0"].bias.copy_(torch.arange(6.0))
    assert net.remove_node(0, 3) == {"hidden_layer": 0, "numb_new_nodes": 3}
    assert net.spec.hidden_size == (3, 5)
    assert net.layers["linear_0"].bias.tolist() == [0.0, 2.0, 4.0]
    assert net.layers["linear_1"].weight[0].tolist() == [5.0, 3.0, 9.0]


def test_useful_units_have_large_outgoing_weights_not_large_activations() -> None:
    net = mlp(hidden_size=[3], min_mlp_nodes=1)
    with torch.no_grad():
        net.layers["linear_0"].weight.copy_(torch.tensor([[100.0], [1.0], [0.01]]).expand(3, 5))
        net.layers["output"].weight.copy_(torch.tensor([0.0, 2.0, 1.0]).expand(3, 3))
    net.remove_node(0, 1)
    assert net.layers["output"].weight[0].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("conv", [0, 1])
@pytest.mark.parametrize("extra", [0, 2])
def test_shrinking_a_cnn_removes_the_least_useful_channels(conv: int, extra: int) -> None:
    net: Any = cnn(channel_size=[4, 4], min_channels=1, extra_inputs=extra)
    outgoing = torch.tensor([0.1, 3.0, 0.2, 1.0])
    with torch.no_grad():
        if conv == 0:
            net.layers["conv_1"].weight.copy_(outgoing[None, :, None, None].expand(4, 4, 2, 2))
        else:
            image = outgoing[:, None].expand(
                4, net.layers["linear_0"].weight[0, extra:].numel() // 4
            )
            net.layers["linear_0"].weight[:, extra:] = image.flatten()
            net.layers["linear_0"].weight[:, :extra] = 77.0
        net.layers[f"conv_{conv}"].bias.copy_(torch.arange(4.0))
    assert net.remove_cnn_channel(hidden_layer=conv, numb_new_channels=2) is not None
    assert net.layers[f"conv_{conv}"].bias.tolist() == [1.0, 3.0]
    reader = net.layers["conv_1" if conv == 0 else "linear_0"].weight
    kept = reader[0].flatten().unique().tolist()
    assert kept == [1.0, 3.0] + ([77.0] if conv and extra else [])


@pytest.mark.parametrize("name", CASES)
def test_removing_units_that_no_layer_reads_changes_nothing(name: str) -> None:
    case = CASES[name]
    net = weigh(case.make())
    before = case.outputs(net)
    grow, shrink = (
        ("add_node", "remove_node")
        if name.startswith("mlp")
        else ("add_cnn_channel", "remove_cnn_channel")
    )
    choice = net.edit(grow, generator(0))
    assert net.edit(shrink, **(choice or {})) == choice
    assert torch.equal(case.outputs(net), before)


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_a_layer_that_only_passes_on_comes_out_without_a_trace(activation: str) -> None:
    for case, kind in (
        (CASES["mlp"], "layer"),
        (CASES["cnn"], "mlp_layer"),
        (CASES["cnn"], "cnn_layer"),
    ):
        net = weigh(case.make(activation=activation))
        before, spec = case.outputs(net), net.spec
        net.edit(f"add_{kind}")
        net.edit(f"remove_{kind}")
        assert net.spec == spec
        torch.testing.assert_close(case.outputs(net), before, rtol=1e-5, atol=1e-6)


def test_removing_takes_one_layer_and_never_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agilerl")
    net = mlp(hidden_size=[8, 9, 10])
    sizes = []
    for _ in range(4):
        net.remove_layer()
        sizes.append(net.spec.hidden_size)
    assert sizes == [(8, 9), (8,), (8,), (8,)]
    assert caplog.text.count("remove_layer left out: 1 hidden layers are the minimum") == 2


def test_the_readmes_network_can_shrink() -> None:
    net = mlp(hidden_size=[32, 32])
    choice = net.remove_node()
    assert choice is not None
    assert sorted(net.spec.hidden_size) in ([16, 32], [24, 32])
    assert mlp(hidden_size=[32, 32]).remove_layer() == {}


# ------------------------------------------------------------------------------------------- limits

AT_LIMITS: list[tuple[Any, dict[str, Any], str, dict[str, Any]]] = [
    (mlp, {"max_hidden_layers": 2}, "add_layer", {}),
    (mlp, {"min_hidden_layers": 2}, "remove_layer", {}),
    (mlp, {"max_mlp_nodes": 32}, "add_node", {}),
    (mlp, {"max_mlp_nodes": 40}, "add_node", {"hidden_layer": 0, "numb_new_nodes": 9}),
    (mlp, {"min_mlp_nodes": 32}, "remove_node", {}),
    (mlp, {"min_mlp_nodes": 1}, "remove_node", {"hidden_layer": 0, "numb_new_nodes": 32}),
    (mlp, {}, "add_node", {"hidden_layer": 2, "numb_new_nodes": 1}),
    (cnn, {"max_cnn_layers": 2}, "add_cnn_layer", {}),
    (cnn, {"min_cnn_layers": 2}, "remove_cnn_layer", {}),
    (cnn, {"max_channels": 8}, "add_cnn_channel", {}),
    (cnn, {"min_channels": 8}, "remove_cnn_channel", {}),
    (cnn, {"max_hidden_layers": 1}, "add_mlp_layer", {}),
    (cnn, {}, "remove_mlp_layer", {}),
    (cnn, {}, "change_cnn_kernel", {"hidden_layer": 0, "kernel_size": 9}),
    (cnn, {}, "change_cnn_kernel", {"hidden_layer": 1, "kernel_size": 5}),
    (cnn, {}, "change_cnn_kernel", {"hidden_layer": 5, "kernel_size": 2}),
]


@pytest.mark.parametrize(("make", "limits", "method", "choice"), AT_LIMITS)
def test_an_edit_that_would_leave_the_limits_is_a_logged_no_op(
    make: Any, limits: Any, method: str, choice: Any, caplog: pytest.LogCaptureFixture
) -> None:
    net = make(**limits)
    before, spec = {k: v.clone() for k, v in net.state_dict().items()}, net.spec
    caplog.set_level(logging.INFO, "agilerl")
    assert net.edit(method, **choice) is None
    assert f"{method} left out: " in caplog.text
    assert net.spec == spec
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_kernel_never_makes_a_convolutions_output_empty() -> None:
    net = cnn(kernel_size=[3, 3], stride_size=[2, 1])
    for seed in range(60):
        net.change_cnn_kernel(generator(seed))
        check_limits(net)
        assert net(image_batch()).shape == (1, 3)


def image_batch() -> torch.Tensor:
    return torch.zeros(1, 2, 10, 9)


def test_limits_are_widened_to_include_the_start() -> None:
    net = mlp(hidden_size=[4, 600, 8, 8])
    assert (net.spec.min_mlp_nodes, net.spec.max_mlp_nodes) == (4, 600)
    assert net.spec.max_hidden_layers == 4
    image = cnn(channel_size=[2, 300], kernel_size=[1, 1], stride_size=[1, 1])
    assert (image.spec.min_channels, image.spec.max_channels) == (2, 300)


@pytest.mark.parametrize("count", [-1, 1.5, "two"])
def test_a_number_of_units_that_is_none_is_an_error(count: Any) -> None:
    with pytest.raises(ConfigError, match="numb_new_nodes"):
        mlp().add_node(0, count)


# ------------------------------------------------------------------------------------ kernel sizes


@pytest.mark.parametrize("conv", [0, 1])
@pytest.mark.parametrize("step", [-1, 1])
@pytest.mark.parametrize("extra", [0, 2])
def test_a_kernel_change_keeps_the_weights_and_the_positions_that_overlap(
    conv: int, step: int, extra: int
) -> None:
    net: Any = weigh(cnn(extra_inputs=extra))
    old = {name: value.clone() for name, value in net.named_tensors().items()}
    before = net.spec.images()[-1]
    kernel = net.spec.kernel_size[conv] + step
    net.change_cnn_kernel(hidden_layer=conv, kernel_size=kernel)
    after, new = net.spec.images()[-1], net.named_tensors()
    changed = {f"conv_{conv}.weight", "linear_0.weight"}
    assert all(torch.equal(old[name], new[name]) for name in old if name not in changed)
    common = min(kernel, kernel - step)
    weight = f"conv_{conv}.weight"
    expected = torch.zeros(new[weight].shape)
    expected[..., :common, :common] = old[weight][..., :common, :common]
    assert torch.equal(new[weight], expected)
    height, width = (min(a, b) for a, b in zip(before[1:], after[1:], strict=True))
    dense, now = (
        v["linear_0.weight"][:, extra:].reshape(len(v["linear_0.weight"]), *shape)
        for v, shape in ((old, before), (new, after))
    )
    expected = torch.zeros(now.shape)
    expected[..., :height, :width] = dense[..., :height, :width]
    assert torch.equal(now, expected)
    assert torch.equal(new["linear_0.weight"][:, :extra], old["linear_0.weight"][:, :extra])


def test_a_larger_kernel_changes_no_more_than_the_positions_that_it_loses() -> None:
    net: Any = weigh(cnn())
    _, height, width = net.spec.images()[-1]
    with torch.no_grad():  # the last row and column of the image count for nothing
        dense = net.layers["linear_0"].weight.view(32, 8, height, width)
        dense[:, :, -1], dense[:, :, :, -1] = 0.0, 0.0
    before = CASES["cnn"].outputs(net)
    assert net.change_cnn_kernel(hidden_layer=1, kernel_size=3) is not None
    assert net.spec.images()[-1][1:] == (height - 1, width - 1)
    assert (CASES["cnn"].outputs(net) - before).abs().max() < EXACT


def test_a_drawn_kernel_changes_by_one() -> None:
    for seed in range(30):
        net = cnn()
        choice = net.change_cnn_kernel(generator(seed))
        assert choice is not None
        assert abs(choice["kernel_size"] - (3, 2)[choice["hidden_layer"]]) == 1
