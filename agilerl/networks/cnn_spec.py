"""The shape of a convolutional network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from agilerl.errors import ConfigError, check_int, check_sizes


@dataclass(frozen=True)
class CNNSpec:
    """The shape of a CNN; fields as the arguments of ``EvolvableCNN``."""

    input_shape: tuple[int, ...]
    channel_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride_size: tuple[int, ...]
    hidden_size: tuple[int, ...]
    num_actions: int
    activation: str = "relu"
    output_activation: str | None = None
    layer_norm: bool = False
    output_vanish: bool = True
    normalize: bool = True
    extra_inputs: int = 0
    min_hidden_layers: int = 1
    max_hidden_layers: int = 3
    min_mlp_nodes: int = 8
    max_mlp_nodes: int = 512
    min_cnn_layers: int = 1
    max_cnn_layers: int = 6
    min_channels: int = 4
    max_channels: int = 256

    def images(self) -> list[tuple[int, int, int]]:
        """Return the [C, H, W] of the input and of what each convolution puts out."""
        channels, height, width = self.input_shape
        shapes = [(channels, height, width)]
        sizes = zip(self.channel_size, self.kernel_size, self.stride_size, strict=True)
        for channels, kernel, stride in sizes:
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            shapes.append((channels, height, width))
        return shapes

    def fits(self) -> bool:
        """Return whether every convolution has something to put out."""
        sizes = zip(self.images(), self.kernel_size, strict=False)
        return all(min(height, width) >= kernel for (_, height, width), kernel in sizes)


def check_convolutions(spec: CNNSpec) -> dict[str, Any]:
    """Return the checked fields of the convolutions, with limits that include their start.

    Raises:
        ConfigError: on shapes, sizes or limits that can't be built.
    """
    shape = check_sizes("input_shape", spec.input_shape)
    if len(shape) != 3:
        raise ConfigError(
            f"input_shape: expected (channels, height, width), got {shape};"
            " use net_config {'arch': 'mlp'} for observations that are no images."
        )
    names = ("channel_size", "kernel_size", "stride_size")
    sizes: dict[str, Any] = {name: check_sizes(name, getattr(spec, name)) for name in names}
    if len({len(values) for values in sizes.values()}) > 1:
        raise ConfigError(f"channel, kernel and stride sizes differ in number: {sizes}.")
    if not replace(spec, input_shape=shape, **sizes).fits():
        raise ConfigError(
            f"input_shape {shape} is too small for kernels {list(sizes['kernel_size'])} with"
            f" strides {list(sizes['stride_size'])}: a convolution would put out nothing."
            " Use smaller kernels or strides, fewer layers, or CHANNELS_LAST for [H, W, C] images."
        )
    count, channels = len(sizes["channel_size"]), sizes["channel_size"]
    return {
        "input_shape": shape,
        **sizes,
        "extra_inputs": check_int("extra_inputs", spec.extra_inputs, minimum=0),
        "min_cnn_layers": min(check_int("min_cnn_layers", spec.min_cnn_layers), count),
        "max_cnn_layers": max(check_int("max_cnn_layers", spec.max_cnn_layers), count),
        "min_channels": min(check_int("min_channels", spec.min_channels), *channels),
        "max_channels": max(check_int("max_channels", spec.max_channels), *channels),
    }
