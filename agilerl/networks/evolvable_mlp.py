"""The evolvable multi-layer perceptron, and the dense layers that a CNN ends in, too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from agilerl.errors import ConfigError, check_choice, check_int, check_sizes
from agilerl.networks import transfer
from agilerl.networks.activations import ACTIVATIONS
from agilerl.networks.base import Edit, EditRefused, EvolvableNetwork, Spec, edit
from agilerl.networks.transfer import Units
from agilerl.seeding import Generator

#: Numbers of units that a mutation adds to or removes from a dense layer.
NODE_STEPS = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class DenseSpec(Spec):
    """The shape of dense hidden layers and an output layer."""

    hidden_size: tuple[int, ...]
    activation: str = "relu"
    output_activation: str | None = None
    layer_norm: bool = False
    output_vanish: bool = True
    min_hidden_layers: int = 1
    max_hidden_layers: int = 3
    min_mlp_nodes: int = 8
    max_mlp_nodes: int = 512

    def checked(self) -> dict[str, Any]:
        """Return checked values by field; raise ``ConfigError`` on one that can't be."""
        hidden = check_sizes("hidden_size", self.hidden_size)
        check_choice("activation", self.activation, ACTIVATIONS)
        if self.output_activation is not None:
            check_choice("output_activation", self.output_activation, ACTIVATIONS)
        # parameters() ends in the output's bias, so no parameter may follow it
        if self.output_activation == "prelu":
            raise ConfigError("output_activation: 'prelu' is for hidden layers; use 'lrelu'.")
        return {
            "hidden_size": hidden,
            "layer_norm": bool(self.layer_norm),
            "output_vanish": bool(self.output_vanish),
            **self.checked_limits(hidden_layers=[len(hidden)], mlp_nodes=hidden),
        }


@dataclass(frozen=True, kw_only=True)
class MLPSpec(DenseSpec):
    """The shape of an MLP; fields as the arguments of ``EvolvableMLP``."""

    num_inputs: int
    num_outputs: int

    def checked(self) -> dict[str, Any]:
        """Return checked values by field; raise ``ConfigError`` on one that can't be."""
        sizes = {
            name: check_int(name, getattr(self, name)) for name in ("num_inputs", "num_outputs")
        }
        return {**super().checked(), **sizes}


def with_item(sizes: tuple[int, ...], i: int, size: int) -> tuple[int, ...]:
    """Return ``sizes`` with ``size`` at position ``i``."""
    return (*sizes[:i], size, *sizes[i + 1 :])


class DenseStack(EvolvableNetwork):
    """Dense hidden layers ``linear_0, linear_1, ...`` and a last layer ``output``.

    Subclasses say what the first dense layer reads, and under which names the edits that are
    planned here are public.
    """

    spec: Any

    def dense_layers(
        self, spec: DenseSpec, num_inputs: int, num_outputs: int
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield the layers that read ``num_inputs`` values, on the meta device."""
        width = num_inputs
        for i, size in enumerate(spec.hidden_size):
            yield f"linear_{i}", nn.Linear(width, size, device="meta")
            if spec.layer_norm:
                yield f"norm_{i}", nn.LayerNorm(size, device="meta")
            yield f"act_{i}", self.make_activation(spec.activation)
            width = size
        yield "output", nn.Linear(width, num_outputs, device="meta")
        if spec.output_activation is not None:
            yield "output_act", self.make_activation(spec.output_activation)

    @staticmethod
    def make_activation(name: str) -> nn.Module:
        """Return the activation of that name, its parameters (if any) on the meta device."""
        return nn.PReLU(device="meta") if name == "prelu" else ACTIVATIONS[name]()

    def initialise(self, name: str, layer: nn.Module, spec: DenseSpec) -> None:
        """Draw uniform weights and biases within 1/sqrt(fan in), torch's default."""
        if isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()
        elif isinstance(layer, nn.PReLU):
            layer.weight.fill_(0.25)
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                drawn = self.rng.uniform(-bound, bound, size=tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(drawn))
            if name == "output" and spec.output_vanish:
                layer.weight.mul_(0.1)

    def new_rows(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Draw rows as ``initialise`` does; a norm's new units have weight 1 and bias 0."""
        layer, _, leaf = name.partition(".")
        if layer.startswith("norm"):
            return torch.full(shape, 1.0 if leaf == "weight" else 0.0)
        bound = 1 / math.sqrt(self.layers.get_parameter(f"{layer}.weight")[0].numel())
        return torch.from_numpy(self.rng.uniform(-bound, bound, size=shape))

    # ---------------------------------------------------------------------------------- their edits

    def plan_add_layer(self) -> Edit:
        """Plan a hidden layer in front of the output that passes its inputs on."""
        spec, sizes = self.spec, self.spec.hidden_size
        if len(sizes) >= spec.max_hidden_layers:
            raise EditRefused(f"{len(sizes)} hidden layers are the maximum")
        identity = partial(
            transfer.insert_identity,
            layer=f"linear_{len(sizes)}",
            reader="output",
            activation=spec.activation,
            width=sizes[-1],
        )
        return Edit({}, replace(spec, hidden_size=(*sizes, sizes[-1])), identity)

    def plan_remove_layer(self) -> Edit:
        """Plan to take out the last hidden layer: the output reads through its weights."""
        spec, last = self.spec, len(self.spec.hidden_size) - 1
        if last + 1 <= spec.min_hidden_layers:
            raise EditRefused(f"{last + 1} hidden layers are the minimum")
        drop = (f"linear_{last}.", f"norm_{last}.", f"act_{last}.")
        fuse = partial(transfer.fuse, layer=f"linear_{last}", reader="output", drop=drop)
        return Edit({}, replace(spec, hidden_size=spec.hidden_size[:-1]), fuse)

    def plan_units(
        self, rng: Generator | None, layer: int | None, count: int | None, grow: bool
    ) -> Edit:
        """Plan to add units to a hidden layer, or to remove the least useful ones."""
        spec, options = self.spec, range(len(self.spec.hidden_size))
        i = self.draw(rng, options, layer, "hidden_layer", f"there is no hidden layer {layer}")
        size = spec.hidden_size[i]
        count = self.draw_count(
            rng,
            count,
            grow,
            field="numb_new_nodes",
            steps=NODE_STEPS,
            size=size,
            limits="mlp_nodes",
            what=f"hidden layer {i} has {{}} of at {{}} {{}} units",
        )
        sizes = with_item(spec.hidden_size, i, size + count if grow else size - count)
        choice = {"hidden_layer": i, "numb_new_nodes": count}
        layers = [f"linear_{i}", f"norm_{i}"] if spec.layer_norm else [f"linear_{i}"]
        units = Units(
            rows=tuple(f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")),
            reader=f"linear_{i + 1}.weight" if i + 1 < len(sizes) else "output.weight",
        )
        return self.resized(choice, replace(spec, hidden_size=sizes), [units], count, grow)


class EvolvableMLP(DenseStack):
    """A multi-layer perceptron that can grow, shrink and change its activation.

    Growing leaves the outputs as they are (to the rounding of float32) without layer norm: the
    outgoing weights of new units are zero, and a new layer is an identity.  How exactly the
    latter is possible depends on the activation, see ``agilerl.networks.activations.PASS_ON``;
    with layer norm a new layer normalises, so outputs change.

    Args:
        num_inputs: width of the input.
        num_outputs: width of the output.
        hidden_size: widths of the hidden layers, at least one.
        activation: of the hidden layers; a name from ``ACTIVATIONS``.
        output_activation: of the output; None is linear.
        layer_norm: normalise each hidden layer before its activation.
        output_vanish: scale the output's initial weights by 0.1.
        device: where the parameters live.
        seed: of the network's own random stream.
        limits: an edit never leaves fewer hidden layers than ``min_hidden_layers`` (1), nor more
            than ``max_hidden_layers`` (3), nor one with fewer units than ``min_mlp_nodes`` (8), nor
            with more than ``max_mlp_nodes`` (512).  All are widened to include ``hidden_size``.

    Raises:
        ConfigError: on an argument out of its range.
    """

    spec: MLPSpec

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        hidden_size: Sequence[int],
        activation: str = "relu",
        output_activation: str | None = None,
        layer_norm: bool = False,
        output_vanish: bool = True,
        device: str | torch.device = "cpu",
        seed: int | None = None,
        **limits: int,
    ) -> None:
        spec = MLPSpec(
            num_inputs=num_inputs,
            num_outputs=num_outputs,
            hidden_size=hidden_size,  # type: ignore[arg-type]  # the spec makes a tuple of it
            activation=activation,
            output_activation=output_activation,
            layer_norm=layer_norm,
            output_vanish=output_vanish,
            **MLPSpec.known_limits(limits),
        )
        super().__init__(spec, device, seed)

    def make_layers(self, spec: MLPSpec) -> Iterator[tuple[str, nn.Module]]:
        """Yield the dense layers of ``spec``."""
        return self.dense_layers(spec, spec.num_inputs, spec.num_outputs)

    def forward(self, x: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``x`` [B, ...] to outputs [B, num_outputs].

        Each row of ``x`` is flattened; ``extra`` [B, E] (an action, say) goes in front of it.
        """
        x = x.flatten(1).to(self.dtype)
        if extra is not None:
            x = torch.cat([extra, x], dim=1)
        for layer in self.layers.values():
            x = layer(x)
        return x

    def summary(self) -> str:
        """Return the hidden sizes and the activation, ``"64-64 relu"`` say."""
        return "-".join(map(str, self.spec.hidden_size)) + f" {self.spec.activation}"

    @edit("layer")
    def add_layer(self, rng: Generator | None = None) -> Edit:
        """Put a hidden layer that passes its inputs on in front of the output."""
        return self.plan_add_layer()

    @edit("layer")
    def remove_layer(self, rng: Generator | None = None) -> Edit:
        """Take out the last hidden layer; the output reads through its weights."""
        return self.plan_remove_layer()

    @edit("node")
    def add_node(
        self,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
        rng: Generator | None = None,
    ) -> Edit:
        """Add units to a hidden layer; what is None is drawn."""
        return self.plan_units(rng, hidden_layer, numb_new_nodes, grow=True)

    @edit("node")
    def remove_node(
        self,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
        rng: Generator | None = None,
    ) -> Edit:
        """Remove the units of a hidden layer whose outgoing weights are smallest."""
        return self.plan_units(rng, hidden_layer, numb_new_nodes, grow=False)
