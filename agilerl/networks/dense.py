"""The stack of dense layers that every MLP is and every CNN ends in, and its edits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from agilerl.errors import ConfigError, check_choice, check_int, check_sizes
from agilerl.networks import carry
from agilerl.networks.activations import ACTIVATIONS, MUTABLE
from agilerl.networks.base import Edit, EditRefused, EvolvableNetwork, Params
from agilerl.seeding import Generator

#: Numbers of units that a mutation adds to or takes from a dense layer.
NODE_STEPS = (8, 16, 32)


def draw(rng: Generator, options: list[int], given: int | None, field: str, refusal: str) -> int:
    """Return ``given``, or a draw from ``options``; refuse where neither is possible."""
    if given is None and options:
        return int(rng.choice(options))
    if given is None or check_int(field, given, minimum=0) not in options:
        raise EditRefused(refusal)
    return given


def check_head(spec: Any) -> dict[str, Any]:
    """Return the checked fields of a spec's dense stack, with limits that include its start.

    Raises:
        ConfigError: on sizes that are no positive integers or names that are not known.
    """
    hidden = check_sizes("hidden_size", spec.hidden_size)
    check_choice("activation", spec.activation, ACTIVATIONS)
    if spec.output_activation is not None:
        check_choice("output_activation", spec.output_activation, ACTIVATIONS)
    low_nodes = check_int("min_mlp_nodes", spec.min_mlp_nodes)
    high_nodes = check_int("max_mlp_nodes", spec.max_mlp_nodes)
    low_layers = check_int("min_hidden_layers", spec.min_hidden_layers)
    high_layers = check_int("max_hidden_layers", spec.max_hidden_layers)
    if low_nodes > high_nodes or low_layers > high_layers:
        raise ConfigError(
            f"limits: a minimum is above its maximum (nodes {low_nodes}..{high_nodes}, hidden"
            f" layers {low_layers}..{high_layers}); swap them."
        )
    return {
        "hidden_size": hidden,
        "min_mlp_nodes": min(low_nodes, *hidden),
        "max_mlp_nodes": max(high_nodes, *hidden),
        "min_hidden_layers": min(low_layers, len(hidden)),
        "max_hidden_layers": max(high_layers, len(hidden)),
    }


class DenseStack(EvolvableNetwork):
    """Dense hidden layers ``linear_0, linear_1, ...`` and a last layer ``output``.

    Subclasses say what the first dense layer reads.
    """

    def dense_layers(self, spec: Any, num_inputs: int, num_outputs: int) -> dict[str, nn.Module]:
        """Return the layers that read ``num_inputs`` values, on the meta device."""
        layers: dict[str, nn.Module] = {}
        width = num_inputs
        for i, size in enumerate(spec.hidden_size):
            layers[f"linear_{i}"] = nn.Linear(width, size, device="meta")
            if spec.layer_norm:
                layers[f"norm_{i}"] = nn.LayerNorm(size, device="meta")
            layers[f"act_{i}"] = self.make_activation(spec.activation)
            width = size
        layers["output"] = nn.Linear(width, num_outputs, device="meta")
        if spec.output_activation is not None:
            layers["output_act"] = self.make_activation(spec.output_activation)
            # parameters() ends in the output's bias, so no parameter may follow it
            if spec.output_activation == "prelu":
                raise ConfigError("output_activation: 'prelu' is for hidden layers; use 'lrelu'.")
        return layers

    @staticmethod
    def make_activation(name: str) -> nn.Module:
        """Return the activation of that name, its parameters (if any) on the meta device."""
        return nn.PReLU(device="meta") if name == "prelu" else ACTIVATIONS[name]()

    def initialise(self, name: str, layer: nn.Module, spec: Any) -> None:
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

    # --------------------------------------------------------------------------------------- edits

    def planners(self) -> Mapping[str, Callable[..., Edit]]:
        """Return the edits of the dense stack, under the names that an MLP gives them."""
        return {
            "add_layer": self._plan_add_layer,
            "remove_layer": self._plan_remove_layer,
            "add_node": self._plan_add_node,
            "remove_node": self._plan_remove_node,
            "change_activation": self._plan_change_activation,
        }

    def _reader(self, i: int) -> str:
        """Return the name of the layer that reads hidden layer ``i``."""
        return f"linear_{i + 1}" if i + 1 < len(self.spec.hidden_size) else "output"

    def _plan_add_layer(self, rng: Generator, method: str = "add_layer") -> Edit:
        sizes = self.spec.hidden_size
        if len(sizes) >= self.spec.max_hidden_layers:
            raise EditRefused(f"{len(sizes)} hidden layers are the maximum")
        identity = partial(
            carry.insert_identity,
            layer=f"linear_{len(sizes)}",
            follower="output",
            activation=self.spec.activation,
            width=sizes[-1],
        )
        return Edit(method, {}, replace(self.spec, hidden_size=(*sizes, sizes[-1])), identity)

    def _plan_remove_layer(self, rng: Generator, method: str = "remove_layer") -> Edit:
        sizes = self.spec.hidden_size
        if len(sizes) <= max(1, self.spec.min_hidden_layers):
            raise EditRefused(f"{len(sizes)} hidden layers are the minimum")
        last = len(sizes) - 1
        return Edit(
            method,
            {},
            replace(self.spec, hidden_size=sizes[:-1]),
            partial(remove_layer, last=last),
        )

    def _draw_layer(self, rng: Generator, hidden_layer: int | None) -> int:
        layers = list(range(len(self.spec.hidden_size)))
        refusal = f"there is no hidden layer {hidden_layer}"
        return draw(rng, layers, hidden_layer, "hidden_layer", refusal)

    def _resized(self, layer: int, size: int) -> Any:
        sizes = list(self.spec.hidden_size)
        sizes[layer] = size
        return replace(self.spec, hidden_size=tuple(sizes))

    def _plan_add_node(
        self,
        rng: Generator,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
        method: str = "add_node",
    ) -> Edit:
        layer = self._draw_layer(rng, hidden_layer)
        size = self.spec.hidden_size[layer]
        room = self.spec.max_mlp_nodes - size
        options = [n for n in NODE_STEPS if n <= room]
        if numb_new_nodes is not None:
            options = list(range(1, room + 1))
        refusal = f"hidden layer {layer} has {size} of at most {self.spec.max_mlp_nodes} units"
        count = draw(rng, options, numb_new_nodes, "numb_new_nodes", refusal)
        fresh = self.fresh_rows(f"linear_{layer}", count)
        if self.spec.layer_norm:
            fresh[f"norm_{layer}.weight"] = torch.ones(count)
            fresh[f"norm_{layer}.bias"] = torch.zeros(count)
        grow = partial(
            carry.add_units, fresh=fresh, follower=f"{self._reader(layer)}.weight", block=1
        )
        choice = {"hidden_layer": layer, "numb_new_nodes": count}
        return Edit(method, choice, self._resized(layer, size + count), grow)

    def fresh_rows(self, layer: str, count: int) -> Params:
        """Draw ``count`` new output units of a dense or convolutional layer."""
        weight = self.named_tensors()[f"{layer}.weight"]
        bound = 1 / math.sqrt(weight[0].numel())
        rows = self.rng.uniform(-bound, bound, size=(count, *weight.shape[1:]))
        bias = self.rng.uniform(-bound, bound, size=count)
        return {f"{layer}.weight": torch.from_numpy(rows), f"{layer}.bias": torch.from_numpy(bias)}

    def _plan_remove_node(
        self,
        rng: Generator,
        hidden_layer: int | None = None,
        numb_new_nodes: int | None = None,
        method: str = "remove_node",
    ) -> Edit:
        layer = self._draw_layer(rng, hidden_layer)
        size = self.spec.hidden_size[layer]
        room = size - max(1, self.spec.min_mlp_nodes)
        options = [n for n in NODE_STEPS if n <= room]
        if numb_new_nodes is not None:
            options = list(range(1, room + 1))
        refusal = f"hidden layer {layer} has {size} of at least {self.spec.min_mlp_nodes} units"
        count = draw(rng, options, numb_new_nodes, "numb_new_nodes", refusal)
        rows = [f"linear_{layer}.weight", f"linear_{layer}.bias"]
        if self.spec.layer_norm:
            rows += [f"norm_{layer}.weight", f"norm_{layer}.bias"]
        follower = f"{self._reader(layer)}.weight"
        use = self.named_tensors()[follower].norm(dim=0)
        shrink = partial(
            carry.keep_units,
            rows=tuple(rows),
            follower=follower,
            keep=most_useful(use, size - count),
            block=1,
        )
        choice = {"hidden_layer": layer, "numb_new_nodes": count}
        return Edit(method, choice, self._resized(layer, size - count), shrink)

    def _plan_change_activation(self, rng: Generator, activation: str | None = None) -> Edit:
        if activation is None:
            activation = str(rng.choice([a for a in MUTABLE if a != self.spec.activation]))
        check_choice("activation", activation, ACTIVATIONS)
        spec = replace(self.spec, activation=activation)
        return Edit("change_activation", {"activation": activation}, spec, carry.carry_all)


def remove_layer(params: Params, moments: bool, *, last: int) -> Params:
    """Fuse hidden layer ``last`` into the output; its norm and activation go with it."""
    out = carry.fuse(params, moments, layer=f"linear_{last}", follower="output")
    gone = (f"norm_{last}.", f"act_{last}.")
    return {name: value for name, value in out.items() if not name.startswith(gone)}


def most_useful(use: torch.Tensor, count: int) -> list[int]:
    """Return, in their order, the indices of the ``count`` largest entries of ``use``."""
    return sorted(use.argsort(descending=True, stable=True)[:count].tolist())
