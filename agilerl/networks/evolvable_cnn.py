"""The evolvable convolutional network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from agilerl.errors import check_int
from agilerl.networks.base import Choice
from agilerl.networks.cnn_spec import CNNSpec, check_convolutions
from agilerl.networks.convolution_stack import ConvolutionStack
from agilerl.networks.dense import check_head
from agilerl.seeding import Generator


class EvolvableCNN(ConvolutionStack):
    """Convolutions without padding, then dense layers, that can grow, shrink and change.

    Adding channels, dense units or layers leaves the outputs as they are (a new convolution is a
    1x1 identity; see ``EvolvableMLP`` for how exact that is under each activation).  A new kernel
    size keeps the weights and the image positions that overlap, so outputs change.

    Args:
        input_shape: (channels, height, width).
        channel_size: output channels of each convolution.
        kernel_size: their square kernels.
        stride_size: their strides.
        hidden_size: widths of the dense hidden layers, at least one.
        num_actions: width of the output.
        activation: of every hidden layer.
        output_activation: of the output; None is linear.
        layer_norm: normalise each dense hidden layer before its activation.
        output_vanish: scale the output's initial weights by 0.1.
        normalize: divide uint8 images by 255.
        extra_inputs: width of a vector that joins after the convolutions (a critic's action).
        device: where the parameters live.
        limits: min_/max_ ``hidden_layers``, ``mlp_nodes``, ``cnn_layers``, ``channels``; widened
            to include the start.
        seed: of the network's own random stream.
    """

    LAYER_EDITS = ("add_cnn_layer", "remove_cnn_layer", "add_mlp_layer", "remove_mlp_layer")
    NODE_EDITS = (
        "add_cnn_channel",
        "remove_cnn_channel",
        "change_cnn_kernel",
        "add_mlp_node",
        "remove_mlp_node",
    )

    def __init__(
        self,
        input_shape: Sequence[int],
        channel_size: Sequence[int],
        kernel_size: Sequence[int],
        stride_size: Sequence[int],
        hidden_size: Sequence[int],
        num_actions: int,
        activation: str = "relu",
        output_activation: str | None = None,
        layer_norm: bool = False,
        output_vanish: bool = True,
        normalize: bool = True,
        extra_inputs: int = 0,
        device: str | torch.device = "cpu",
        seed: int | None = None,
        **limits: int,
    ) -> None:
        spec = CNNSpec(
            input_shape,  # type: ignore[arg-type]  # these five are checked below
            channel_size,  # type: ignore[arg-type]
            kernel_size,  # type: ignore[arg-type]
            stride_size,  # type: ignore[arg-type]
            hidden_size,  # type: ignore[arg-type]
            check_int("num_actions", num_actions),
            activation,
            output_activation,
            bool(layer_norm),
            bool(output_vanish),
            bool(normalize),
            extra_inputs,
            **limits,
        )
        spec = replace(spec, **check_convolutions(spec), **check_head(spec))
        super().__init__(spec, device, seed)

    def make_layers(self, spec: CNNSpec) -> dict[str, nn.Module]:
        """Return the convolutions and the dense layers of ``spec``."""
        layers: dict[str, nn.Module] = {}
        images = spec.images()
        for i, (before, after) in enumerate(itertools.pairwise(images)):
            layers[f"conv_{i}"] = nn.Conv2d(
                before[0], after[0], spec.kernel_size[i], spec.stride_size[i], device="meta"
            )
            layers[f"conv_act_{i}"] = self.make_activation(spec.activation)
        layers["flatten"] = nn.Flatten()
        inputs = spec.extra_inputs + torch.Size(images[-1]).numel()
        return {**layers, **self.dense_layers(spec, inputs, spec.num_actions)}

    def forward(self, x: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        """Map images [B, C, H, W] (and ``extra`` [B, E]) to outputs [B, num_actions]."""
        dtype = self.dtype
        scale = self.spec.normalize and x.dtype == torch.uint8
        x = x.to(dtype)
        if scale:
            x = x / 255
        for name, layer in self.layers.items():
            x = layer(x)
            if extra is not None and name == "flatten":
                x = torch.cat([extra, x], dim=1)
        return x

    def summary(self) -> str:
        """Return channels, kernels, hidden sizes and activation, ``"c16k3-c32k3|128 relu"`` say."""
        spec = self.spec
        convolutions = zip(spec.channel_size, spec.kernel_size, strict=True)
        images = "-".join(f"c{channels}k{kernel}" for channels, kernel in convolutions)
        return f"{images}|{'-'.join(map(str, spec.hidden_size))} {spec.activation}"

    # --------------------------------------------------------------------------------------- edits

    def add_cnn_layer(self, rng: Generator | None = None) -> Choice | None:
        """Put a 1x1 identity convolution behind the last one."""
        return self.edit("add_cnn_layer", rng)

    def remove_cnn_layer(self, rng: Generator | None = None) -> Choice | None:
        """Take out the last convolution; the dense layer keeps what overlaps."""
        return self.edit("remove_cnn_layer", rng)

    def add_cnn_channel(self, rng: Generator | None = None, **choice: int) -> Choice | None:
        """Add channels (``hidden_layer``, ``numb_new_channels``; drawn where not given)."""
        return self.edit("add_cnn_channel", rng, **choice)

    def remove_cnn_channel(self, rng: Generator | None = None, **choice: int) -> Choice | None:
        """Remove the channels of a convolution that are listened to least."""
        return self.edit("remove_cnn_channel", rng, **choice)

    def change_cnn_kernel(self, rng: Generator | None = None, **choice: int) -> Choice | None:
        """Change a kernel (``kernel_size``, ``hidden_layer``), by one where it is drawn."""
        return self.edit("change_cnn_kernel", rng, **choice)

    def add_mlp_layer(self, rng: Generator | None = None) -> Choice | None:
        """Put a dense hidden layer that passes its inputs on in front of the output."""
        return self.edit("add_mlp_layer", rng)

    def remove_mlp_layer(self, rng: Generator | None = None) -> Choice | None:
        """Take out the last dense hidden layer; the output reads through its weights."""
        return self.edit("remove_mlp_layer", rng)

    def add_mlp_node(self, rng: Generator | None = None, **choice: int) -> Choice | None:
        """Add dense units (``hidden_layer``, ``numb_new_nodes``; drawn where not given)."""
        return self.edit("add_mlp_node", rng, **choice)

    def remove_mlp_node(self, rng: Generator | None = None, **choice: int) -> Choice | None:
        """Remove the dense units that are listened to least."""
        return self.edit("remove_mlp_node", rng, **choice)
