"""How parameters are carried from one shape of a network to the next.

Every function maps ``Params`` to new ``Params`` and leaves its input alone.  With
``moments=True`` the values are the optimiser's moments: what is kept is kept, what is new is zero.
They are module-level functions, so that an edit made of them (``functools.partial``) pickles.
"""

from __future__ import annotations

import torch

from agilerl.networks.activations import PASS_ON
from agilerl.networks.base import Params


def carry_all(params: Params, moments: bool) -> Params:
    """Keep everything: the edit changes no parameter's shape."""
    return dict(params)


def add_units(params: Params, moments: bool, *, fresh: Params, follower: str, block: int) -> Params:
    """Append output units to a layer, and inputs of weight zero for them to its follower.

    Outputs of the network stay as they are, because nothing listens to the new units yet.

    Args:
        params: parameters or moments by name.
        moments: whether they are moments.
        fresh: rows to append, by parameter name.
        follower: name of the weight that reads the units; they are its last inputs.
        block: how many of the follower's inputs one unit feeds (the area of an image that is
            flattened between a convolution and a dense layer, else 1).
    """
    out = dict(params)
    for name, rows in fresh.items():
        rows = rows.to(out[name])
        out[name] = torch.cat([out[name], torch.zeros_like(rows) if moments else rows])
        count = len(rows)
    weight = out[follower]
    silent = weight.new_zeros(len(weight), count * block, *weight.shape[2:])
    out[follower] = torch.cat([weight, silent], dim=1)
    return out


def keep_units(
    params: Params,
    moments: bool,
    *,
    rows: tuple[str, ...],
    follower: str,
    keep: list[int],
    block: int,
) -> Params:
    """Keep only the output units ``keep`` of a layer, and what its follower reads of them.

    The units' inputs stand at the end of the follower's, as in ``add_units``.
    """
    out = dict(params)
    weight = out[follower]
    index = torch.tensor(keep, device=weight.device)
    lead = weight.shape[1] - len(out[rows[0]]) * block
    columns = (index[:, None] * block + torch.arange(block, device=weight.device)).flatten()
    ahead = torch.arange(lead, device=weight.device)
    out[follower] = weight.index_select(1, torch.cat([ahead, columns + lead]))
    for name in rows:
        out[name] = out[name].index_select(0, index)
    return out


def insert_identity(
    params: Params,
    moments: bool,
    *,
    layer: str,
    follower: str,
    activation: str,
    width: int,
    dims: int = 0,
    lead: int = 0,
) -> Params:
    """Put a layer in front of ``follower`` that passes on the ``width`` units it reads.

    Args:
        params: parameters or moments by name.
        moments: whether they are moments.
        layer: name of the new layer.
        follower: name of the layer that reads it; the units are its last inputs.
        activation: of the new layer; see ``PASS_ON`` for how exact it is.
        width: number of units.
        dims: trailing dimensions of size 1 of the new weight (2 for a convolution, else 0).
        lead: how many of the follower's inputs stand in front of them and come from elsewhere.
    """
    out = dict(params)
    weight = out[f"{follower}.weight"]
    eye = torch.eye(width, dtype=weight.dtype, device=weight.device)
    eye = eye.reshape(width, width, *[1] * dims)
    if moments:
        out[f"{layer}.weight"] = torch.zeros_like(eye)
        out[f"{layer}.bias"] = weight.new_zeros(width)
        return out
    way = PASS_ON[activation]
    out[f"{layer}.weight"] = eye * way.gain
    out[f"{layer}.bias"] = weight.new_full((width,), way.shift)
    reading = weight[:, lead:] / (way.slope * way.gain)
    out[f"{follower}.weight"] = torch.cat([weight[:, :lead], reading], dim=1)
    heard = reading.flatten(1).sum(1)
    out[f"{follower}.bias"] = out[f"{follower}.bias"] - way.offset * heard
    return out


def fuse(params: Params, moments: bool, *, layer: str, follower: str) -> Params:
    """Take a dense layer out: its follower reads what the layer read, through the product.

    The activation between them is left out of the account, so an untrained identity layer comes
    out again without a trace.  The product is a new weight: its moments are zero.
    """
    out = {name: value for name, value in params.items() if not name.startswith(f"{layer}.")}
    first, second = params[f"{layer}.weight"], params[f"{follower}.weight"]
    if moments:
        out[f"{follower}.weight"] = second.new_zeros(len(second), first.shape[1])
        return out
    out[f"{follower}.weight"] = second @ first
    out[f"{follower}.bias"] = params[f"{follower}.bias"] + second @ params[f"{layer}.bias"]
    return out


def overlap(old: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return zeros of ``shape`` with as much of ``old`` as fits, from the first corner."""
    new = old.new_zeros(shape)
    common = tuple(slice(min(a, b)) for a, b in zip(old.shape, shape, strict=True))
    new[common] = old[common]
    return new


def reshape_inputs(
    params: Params,
    moments: bool,
    *,
    weights: dict[str, tuple[int, ...]],
    drop: tuple[str, ...],
    dense: str,
    before: tuple[int, int, int],
    after: tuple[int, int, int],
) -> Params:
    """Change convolutions so that the flattened image in front of a dense layer changes its shape.

    Args:
        params: parameters or moments by name.
        moments: whether they are moments.
        weights: new shapes of convolution weights; what overlaps is kept, the rest is zero.
        drop: how the names of parameters that go begin.
        dense: name of the weight that reads the flattened image (its last inputs).
        before: the image's old [C, H, W].
        after: its new [C, H, W]; positions that overlap are kept, the rest is zero.
    """
    out = {name: value for name, value in params.items() if not name.startswith(drop)}
    for name, shape in weights.items():
        out[name] = overlap(out[name], shape)
    weight = out[dense]
    lead = weight.shape[1] - before[0] * before[1] * before[2]
    image = weight[:, lead:].reshape(len(weight), *before)
    image = overlap(image, (len(weight), *after)).flatten(1)
    out[dense] = torch.cat([weight[:, :lead], image], dim=1)
    return out
