"""How a stack of convolutions may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from agilerl.networks import carry
from agilerl.networks.base import Choice, Edit, EditRefused
from agilerl.networks.cnn_spec import CNNSpec
from agilerl.networks.dense import DenseStack, draw, most_useful
from agilerl.seeding import Generator

#: Numbers of channels that a mutation adds to or takes from a convolution.
CHANNEL_STEPS = (4, 8, 16)
MAX_KERNEL = 9


class ConvolutionStack(DenseStack):
    """Convolutions in front of a dense stack, and the edits of both."""

    spec: CNNSpec

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
