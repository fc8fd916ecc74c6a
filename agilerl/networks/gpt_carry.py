"""How the parameters of a GPT are carried from one shape to the next; see ``carry.py``."""

from __future__ import annotations

import torch

from agilerl.networks.base import Carry, Params


def in_turn(params: Params, moments: bool, *, steps: list[Carry]) -> Params:
    """Make several changes one after the other."""
    for step in steps:
        params = step(params, moments)
    return params


def add_block(params: Params, moments: bool, *, fresh: Params) -> Params:
    """Add the parameters of a block."""
    like = next(iter(params.values()))
    return {**params, **{n: (v * 0 if moments else v).to(like) for n, v in fresh.items()}}


def remove_block(params: Params, moments: bool, *, block: int, n_layer: int) -> Params:
    """Drop a block; those behind it move up."""
    new_name = {f"block_{i}": f"block_{i - (i > block)}" for i in range(n_layer) if i != block}
    out = {}
    for name, value in params.items():
        layer, _, rest = name.partition(".")
        if layer != f"block_{block}":
            out[f"{new_name.get(layer, layer)}.{rest}"] = value
    return out


def add_heads(params: Params, moments: bool, *, block: str, fresh: Params) -> Params:
    """Append heads to a block, and outputs of weight zero for them.

    Args:
        params: parameters or moments by name.
        moments: whether they are moments.
        block: name of the block.
        fresh: rows of ``qkv`` by leaf, [3, new heads, head_dim, ...].
    """
    out = dict(params)
    for leaf, rows in fresh.items():
        old = out[f"{block}.qkv.{leaf}"]
        rows = (rows * 0 if moments else rows).to(old)
        count, size = rows.shape[1:3]
        old = old.reshape(3, -1, *rows.shape[2:])
        out[f"{block}.qkv.{leaf}"] = torch.cat([old, rows], dim=1).flatten(0, 2)
    output = out[f"{block}.attn_out.weight"]
    silent = output.new_zeros(len(output), count * size)
    out[f"{block}.attn_out.weight"] = torch.cat([output, silent], dim=1)
    return out


def keep_heads(
    params: Params,
    moments: bool,
    *,
    block: str,
    leaves: tuple[str, ...],
    keep: list[int],
    head_dim: int,
) -> Params:
    """Keep only the heads ``keep`` of a block."""
    out = dict(params)
    index = torch.tensor(keep, device=next(iter(params.values())).device)
    for leaf in leaves:
        rows = out[f"{block}.qkv.{leaf}"]
        rows = rows.reshape(3, -1, head_dim, *rows.shape[1:])
        out[f"{block}.qkv.{leaf}"] = rows.index_select(1, index).flatten(0, 2)
    name = f"{block}.attn_out.weight"
    columns = out[name].reshape(len(out[name]), -1, head_dim)
    out[name] = columns.index_select(1, index).flatten(1)
    return out
