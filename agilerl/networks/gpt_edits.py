"""How a GPT may change: blocks, attention heads and the width of the feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from agilerl.errors import check_choice
from agilerl.networks import carry, gpt_carry
from agilerl.networks.activations import MUTABLE
from agilerl.networks.base import (
    Carry,
    Choice,
    Edit,
    EditRefused,
    EvolvableNetwork,
    materialise,
)
from agilerl.networks.dense import draw, most_useful
from agilerl.networks.gpt_blocks import Block, gpt_layers
from agilerl.networks.gpt_spec import GPT_ACTIVATIONS, GPTSpec
from agilerl.seeding import Generator

#: Numbers of feed-forward units, and of heads, that a mutation adds or removes in every block.
FEEDFWD_STEPS = (32, 64, 128)
HEAD_STEPS = (1, 2)
#: Standard deviation of GPT-2's initial weights.
STD = 0.02


# -------------------------------------------------------------------------------- initial weights


def initialise(rng: Generator, layer: nn.Module, spec: GPTSpec) -> None:
    """Draw GPT-2's initial parameters of a layer, in place.

    Weights are Normal(0, 0.02), those that write to the residual stream are divided by
    ``sqrt(2 n_layer)``; biases are 0 and norms are 1.
    """
    if isinstance(layer, nn.LayerNorm):
        layer.reset_parameters()
    elif isinstance(layer, nn.Embedding):
        normal(rng, layer.weight, STD)
    elif isinstance(layer, Block):
        for name, part in layer.named_children():
            if isinstance(part, nn.Linear):
                scale = (2 * spec.n_layer) ** -0.5 if name.endswith("_out") else 1.0
                normal(rng, part.weight, STD * scale)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            else:
                initialise(rng, part, spec)


@torch.no_grad()
def normal(rng: Generator, out: torch.Tensor, std: float) -> torch.Tensor:
    """Fill ``out`` with Normal(0, std) and return it."""
    drawn = rng.standard_normal(tuple(out.shape), dtype="float32")
    return out.copy_(torch.from_numpy(drawn)).mul_(std)


# ------------------------------------------------------------------------------------------ plans


def plan_add_layer(net: EvolvableNetwork, rng: Generator) -> Edit:
    """Plan a block behind the last one that adds nothing to the residual stream yet."""
    spec: GPTSpec = net.spec
    if spec.n_layer >= spec.max_layers:
        raise EditRefused(f"{spec.n_layer} blocks are the maximum")
    grown = replace(spec, n_layer=spec.n_layer + 1)
    block = Block(grown)
    materialise(block, torch.device("cpu"), torch.float32)
    initialise(net.rng, block, grown)
    for silent in (block.attn_out, block.mlp_out):
        nn.init.zeros_(silent.weight)
    fresh = {f"block_{spec.n_layer}.{name}": p.detach() for name, p in block.named_parameters()}
    return Edit("add_layer", {}, grown, partial(gpt_carry.add_block, fresh=fresh))


def plan_remove_layer(net: EvolvableNetwork, rng: Generator, block: int | None = None) -> Edit:
    """Plan to take out a block: the one that writes least to the residual stream.

    Without data at hand that is the one whose two output weights have the smallest norm (the
    last of several).
    """
    spec: GPTSpec = net.spec
    if spec.n_layer <= max(1, spec.min_layers):
        raise EditRefused(f"{spec.n_layer} blocks are the minimum")
    if block is None:
        values = net.named_tensors()
        outputs = ("attn_out.weight", "mlp_out.weight")
        norms = [
            sum(float(values[f"block_{i}.{name}"].square().sum()) for name in outputs)
            for i in range(spec.n_layer)
        ]
        block = min(range(spec.n_layer), key=lambda i: (norms[i], -i))
    block = draw(rng, list(range(spec.n_layer)), block, "block", f"there is no block {block}")
    drop = partial(gpt_carry.remove_block, block=block, n_layer=spec.n_layer)
    return Edit("remove_layer", {"block": block}, replace(spec, n_layer=spec.n_layer - 1), drop)


def _count(
    rng: Generator, given: int | None, steps: tuple[int, ...], room: int, field: str, refusal: str
) -> int:
    """Return ``given`` if there is room for it, else a draw from those of ``steps`` that fit."""
    options = [n for n in steps if n <= room] if given is None else list(range(1, room + 1))
    return draw(rng, options, given, field, refusal)


def plan_add_node(net: EvolvableNetwork, rng: Generator, numb_new_nodes: int | None = None) -> Edit:
    """Plan feed-forward units in every block that nothing listens to yet."""
    spec: GPTSpec = net.spec
    size, limit = spec.dim_feedfwd, spec.max_feedfwd
    refusal = f"the feed-forward layers have {size} of at most {limit} units"
    room = limit - size
    count = _count(rng, numb_new_nodes, FEEDFWD_STEPS, room, "numb_new_nodes", refusal)
    steps: list[Carry] = []
    for i in range(spec.n_layer):
        fresh = {f"block_{i}.fc.weight": normal(net.rng, torch.empty(count, spec.n_embd), STD)}
        if spec.bias:
            fresh[f"block_{i}.fc.bias"] = torch.zeros(count)
        follower = f"block_{i}.mlp_out.weight"
        steps.append(partial(carry.add_units, fresh=fresh, follower=follower, block=1))
    grown = replace(spec, dim_feedfwd=size + count)
    return Edit(
        "add_node", {"numb_new_nodes": count}, grown, partial(gpt_carry.in_turn, steps=steps)
    )


def plan_remove_node(
    net: EvolvableNetwork, rng: Generator, numb_new_nodes: int | None = None
) -> Edit:
    """Plan to take out, in every block, the feed-forward units that are listened to least."""
    spec: GPTSpec = net.spec
    size, limit = spec.dim_feedfwd, max(1, spec.min_feedfwd)
    refusal = f"the feed-forward layers have {size} of at least {limit} units"
    room = size - limit
    count = _count(rng, numb_new_nodes, FEEDFWD_STEPS, room, "numb_new_nodes", refusal)
    values = net.named_tensors()
    leaves = ("weight", "bias") if spec.bias else ("weight",)
    steps: list[Carry] = []
    for i in range(spec.n_layer):
        follower = f"block_{i}.mlp_out.weight"
        keep = most_useful(values[follower].norm(dim=0), size - count)
        rows = tuple(f"block_{i}.fc.{leaf}" for leaf in leaves)
        steps.append(partial(carry.keep_units, rows=rows, follower=follower, keep=keep, block=1))
    shrunk = replace(spec, dim_feedfwd=size - count)
    return Edit(
        "remove_node", {"numb_new_nodes": count}, shrunk, partial(gpt_carry.in_turn, steps=steps)
    )


def plan_add_head(net: EvolvableNetwork, rng: Generator, numb_new_heads: int | None = None) -> Edit:
    """Plan attention heads in every block that nothing listens to yet."""
    spec: GPTSpec = net.spec
    refusal = f"a block has {spec.n_head} of at most {spec.max_heads} heads"
    room = spec.max_heads - spec.n_head
    count = _count(rng, numb_new_heads, HEAD_STEPS, room, "numb_new_heads", refusal)
    steps: list[Carry] = []
    for i in range(spec.n_layer):
        shape = (3, count, spec.head_dim, spec.n_embd)
        fresh = {"weight": normal(net.rng, torch.empty(shape), STD)}
        if spec.bias:
            fresh["bias"] = torch.zeros(shape[:3])
        steps.append(partial(gpt_carry.add_heads, block=f"block_{i}", fresh=fresh))
    grown = replace(spec, n_head=spec.n_head + count)
    return Edit(
        "add_head", {"numb_new_heads": count}, grown, partial(gpt_carry.in_turn, steps=steps)
    )


def plan_remove_head(
    net: EvolvableNetwork, rng: Generator, numb_new_heads: int | None = None
) -> Edit:
    """Plan to take out, in every block, the heads that are listened to least."""
    spec: GPTSpec = net.spec
    limit = max(1, spec.min_heads)
    refusal = f"a block has {spec.n_head} of at least {limit} heads"
    room = spec.n_head - limit
    count = _count(rng, numb_new_heads, HEAD_STEPS, room, "numb_new_heads", refusal)
    values = net.named_tensors()
    steps: list[Carry] = []
    for i in range(spec.n_layer):
        read = values[f"block_{i}.attn_out.weight"].reshape(-1, spec.n_head, spec.head_dim)
        keep = most_useful(read.norm(dim=(0, 2)), spec.n_head - count)
        leaves = ("weight", "bias") if spec.bias else ("weight",)
        steps.append(
            partial(
                gpt_carry.keep_heads,
                block=f"block_{i}",
                leaves=leaves,
                keep=keep,
                head_dim=spec.head_dim,
            )
        )
    shrunk = replace(spec, n_head=spec.n_head - count)
    return Edit(
        "remove_head", {"numb_new_heads": count}, shrunk, partial(gpt_carry.in_turn, steps=steps)
    )


def plan_change_activation(
    net: EvolvableNetwork, rng: Generator, activation: str | None = None
) -> Edit:
    """Plan another activation of the feed-forward layers; all weights stay."""
    if activation is None:
        activation = str(rng.choice([a for a in MUTABLE if a != net.spec.activation]))
    check_choice("activation", activation, GPT_ACTIVATIONS)
    spec = replace(net.spec, activation=activation)
    return Edit("change_activation", {"activation": activation}, spec, carry.carry_all)


class EditableGPT(EvolvableNetwork):
    """The layers of a GPT and their edits; ``EvolvableGPT`` reads and writes text with them."""

    LAYER_EDITS = ("add_layer", "remove_layer")
    NODE_EDITS = ("add_node", "remove_node", "add_head", "remove_head")

    spec: GPTSpec

    def make_layers(self, spec: GPTSpec) -> dict[str, nn.Module]:
        """Return embeddings, blocks and the last norm of ``spec``, on the meta device."""
        return gpt_layers(spec)

    def initialise(self, name: str, layer: nn.Module, spec: GPTSpec) -> None:
        """Draw GPT-2's initial parameters of one layer from ``self.rng``, in place."""
        initialise(self.rng, layer, spec)

    def planners(self) -> Mapping[str, Callable[..., Edit]]:
        """Return the edits of blocks, feed-forward units, heads and activation."""
        plans = {
            "add_layer": plan_add_layer,
            "remove_layer": plan_remove_layer,
            "add_node": plan_add_node,
            "remove_node": plan_remove_node,
            "add_head": plan_add_head,
            "remove_head": plan_remove_head,
            "change_activation": plan_change_activation,
        }
        return {name: partial(plan, self) for name, plan in plans.items()}

    def add_layer(self, rng: Generator | None = None) -> Choice | None:
        """Put a block behind the last one that writes nothing yet."""
        return self.edit("add_layer", rng)

    def remove_layer(self, block: int | None = None, rng: Generator | None = None) -> Choice | None:
        """Take out a block: by default the one with the smallest output weights."""
        return self.edit("remove_layer", rng, block=block)

    def add_node(
        self, numb_new_nodes: int | None = None, rng: Generator | None = None
    ) -> Choice | None:
        """Add feed-forward units to every block; the number is drawn where it is None."""
        return self.edit("add_node", rng, numb_new_nodes=numb_new_nodes)

    def remove_node(
        self, numb_new_nodes: int | None = None, rng: Generator | None = None
    ) -> Choice | None:
        """Remove from every block the feed-forward units that are listened to least."""
        return self.edit("remove_node", rng, numb_new_nodes=numb_new_nodes)

    def add_head(
        self, numb_new_heads: int | None = None, rng: Generator | None = None
    ) -> Choice | None:
        """Add attention heads to every block; the number is drawn where it is None."""
        return self.edit("add_head", rng, numb_new_heads=numb_new_heads)

    def remove_head(
        self, numb_new_heads: int | None = None, rng: Generator | None = None
    ) -> Choice | None:
        """Remove from every block the heads that are listened to least."""
        return self.edit("remove_head", rng, numb_new_heads=numb_new_heads)
