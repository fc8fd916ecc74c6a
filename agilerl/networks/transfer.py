"""How parameters are transferred from one shape of a network to the next.

Every function maps ``Params`` to new ``Params`` and leaves its input alone.  With
``moments=True`` the values are the optimiser's moments: what is kept is kept, what is new is zero.
They are module-level functions, so that an edit made of them (``functools.partial``) pickles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from agilerl.networks.activations import PASS_ON

Params = dict[str, torch.Tensor]
#: ``transfer(params, moments)``; see the head of this file.
Transfer = Callable[[Params, bool], Params]


@dataclass(frozen=True)
class Units:
    """Where equal units (dense units, channels, attention heads) stand in the parameters.

    Attributes:
        rows: names of the parameters that hold the units along their first dimension, as
            [parts, units, size, ...] flattened into [parts * units * size, ...].
        reader: name of the weight [outputs, inputs, ...] that reads the units.  They are its last
            inputs; those in front of them come from elsewhere (a critic's action, say).
        parts: how often the units stand in ``rows`` (3 for heads: query, key, value).
        size: rows of one unit in each part (the width of a head, else 1).
        inputs: inputs of the reader for one unit (the width of a head; the area of an image that is
            flattened between a convolution and a dense layer; else 1).
    """

    rows: tuple[str, ...]
    reader: str
    parts: int = 1
    size: int = 1
    inputs: int = 1

    def of_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a parameter of ``rows`` as a view [parts, units, size, ...]."""
        return tensor.reshape(self.parts, -1, self.size, *tensor.shape[1:])

    def of_reader(self, params: Params) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the reader's other weights [outputs, ...], and those of the units.

        The latter are a view [outputs, units, inputs, ...].
        """
        weight = params[self.reader]
        units = len(params[self.rows[0]]) // (self.parts * self.size)
        others = weight.shape[1] - units * self.inputs
        own = weight[:, others:].reshape(len(weight), units, self.inputs, *weight.shape[2:])
        return weight[:, :others], own

    def without_least_useful(self, params: Params, count: int) -> list[int]:
        """Return the numbers of all units but the ``count`` with the smallest outgoing weights."""
        norms = self.of_reader(params)[1].flatten(2).norm(dim=(0, 2))
        ranked = norms.argsort(descending=True, stable=True)
        return sorted(ranked[: len(ranked) - count].tolist())


def keep_all(params: Params, moments: bool) -> Params:
    """Keep everything: the edit changes no parameter's shape."""
    return dict(params)


def add_units(
    params: Params, moments: bool, *, additions: Sequence[tuple[Units, Params]]
) -> Params:
    """Append units whose outgoing weights are zero, so that outputs stay as they are.

    Args:
        params: parameters or moments by name.
        moments: whether they are moments.
        additions: where units are added, and the new values of their ``rows``, by name.
    """
    out = dict(params)
    for units, fresh in additions:
        for name in units.rows:
            old = units.of_rows(out[name])
            rows = units.of_rows(fresh[name]).to(old)
            rows = torch.zeros_like(rows) if moments else rows
            out[name] = torch.cat([old, rows], dim=1).flatten(0, 2)
        weight, inputs = out[units.reader], rows.shape[1] * units.inputs
        zeros = weight.new_zeros(len(weight), inputs, *weight.shape[2:])
        out[units.reader] = torch.cat([weight, zeros], dim=1)
    return out


def keep_units(params: Params, moments: bool, *, kept: Sequence[tuple[Units, list[int]]]) -> Params:
    """Keep only some units, and what their readers read of them.

    Args:
        params: parameters or moments by name.
        moments: whether they are moments.
        kept: where units are taken out, and the numbers of those that stay.
    """
    out = dict(params)
    for units, keep in kept:
        others, own = units.of_reader(out)
        index = torch.tensor(keep, device=own.device)
        own = own.index_select(1, index).flatten(1, 2)
        out[units.reader] = torch.cat([others, own], dim=1)
        for name in units.rows:
            out[name] = units.of_rows(out[name]).index_select(1, index).flatten(0, 2)
    return out


def add_parameters(params: Params, moments: bool, *, fresh: Params) -> Params:
    """Add the parameters ``fresh`` of new layers."""
    like = next(iter(params.values()))
    return {**params, **{n: (v * 0 if moments else v).to(like) for n, v in fresh.items()}}


def remove_block(params: Params, moments: bool, *, block: int, n_layer: int) -> Params:
    """Drop one of ``n_layer`` blocks; those behind it move up."""
    new_name = {f"block_{i}": f"block_{i - (i > block)}" for i in range(n_layer) if i != block}
    out = {}
    for name, value in params.items():
        layer, _, rest = name.partition(".")
        if layer != f"block_{block}":
            out[f"{new_name.get(layer, layer)}.{rest}"] = value
    return out


def insert_identity(
    params: Params,
    moments: bool,
    *,
    layer: str,
    reader: str,
    activation: str,
    width: int,
    dims: int = 0,
    others: int = 0,
) -> Params:
    """Put a layer in front of ``reader`` that passes on the ``width`` units it reads.

    Args:
        params: parameters or moments by name.
        moments: whether they are moments.
        layer: name of the new layer.
        reader: name of the layer that reads it; the units are its last inputs.
        activation: of the new layer; see ``PASS_ON`` for how exact it is.
        width: number of units.
        dims: trailing dimensions of size 1 of the new weight (2 for a convolution, else 0).
        others: how many of the reader's inputs stand in front of them and come from elsewhere.
    """
    out = dict(params)
    weight = out[f"{reader}.weight"]
    eye = torch.eye(width, dtype=weight.dtype, device=weight.device)
    eye = eye.reshape(width, width, *[1] * dims)
    if moments:
        out[f"{layer}.weight"] = torch.zeros_like(eye)
        out[f"{layer}.bias"] = weight.new_zeros(width)
        return out
    line = PASS_ON[activation]
    out[f"{layer}.weight"] = eye * line.gain
    out[f"{layer}.bias"] = weight.new_full((width,), line.shift)
    outgoing = weight[:, others:] / (line.slope * line.gain)
    out[f"{reader}.weight"] = torch.cat([weight[:, :others], outgoing], dim=1)
    out[f"{reader}.bias"] = out[f"{reader}.bias"] - line.offset * outgoing.flatten(1).sum(1)
    return out


def fuse(
    params: Params, moments: bool, *, layer: str, reader: str, drop: tuple[str, ...]
) -> Params:
    """Take a dense layer out: its reader reads what the layer read, through the product.

    The activation between them is ignored, so an untrained identity layer comes out again without
    a trace.  The product is a new weight: its moments are zero.

    Args:
        params: parameters or moments by name.
        moments: whether they are moments.
        layer: name of the layer.
        reader: name of the dense layer that reads it.
        drop: how the names of parameters that go begin, the layer's included.
    """
    out = {name: value for name, value in params.items() if not name.startswith(drop)}
    first, second = params[f"{layer}.weight"], params[f"{reader}.weight"]
    if moments:
        out[f"{reader}.weight"] = second.new_zeros(len(second), first.shape[1])
        return out
    out[f"{reader}.weight"] = second @ first
    out[f"{reader}.bias"] = params[f"{reader}.bias"] + second @ params[f"{layer}.bias"]
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
    others = weight.shape[1] - before[0] * before[1] * before[2]
    image = weight[:, others:].reshape(len(weight), *before)
    image = overlap(image, (len(weight), *after)).flatten(1)
    out[dense] = torch.cat([weight[:, :others], image], dim=1)
    return out
