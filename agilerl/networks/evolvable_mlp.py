"""The evolvable multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from agilerl.errors import check_int
from agilerl.networks.base import Choice
from agilerl.networks.dense import DenseStack, check_head
from agilerl.seeding import Generator


@dataclass(frozen=True)
class MLPSpec:
    """The shape of an MLP; fields as the arguments of ``EvolvableMLP``."""

    num_inputs: int
    num_outputs: int
    hidden_size: tuple[int, ...]
    activation: str = "relu"
    output_activation: str | None = None
    layer_norm: bool = False
    output_vanish: bool = True
    min_hidden_layers: int = 1
    max_hidden_layers: int = 3
    min_mlp_nodes: int = 8
    max_mlp_nodes: int = 512


class EvolvableMLP(DenseStack):
    """A multi-layer perceptron that can grow, shrink and change its activation.

    Growing leaves the outputs as they are (to the rounding of float32) without layer norm: new
    units are not listened to at first, and a new layer passes its inputs on.  How exactly the
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
        min_hidden_layers: an edit never leaves fewer hidden layers.
        max_hidden_layers: nor more.
        min_mlp_nodes: nor a hidden layer with fewer units.
        max_mlp_nodes: nor with more.  All limits are widened to include ``hidden_size``.
        seed: of the network's own random stream.
    """

    LAYER_EDITS = ("add_layer", "remove_layer")
    NODE_EDITS = ("add_node", "remove_node")

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
        min_hidden_layers: int = 1,
        max_hidden_layers: int = 3,
        min_mlp_nodes: int = 8,
        max_mlp_nodes: int = 512,
        seed: int | None = None,
    ) -> None:
        spec = MLPSpec(
            check_int("num_inputs", num_inputs),
            check_int("num_outputs", num_outputs),
            hidden_size,  # type: ignore[arg-type]  # checked below
            activation,
            output_activation,
            bool(layer_norm),
            bool(output_vanish),
            min_hidden_layers,
            max_hidden_layers,
            min_mlp_nodes,
            max_mlp_nodes,
        )
        super().__init__(replace(spec, **check_head(spec)), device, seed)

    def make_layers(self, spec: MLPSpec) -> dict[str, nn.Module]:
        """Return the dense layers of ``spec``."""
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

    def add_layer(self, rng: Generator | None = None) -> Choice | None:
        """Put a hidden layer that passes its inputs on in front of the output."""
        return self.edit("add_layer", rng)

    def remove_layer(self, rng: Generator | None = None) -> Choice | None:
        """Take out the last hidden layer; the output reads through its weights."""
        return self.edit("remove_layer", rng)

    def add_node(
        self,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
        rng: Generator | None = None,
    ) -> Choice | None:
        """Add units to a hidden layer; what is None is drawn.  Return the choice made."""
        return self.edit("add_node", rng, hidden_layer=hidden_layer, numb_new_nodes=numb_new_nodes)

    def remove_node(
        self,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
        rng: Generator | None = None,
    ) -> Choice | None:
        """Remove the units of a hidden layer that are listened to least."""
        return self.edit(
            "remove_node", rng, hidden_layer=hidden_layer, numb_new_nodes=numb_new_nodes
        )
