"""The evolvable convolutional network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from agilerl.errors import check_int
from agilerl.networks import carry
from agilerl.networks.base import Choice, Edit, EditRefused
from agilerl.networks.cnn_spec import CNNSpec, check_convolutions
from agilerl.networks.dense import DenseStack, check_head, draw, most_useful
from agilerl.seeding import Generator

#: Numbers of channels that a mutation adds to or takes from a convolution.
CHANNEL_STEPS = (4, 8, 16)
MAX_KERNEL = 9


class EvolvableCNN(DenseStack):
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

    spec: CNNSpec

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

    def planners(self) -> Mapping[str, Callable[..., Edit]]:
        """Return the edits of the convolutions and, renamed, of the dense stack."""
        dense = super().planners()
        renamed = {
            name: partial(dense[name.replace("_mlp", "")], method=name)
            for name in ("add_mlp_layer", "remove_mlp_layer", "add_mlp_node", "remove_mlp_node")
        }
        return {
            **renamed,
            "change_activation": dense["change_activation"],
            "add_cnn_layer": self._plan_add_cnn_layer,
            "remove_cnn_layer": self._plan_remove_cnn_layer,
            "add_cnn_channel": self._plan_add_cnn_channel,
            "remove_cnn_channel": self._plan_remove_cnn_channel,
            "change_cnn_kernel": self._plan_change_cnn_kernel,
        }

    def _conv_reader(self, i: int) -> tuple[str, int]:
        """Return the name of the layer that reads convolution ``i``, and its inputs per channel."""
        if i + 1 < len(self.spec.channel_size):
            return f"conv_{i + 1}", 1
        _, height, width = self.spec.images()[-1]
        return "linear_0", height * width

    def _with(self, name: str, i: int, size: int) -> CNNSpec:
        sizes = list(getattr(self.spec, name))
        sizes[i] = size
        changed: dict[str, Any] = {name: tuple(sizes)}
        return replace(self.spec, **changed)

    def _plan_add_cnn_layer(self, rng: Generator) -> Edit:
        spec = self.spec
        count, width = len(spec.channel_size), spec.channel_size[-1]
        if count >= spec.max_cnn_layers:
            raise EditRefused(f"{count} convolutions are the maximum")
        identity = partial(
            carry.insert_identity,
            layer=f"conv_{count}",
            follower="linear_0",
            activation=spec.activation,
            width=width,
            dims=2,
            lead=spec.extra_inputs,
        )
        longer = replace(
            spec,
            channel_size=(*spec.channel_size, width),
            kernel_size=(*spec.kernel_size, 1),
            stride_size=(*spec.stride_size, 1),
        )
        return Edit("add_cnn_layer", {}, longer, identity)

    def _plan_remove_cnn_layer(self, rng: Generator) -> Edit:
        spec = self.spec
        last = len(spec.channel_size) - 1
        if last + 1 <= max(1, spec.min_cnn_layers):
            raise EditRefused(f"{last + 1} convolutions are the minimum")
        shorter = replace(
            spec,
            channel_size=spec.channel_size[:-1],
            kernel_size=spec.kernel_size[:-1],
            stride_size=spec.stride_size[:-1],
        )
        return self._reimaged(
            "remove_cnn_layer", {}, shorter, {}, (f"conv_{last}.", f"conv_act_{last}.")
        )

    def _reimaged(
        self,
        method: str,
        choice: Choice,
        spec: CNNSpec,
        weights: dict[str, tuple[int, ...]],
        drop: tuple[str, ...] = (),
    ) -> Edit:
        """Return an edit after which the first dense layer reads an image of another shape."""
        move = partial(
            carry.reshape_inputs,
            weights=weights,
            drop=drop,
            dense="linear_0.weight",
            before=self.spec.images()[-1],
            after=spec.images()[-1],
        )
        return Edit(method, choice, spec, move)

    def _draw_conv(self, rng: Generator, layer: int | None) -> int:
        options = list(range(len(self.spec.channel_size)))
        return draw(rng, options, layer, "hidden_layer", f"there is no convolution {layer}")

    def _plan_add_cnn_channel(
        self, rng: Generator, hidden_layer: int | None = None, numb_new_channels: int | None = None
    ) -> Edit:
        i = self._draw_conv(rng, hidden_layer)
        size, limit = self.spec.channel_size[i], self.spec.max_channels
        options = [n for n in CHANNEL_STEPS if size + n <= limit]
        if numb_new_channels is not None:
            options = list(range(1, limit - size + 1))
        refusal = f"convolution {i} has {size} of at most {limit} channels"
        count = draw(rng, options, numb_new_channels, "numb_new_channels", refusal)
        follower, block = self._conv_reader(i)
        grow = partial(
            carry.add_units,
            fresh=self.fresh_rows(f"conv_{i}", count),
            follower=f"{follower}.weight",
            block=block,
        )
        choice = {"hidden_layer": i, "numb_new_channels": count}
        return Edit("add_cnn_channel", choice, self._with("channel_size", i, size + count), grow)

    def _plan_remove_cnn_channel(
        self, rng: Generator, hidden_layer: int | None = None, numb_new_channels: int | None = None
    ) -> Edit:
        i = self._draw_conv(rng, hidden_layer)
        size, limit = self.spec.channel_size[i], max(1, self.spec.min_channels)
        options = [n for n in CHANNEL_STEPS if size - n >= limit]
        if numb_new_channels is not None:
            options = list(range(1, size - limit + 1))
        refusal = f"convolution {i} has {size} of at least {limit} channels"
        count = draw(rng, options, numb_new_channels, "numb_new_channels", refusal)
        follower, block = self._conv_reader(i)
        weight = self.named_tensors()[f"{follower}.weight"]
        read = weight[:, weight.shape[1] - size * block :].reshape(len(weight), size, -1)
        shrink = partial(
            carry.keep_units,
            rows=(f"conv_{i}.weight", f"conv_{i}.bias"),
            follower=f"{follower}.weight",
            keep=most_useful(read.norm(dim=(0, 2)), size - count),
            block=block,
        )
        choice = {"hidden_layer": i, "numb_new_channels": count}
        smaller = self._with("channel_size", i, size - count)
        return Edit("remove_cnn_channel", choice, smaller, shrink)

    def _plan_change_cnn_kernel(
        self, rng: Generator, kernel_size: int | None = None, hidden_layer: int | None = None
    ) -> Edit:
        i = self._draw_conv(rng, hidden_layer)
        size = self.spec.kernel_size[i]
        near = range(1, MAX_KERNEL + 1) if kernel_size is not None else (size - 1, size + 1)
        options = [
            k
            for k in near
            if 1 <= k <= MAX_KERNEL and k != size and self._with("kernel_size", i, k).fits()
        ]
        refusal = f"convolution {i} can't have a kernel of {kernel_size or 'another size'}"
        kernel = draw(rng, options, kernel_size, "kernel_size", refusal)
        before = self.spec.images()[i][0]
        shape = (self.spec.channel_size[i], before, kernel, kernel)
        choice = {"kernel_size": kernel, "hidden_layer": i}
        spec = self._with("kernel_size", i, kernel)
        return self._reimaged("change_cnn_kernel", choice, spec, {f"conv_{i}.weight": shape})

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
