"""The evolvable convolutional network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from agilerl.errors import ConfigError, check_int, check_sizes
from agilerl.networks import transfer
from agilerl.networks.base import Choice, Edit, EditRefused, edit
from agilerl.networks.evolvable_mlp import DenseSpec, DenseStack, with_item
from agilerl.networks.transfer import Units
from agilerl.seeding import Generator

#: Numbers of channels that a mutation adds to or removes from a convolution.
CHANNEL_STEPS = (4, 8, 16)
MAX_KERNEL = 9
#: The fields that have one entry for each convolution.
CONVOLUTION = ("channel_size", "kernel_size", "stride_size")


@dataclass(frozen=True, kw_only=True)
class CNNSpec(DenseSpec):
    """The shape of a CNN; fields as the arguments of ``EvolvableCNN``."""

    input_shape: tuple[int, ...]
    channel_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride_size: tuple[int, ...]
    num_actions: int
    normalize: bool = True
    extra_inputs: int = 0
    min_cnn_layers: int = 1
    max_cnn_layers: int = 6
    min_channels: int = 4
    max_channels: int = 256

    def checked(self) -> dict[str, Any]:
        """Return checked values by field; raise ``ConfigError`` on one that can't be."""
        shape = check_sizes("input_shape", self.input_shape)
        if len(shape) != 3:
            raise ConfigError(
                f"input_shape: expected (channels, height, width), got {shape};"
                " use net_config {'arch': 'mlp'} for observations that are no images."
            )
        sizes = {name: check_sizes(name, getattr(self, name)) for name in CONVOLUTION}
        channels, kernels, strides = sizes.values()
        if len({len(values) for values in sizes.values()}) > 1:
            raise ConfigError(f"channel, kernel and stride sizes differ in number: {sizes}.")
        if not self.fits(kernels):
            raise ConfigError(
                f"input_shape {shape} is too small for kernels {list(kernels)} with strides"
                f" {list(strides)}: a convolution would put out nothing."
                " Use smaller kernels or strides, fewer layers, or CHANNELS_LAST for [H, W, C]"
                " images."
            )
        return {
            "input_shape": shape,
            **sizes,
            "num_actions": check_int("num_actions", self.num_actions),
            "normalize": bool(self.normalize),
            "extra_inputs": check_int("extra_inputs", self.extra_inputs, minimum=0),
            **super().checked(),
            **self.checked_limits(cnn_layers=[len(channels)], channels=channels),
        }

    def images(self, kernel_size: Sequence[int] | None = None) -> list[tuple[int, int, int]]:
        """Return the [C, H, W] of the input and of what each convolution puts out.

        Args:
            kernel_size: kernels to use in place of the spec's.
        """
        channels, height, width = self.input_shape
        shapes = [(channels, height, width)]
        kernels = self.kernel_size if kernel_size is None else kernel_size
        for channels, kernel, stride in zip(
            self.channel_size, kernels, self.stride_size, strict=True
        ):
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            shapes.append((channels, height, width))
        return shapes

    def fits(self, kernel_size: Sequence[int]) -> bool:
        """Return whether with these kernels every convolution has something to put out."""
        return all(min(image) >= 1 for image in self.images(kernel_size))


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
        seed: of the network's own random stream.
        limits: those of ``EvolvableMLP``, and ``min_cnn_layers`` (1), ``max_cnn_layers`` (6),
            ``min_channels`` (4), ``max_channels`` (256); widened to include the start.

    Raises:
        ConfigError: on an argument out of its range.
    """

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
            input_shape=input_shape,  # type: ignore[arg-type]  # the spec makes tuples of these
            channel_size=channel_size,  # type: ignore[arg-type]
            kernel_size=kernel_size,  # type: ignore[arg-type]
            stride_size=stride_size,  # type: ignore[arg-type]
            hidden_size=hidden_size,  # type: ignore[arg-type]
            num_actions=num_actions,
            activation=activation,
            output_activation=output_activation,
            layer_norm=layer_norm,
            output_vanish=output_vanish,
            normalize=normalize,
            extra_inputs=extra_inputs,
            **CNNSpec.known_limits(limits),
        )
        super().__init__(spec, device, seed)

    def make_layers(self, spec: CNNSpec) -> Iterator[tuple[str, nn.Module]]:
        """Yield the convolutions and the dense layers of ``spec``."""
        images = spec.images()
        sizes = zip(spec.kernel_size, spec.stride_size, itertools.pairwise(images), strict=True)
        for i, (kernel, stride, (before, after)) in enumerate(sizes):
            yield f"conv_{i}", nn.Conv2d(before[0], after[0], kernel, stride, device="meta")
            yield f"conv_act_{i}", self.make_activation(spec.activation)
        yield "flatten", nn.Flatten()
        inputs = spec.extra_inputs + math.prod(images[-1])
        yield from self.dense_layers(spec, inputs, spec.num_actions)

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

    # -------------------------------------------------------------------- edits of the convolutions

    @edit("layer")
    def add_cnn_layer(self, rng: Generator | None = None) -> Edit:
        """Put a 1x1 identity convolution behind the last one."""
        spec = self.spec
        count, width = len(spec.channel_size), spec.channel_size[-1]
        if count >= spec.max_cnn_layers:
            raise EditRefused(f"{count} convolutions are the maximum")
        identity = partial(
            transfer.insert_identity,
            layer=f"conv_{count}",
            reader="linear_0",
            activation=spec.activation,
            width=width,
            dims=2,
            others=spec.extra_inputs,
        )
        longer = replace(
            spec,
            channel_size=(*spec.channel_size, width),
            kernel_size=(*spec.kernel_size, 1),
            stride_size=(*spec.stride_size, 1),
        )
        return Edit({}, longer, identity)

    @edit("layer")
    def remove_cnn_layer(self, rng: Generator | None = None) -> Edit:
        """Take out the last convolution; the dense layer keeps what overlaps."""
        spec, last = self.spec, len(self.spec.channel_size) - 1
        if last + 1 <= spec.min_cnn_layers:
            raise EditRefused(f"{last + 1} convolutions are the minimum")
        shorter: dict[str, Any] = {name: getattr(spec, name)[:-1] for name in CONVOLUTION}
        drop = (f"conv_{last}.", f"conv_act_{last}.")
        return self._reshaped({}, replace(spec, **shorter), {}, drop)

    @edit("layer")
    def add_mlp_layer(self, rng: Generator | None = None) -> Edit:
        """Put a dense hidden layer that passes its inputs on in front of the output."""
        return self.plan_add_layer()

    @edit("layer")
    def remove_mlp_layer(self, rng: Generator | None = None) -> Edit:
        """Take out the last dense hidden layer; the output reads through its weights."""
        return self.plan_remove_layer()

    @edit("node")
    def add_cnn_channel(
        self,
        rng: Generator | None = None,
        *,
        hidden_layer: int | None = None,
        numb_new_channels: int | None = None,
    ) -> Edit:
        """Add channels to a convolution; what is None is drawn."""
        return self._plan_channels(rng, hidden_layer, numb_new_channels, grow=True)

    @edit("node")
    def remove_cnn_channel(
        self,
        rng: Generator | None = None,
        *,
        hidden_layer: int | None = None,
        numb_new_channels: int | None = None,
    ) -> Edit:
        """Remove the channels of a convolution whose outgoing weights are smallest."""
        return self._plan_channels(rng, hidden_layer, numb_new_channels, grow=False)

    @edit("node")
    def change_cnn_kernel(
        self,
        rng: Generator | None = None,
        *,
        kernel_size: int | None = None,
        hidden_layer: int | None = None,
    ) -> Edit:
        """Change the kernel of a convolution, by one where it is drawn."""
        spec, i = self.spec, self._draw_convolution(rng, hidden_layer)
        size = spec.kernel_size[i]
        near = range(1, MAX_KERNEL + 1) if kernel_size is not None else (size - 1, size + 1)
        options = [
            k
            for k in near
            if 1 <= k <= MAX_KERNEL and k != size and spec.fits(with_item(spec.kernel_size, i, k))
        ]
        refusal = f"convolution {i} can't have a kernel of {kernel_size or 'another size'}"
        kernel = self.draw(rng, options, kernel_size, "kernel_size", refusal)
        shape = (spec.channel_size[i], spec.images()[i][0], kernel, kernel)
        choice = {"kernel_size": kernel, "hidden_layer": i}
        changed = replace(spec, kernel_size=with_item(spec.kernel_size, i, kernel))
        return self._reshaped(choice, changed, {f"conv_{i}.weight": shape})

    @edit("node")
    def add_mlp_node(
        self,
        rng: Generator | None = None,
        *,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
    ) -> Edit:
        """Add units to a dense hidden layer; what is None is drawn."""
        return self.plan_units(rng, hidden_layer, numb_new_nodes, grow=True)

    @edit("node")
    def remove_mlp_node(
        self,
        rng: Generator | None = None,
        *,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
    ) -> Edit:
        """Remove the units of a dense hidden layer whose outgoing weights are smallest."""
        return self.plan_units(rng, hidden_layer, numb_new_nodes, grow=False)

    def _draw_convolution(self, rng: Generator | None, layer: int | None) -> int:
        options = range(len(self.spec.channel_size))
        return self.draw(rng, options, layer, "hidden_layer", f"there is no convolution {layer}")

    def _plan_channels(
        self, rng: Generator | None, layer: int | None, count: int | None, grow: bool
    ) -> Edit:
        """Plan to add channels to a convolution, or to remove some."""
        spec, i = self.spec, self._draw_convolution(rng, layer)
        size = spec.channel_size[i]
        count = self.draw_count(
            rng,
            count,
            grow,
            field="numb_new_channels",
            steps=CHANNEL_STEPS,
            size=size,
            limits="channels",
            what=f"convolution {i} has {{}} of at {{}} {{}} channels",
        )
        sizes = with_item(spec.channel_size, i, size + count if grow else size - count)
        choice = {"hidden_layer": i, "numb_new_channels": count}
        last = i + 1 == len(spec.channel_size)
        _, height, width = spec.images()[-1]
        units = Units(
            rows=(f"conv_{i}.weight", f"conv_{i}.bias"),
            reader="linear_0.weight" if last else f"conv_{i + 1}.weight",
            inputs=height * width if last else 1,
        )
        return self.resized(choice, replace(spec, channel_size=sizes), [units], count, grow)

    def _reshaped(
        self,
        choice: Choice,
        spec: CNNSpec,
        weights: dict[str, tuple[int, ...]],
        drop: tuple[str, ...] = (),
    ) -> Edit:
        """Return an edit after which the first dense layer reads an image of another shape."""
        reshape = partial(
            transfer.reshape_inputs,
            weights=weights,
            drop=drop,
            dense="linear_0.weight",
            before=self.spec.images()[-1],
            after=spec.images()[-1],
        )
        return Edit(choice, spec, reshape)
