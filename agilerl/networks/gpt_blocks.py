"""The blocks of a GPT: their parameters, and the one function that runs them.

Training, evaluation and decoding run the same code.  It works on parameters that are bound once a
call (``GPTWeights``) and not on modules, because a decoded token costs about ten small operations
a block, and looking parameters up in modules would cost as much again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from agilerl.networks.gpt_spec import GPT_ACTIVATIONS, GPTSpec

Tensor = torch.Tensor


class Dropout(nn.Module):
    """Dropout that draws from its own generator.

    The generator is copied and pickled with the module; on a device where it can't draw, another
    one takes its place, seeded from it.

    Args:
        seed: of the generator.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start a new stream."""
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor, p: float) -> Tensor:
        """Return ``x`` with each element zero with probability ``p``, else ``x / (1 - p)``."""
        if self.generator.device != x.device:
            old = self.generator
            seed = torch.randint(2**62, (), generator=old, device=old.device)
            self.generator = torch.Generator(x.device).manual_seed(int(seed))
        kept = torch.empty_like(x, requires_grad=False).bernoulli_(1 - p, generator=self.generator)
        return x * kept.div_(1 - p)


Drop = Callable[[Tensor], Tensor] | None


class Block(nn.Module):
    """The parameters of one pre-norm block, on the meta device; ``run_block`` computes with them.

    Rows of ``qkv`` are ordered as [3 (query, key, value), head, head_dim].  The layers stand in the
    order of ``BlockWeights``.
    """

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        width, bias = spec.n_embd, spec.bias
        meta: dict[str, Any] = {"bias": bias, "device": "meta"}
        self.norm_1 = nn.LayerNorm(width, spec.layer_norm_eps, **meta)
        self.qkv = nn.Linear(width, 3 * spec.inner, **meta)
        self.attn_out = nn.Linear(spec.inner, width, **meta)
        self.norm_2 = nn.LayerNorm(width, spec.layer_norm_eps, **meta)
        self.fc = nn.Linear(width, spec.dim_feedfwd, **meta)
        self.mlp_out = nn.Linear(spec.dim_feedfwd, width, **meta)


def gpt_layers(spec: GPTSpec) -> dict[str, nn.Module]:
    """Return the layers of ``spec`` by name, on the meta device.

    There is no output layer: the head reads ``wte.weight``, so nothing can untie the two.
    """

    def embedding(rows: int) -> nn.Embedding:
        # given a weight, it draws none, for which torch would import sympy on the meta device
        weight = torch.empty(rows, spec.n_embd, device="meta")
        return nn.Embedding(rows, spec.n_embd, _weight=weight)

    norm = nn.LayerNorm(spec.n_embd, spec.layer_norm_eps, bias=spec.bias, device="meta")
    return {
        "wte": embedding(spec.vocab_size),
        "wpe": embedding(spec.block_size),
        **{f"block_{i}": Block(spec) for i in range(spec.n_layer)},
        "norm": norm,
    }


class BlockWeights(NamedTuple):
    """The parameters of one block; biases are None in a network without them."""

    norm_1: Tensor
    norm_1_bias: Tensor | None
    qkv: Tensor
    qkv_bias: Tensor | None
    attn_out: Tensor
    attn_out_bias: Tensor | None
    norm_2: Tensor
    norm_2_bias: Tensor | None
    fc: Tensor
    fc_bias: Tensor | None
    mlp_out: Tensor
    mlp_out_bias: Tensor | None


class GPTWeights(NamedTuple):
    """The parameters of a network, bound for one call or for one decoding."""

    spec: GPTSpec
    wte: Tensor
    wpe: Tensor
    blocks: tuple[BlockWeights, ...]
    norm: Tensor
    norm_bias: Tensor | None
    activation: Callable[[Tensor], Tensor]


class Frame(NamedTuple):
    """What a pass knows besides its tokens; made once and shared by all blocks.

    Attributes:
        places: embeddings of the positions, [T, E] or [B, T, E].
        mask: what is added to the attention scores, [B or 1, 1, T, S], or None.
        causal: whether token i sees the tokens 0 to i of this pass (then ``mask`` is None).
        writes: for each block where its new keys and values go, [2, B, H, T, D]; or None.
        reads: the keys and the values of block i at 2 i and 2 i + 1, [B, H, S, D].
    """

    places: Tensor
    mask: Tensor | None = None
    causal: bool = False
    writes: tuple[Tensor, ...] | None = None
    reads: tuple[Tensor, ...] = ()


def bind(spec: GPTSpec, layers: nn.ModuleDict) -> GPTWeights:
    """Return the parameters of ``layers``, which are those of ``spec``."""

    def pair(layer: Any) -> tuple[Any, Any]:
        return layer.weight, layer.bias

    blocks = []
    for i in range(spec.n_layer):
        parts = layers[f"block_{i}"].children()  # in the order of BlockWeights
        blocks.append(BlockWeights(*(tensor for layer in parts for tensor in pair(layer))))
    wte, wpe = layers["wte"].weight, layers["wpe"].weight
    activation = GPT_ACTIVATIONS[spec.activation]
    assert isinstance(wte, Tensor)
    assert isinstance(wpe, Tensor)
    return GPTWeights(spec, wte, wpe, tuple(blocks), *pair(layers["norm"]), activation)


def run(weights: GPTWeights, ids: Tensor, frame: Frame, drop: Drop = None) -> Tensor:
    """Return the residual stream behind the last block, before the last norm.

    Args:
        weights: of the network.
        ids: tokens [B, T].
        frame: positions, mask and cache of this pass.
        drop: dropout, or None.

    Returns:
        [B, T, E].
    """
    x = F.embedding(ids, weights.wte) + frame.places
    if drop is not None:
        x = drop(x)
    for i, block in enumerate(weights.blocks):
        x = run_block(weights, block, i, x, frame, drop)
    return x


def last_norm(weights: GPTWeights, x: Tensor) -> Tensor:
    """Return the hidden states, which the heads read, of a residual stream [..., E]."""
    spec = weights.spec
    return F.layer_norm(x, (spec.n_embd,), weights.norm, weights.norm_bias, spec.layer_norm_eps)


def run_block(
    weights: GPTWeights, block: BlockWeights, i: int, x: Tensor, frame: Frame, drop: Drop
) -> Tensor:
    """Return the residual stream [B, T, E] behind block ``i``."""
    spec = weights.spec
    width, eps = (spec.n_embd,), spec.layer_norm_eps
    normed = F.layer_norm(x, width, block.norm_1, block.norm_1_bias, eps)
    batch, time, _ = x.shape
    qkv = F.linear(normed, block.qkv, block.qkv_bias)
    qkv = qkv.view(batch, time, 3, spec.n_head, spec.head_dim).permute(2, 0, 3, 1, 4)
    if frame.writes is None:
        query, key, value = qkv.unbind(0)
    else:
        query = qkv[0]
        frame.writes[i].copy_(qkv[1:])
        key, value = frame.reads[2 * i], frame.reads[2 * i + 1]
    heard = attend(query, key, value, frame, drop).transpose(1, 2).reshape(batch, time, spec.inner)
    heard = F.linear(heard, block.attn_out, block.attn_out_bias)
    x = x + (heard if drop is None else drop(heard))
    normed = F.layer_norm(x, width, block.norm_2, block.norm_2_bias, eps)
    thought = weights.activation(F.linear(normed, block.fc, block.fc_bias))
    thought = F.linear(thought, block.mlp_out, block.mlp_out_bias)
    return x + (thought if drop is None else drop(thought))


def attend(query: Tensor, key: Tensor, value: Tensor, frame: Frame, drop: Drop) -> Tensor:
    """Return what each query [B, H, T, D] reads of the values [B, H, S, D]."""
    if drop is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=frame.mask, is_causal=frame.causal
        )
    # torch's fused attention would draw its dropout from the global generator
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if frame.causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    if frame.mask is not None:
        scores = scores + frame.mask
    return drop(scores.softmax(-1)) @ value
