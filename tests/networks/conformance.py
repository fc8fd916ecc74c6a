"""What every evolvable network must do, whatever edits were made on it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from agilerl.networks.base import EvolvableNetwork
from agilerl.networks.evolvable_cnn import EvolvableCNN
from agilerl.networks.evolvable_mlp import EvolvableMLP
from agilerl.seeding import generator

#: Edits after which the outputs are what they were.
GROWTH = {
    "add_node",
    "add_layer",
    "add_cnn_channel",
    "add_cnn_layer",
    "add_mlp_node",
    "add_mlp_layer",
}
#: The largest change of an output of size 1 that float32 rounding may make.
EXACT = 1e-6
#: The same for a new layer that passes values on far from zero, where floats are coarse.
SHIFTED = 3e-5


@dataclass(frozen=True)
class NetworkCase:
    """A network that is to be tried, and inputs for it."""

    name: str
    make: Callable[..., EvolvableNetwork]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]

    @property
    def edits(self) -> tuple[str, ...]:
        net = self.make()
        return (*net.LAYER_EDITS, *net.NODE_EDITS)

    def outputs(self, net: EvolvableNetwork) -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = net(*self.inputs(64))
        return out


def on(case: NetworkCase, device: str) -> NetworkCase:
    """Return the case with its networks and inputs on a device."""
    return NetworkCase(
        f"{case.name} on {device}",
        lambda **shape: case.make(device=device, **shape),
        lambda count: tuple(x.to(device) for x in case.inputs(count)),
    )


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mlp(**shape: Any) -> EvolvableMLP:
    return EvolvableMLP(5, 3, **{"hidden_size": [32, 32], "seed": 0, **shape})


def cnn(**shape: Any) -> EvolvableCNN:
    sizes = {"channel_size": [8, 8], "kernel_size": [3, 2], "stride_size": [2, 1]}
    return EvolvableCNN(
        (2, 10, 9), num_actions=3, **{**sizes, "hidden_size": [32], "seed": 0, **shape}
    )


def image(count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 2, 10, 9), generator=rng).to(torch.uint8)


CASES = {
    case.name: case
    for case in (
        NetworkCase("mlp", mlp, lambda n: (normal(0, n, 5),)),
        NetworkCase(
            "mlp with an action",
            lambda **shape: EvolvableMLP(7, 3, **{"hidden_size": [32, 32], "seed": 0, **shape}),
            lambda n: (normal(0, n, 5), normal(1, n, 2)),
        ),
        NetworkCase("cnn", cnn, lambda n: (image(n),)),
        NetworkCase(
            "cnn with an action",
            lambda **shape: cnn(extra_inputs=2, **shape),
            lambda n: (image(n), normal(1, n, 2)),
        ),
    )
}


def weigh(net: EvolvableNetwork, seed: int = 0) -> EvolvableNetwork:
    """Give every parameter a value of its own, as training would, so that no edit hides."""
    rng = generator(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            noise = torch.from_numpy(rng.standard_normal(tuple(parameter.shape)))
            if "act" not in name:
                parameter.add_(0.5 * noise.to(parameter) / max(1, parameter[0].numel()) ** 0.5)
    return net


def check_consistent(net: EvolvableNetwork) -> None:
    """The parameters have the shapes that the spec says, are finite, and live where it says."""
    expected = {
        n: p.shape for n, p in torch.nn.ModuleDict(net.make_layers(net.spec)).named_parameters()
    }
    assert {name: p.shape for name, p in net.layers.named_parameters()} == expected
    assert all(p.requires_grad and torch.isfinite(p).all() for p in net.parameters())
    assert {p.device.type for p in net.parameters()} == {torch.device(net.init_dict["device"]).type}
    names = [name for name, _ in net.named_parameters()]
    assert names[-1] == "layers.output.bias", "the output's bias is the last in parameters()"
    assert names[-2] == "layers.output.weight"


def check_limits(net: EvolvableNetwork) -> None:
    """No edit has left the limits."""
    spec = net.spec
    assert spec.min_hidden_layers <= len(spec.hidden_size) <= spec.max_hidden_layers
    assert all(spec.min_mlp_nodes <= size <= spec.max_mlp_nodes for size in spec.hidden_size)
    if isinstance(net, EvolvableCNN):
        assert spec.min_cnn_layers <= len(spec.channel_size) <= spec.max_cnn_layers
        assert all(spec.min_channels <= size <= spec.max_channels for size in spec.channel_size)
        assert min(min(shape) for shape in spec.images()) >= 1


def check_edits(
    case: NetworkCase, net: EvolvableNetwork, methods: Iterable[str], seed: int
) -> None:
    """Make the edits one after another; growth leaves the outputs, and refusals everything."""
    rng = generator(seed)
    for method in methods:
        before, spec = case.outputs(net), net.spec
        tensors = {name: value.clone() for name, value in net.named_tensors().items()}
        choice = net.edit(method, rng)
        after = case.outputs(net)
        assert torch.isfinite(after).all()
        check_consistent(net)
        check_limits(net)
        if choice is None:
            assert net.spec == spec
            assert all(torch.equal(tensors[name], v) for name, v in net.named_tensors().items())
            assert torch.equal(before, after)
            continue
        assert net.spec != spec
        if method in GROWTH:
            exact = spec.activation == "relu" or not method.endswith("layer")
            bound = EXACT if exact else SHIFTED
            change = float((after - before).abs().max())
            assert change < bound * max(1.0, float(before.abs().max())), method


def check_copies(case: NetworkCase, net: EvolvableNetwork) -> None:
    """Clone, deepcopy, pickle and the spec give independent networks of the same outputs."""
    expected = case.outputs(net)
    rebuilt = type(net)(**net.init_dict)
    assert rebuilt.spec == net.spec
    rebuilt.load_state_dict(net.state_dict())
    restored = case.make(seed=1)
    shape = {key: value for key, value in net.init_dict.items() if key != "device"}
    restored.restore(shape, net.named_tensors())
    twins = {
        "clone": net.clone(),
        "deepcopy": copy.deepcopy(net),
        "pickle": pickle.loads(pickle.dumps(net)),
        "init_dict": rebuilt,
        "restore": restored,
    }
    mine = {p.data_ptr() for p in net.parameters()}
    for name, twin in twins.items():
        assert twin.spec == net.spec, name
        assert torch.equal(case.outputs(twin), expected), name
        assert mine.isdisjoint(p.data_ptr() for p in twin.parameters()), name
        check_consistent(twin)
        with torch.no_grad():
            twin.layers["output"].bias.add_(1.0)
        twin.edit("change_activation")
    assert torch.equal(case.outputs(net), expected)
    assert net.clone().rng.bit_generator.state != net.rng.bit_generator.state
