"""A GPT-2 in one file: its shape, its blocks, the function that runs them, its key-value cache.

"Language Models are Unsupervised Multitask Learners", Radford et al. 2019.  Training, evaluation
and decoding run the same code.  It works on parameters that are gathered once a call
(``GPTWeights``) and not on modules, because a decoded token costs about ten small operations a
block, and looking parameters up in modules would cost as much again.

Shapes: B rows, T tokens of this pass, S tokens that can be attended to, H heads of width D, E the
width of the residual stream, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from agilerl.errors import ConfigError, check_choice, check_float, check_int
from agilerl.networks.base import Spec

Tensor = torch.Tensor
Drop = Callable[[Tensor], Tensor] | None

# -------------------------------------------------------------------------------------------- shape

#: Above this many elements torch's own tanh-GELU, which has no vector code on many CPUs, is slower
#: than the four operations below that are the same function.
_FEW = 4096
_TWICE_ROOT = 2 * (2 / torch.pi) ** 0.5


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """Return GPT-2's GELU, ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))``."""
    if x.numel() < _FEW or torch.is_grad_enabled() or x.device.type != "cpu":
        return F.gelu(x, approximate="tanh")
    # (1 + tanh(u)) / 2 == sigmoid(2 u)
    inner = torch.square(x).mul_(_TWICE_ROOT * 0.044715).add_(_TWICE_ROOT)
    return inner.mul_(x).sigmoid_().mul_(x)


def identity(x: torch.Tensor) -> torch.Tensor:
    """Return ``x``."""
    return x


#: ``"gelu"`` is GPT-2's, by tanh; ``"gelu_exact"`` is the one by the error function.
GPT_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": gelu_tanh,
    "gelu_exact": F.gelu,
    "relu": F.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "lrelu": F.leaky_relu,
    "linear": identity,
}


@dataclass(frozen=True, kw_only=True)
class GPTSpec(Spec):
    """The shape of a GPT; fields as the arguments of ``EvolvableGPT``."""

    n_layer: int
    vocab_size: int
    n_embd: int
    n_head: int
    dim_feedfwd: int
    block_size: int
    dropout: float
    activation: str
    layer_norm_eps: float
    min_layers: int
    max_layers: int
    bias: bool
    head_dim: int = None  # type: ignore[assignment]  # None is n_embd / n_head
    min_heads: int = 1
    max_heads: int = 32
    min_feedfwd: int = 32
    max_feedfwd: int = 8192

    def checked(self) -> dict[str, Any]:
        """Return checked values by field; raise ``ConfigError`` on one that can't be."""
        names = ("n_layer", "vocab_size", "n_embd", "n_head", "dim_feedfwd", "block_size")
        sizes = {name: check_int(name, getattr(self, name)) for name in names}
        check_choice("activation", self.activation, GPT_ACTIVATIONS)
        dropout = check_float("dropout", self.dropout, 0.0, 1.0)
        if dropout == 1.0:
            raise ConfigError("dropout: 1.0 would drop everything; expected a number in [0, 1).")
        return {
            **sizes,
            "head_dim": check_int("head_dim", self._head_dim()),
            "dropout": dropout,
            "layer_norm_eps": check_float("layer_norm_eps", self.layer_norm_eps, 0.0, 1.0),
            "bias": bool(self.bias),
            **self.checked_limits(
                layers=[self.n_layer], heads=[self.n_head], feedfwd=[self.dim_feedfwd]
            ),
        }

    def _head_dim(self) -> int:
        if self.head_dim is not None:
            return self.head_dim
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"n_head: {self.n_head} heads do not divide n_embd={self.n_embd}; choose numbers"
                " that do, or give the width of a head as head_dim."
            )
        return self.n_embd // self.n_head

    @property
    def inner(self) -> int:
        """Width of the queries, of the keys and of the values, all heads together."""
        return self.n_head * self.head_dim


# ------------------------------------------------------------------------------------------ modules


class Dropout(nn.Module):
    """Dropout that draws from its own random stream ``rng``.

    The stream is copied and pickled with the module; on a device where it can't draw, another one
    takes over, seeded from it.

    Args:
        seed: of the stream.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start a new stream."""
        self.rng = torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor, p: float) -> Tensor:
        """Return ``x`` with each element zero with probability ``p``, else ``x / (1 - p)``."""
        if self.rng.device != x.device:
            seed = torch.randint(2**62, (), generator=self.rng, device=self.rng.device)
            self.rng = torch.Generator(x.device).manual_seed(int(seed))
        kept = torch.empty_like(x, requires_grad=False).bernoulli_(1 - p, generator=self.rng)
        return x * kept.div_(1 - p)


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


def gpt_layers(spec: GPTSpec) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of ``spec`` with their names, on the meta device.

    There is no output layer: the head reads ``wte.weight``, so nothing can untie the two.
    """

    def embedding(rows: int) -> nn.Embedding:
        # given a weight, it draws none, for which torch would import sympy on the meta device
        weight = torch.empty(rows, spec.n_embd, device="meta")
        return nn.Embedding(rows, spec.n_embd, _weight=weight)

    yield "wte", embedding(spec.vocab_size)
    yield "wpe", embedding(spec.block_size)
    for i in range(spec.n_layer):
        yield f"block_{i}", Block(spec)
    yield "norm", nn.LayerNorm(spec.n_embd, spec.layer_norm_eps, bias=spec.bias, device="meta")


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


# ------------------------------------------------------------------------------------- forward pass


class PassContext(NamedTuple):
    """What a forward pass needs besides its tokens; made once and shared by all blocks.

    Attributes:
        pos_emb: embeddings of the positions, [T, E] or [B, T, E].
        mask: what is added to the attention scores, [B or 1, 1, T, S], or None.
        causal: whether token i sees the tokens 0 to i of this pass (then ``mask`` is None).
        writes: for each block where its new keys and values go, [2, B, H, T, D]; or None.
        reads: the keys and the values of block i at 2 i and 2 i + 1, [B, H, S, D].
    """

    pos_emb: Tensor
    mask: Tensor | None = None
    causal: bool = False
    writes: tuple[Tensor, ...] | None = None
    reads: tuple[Tensor, ...] = ()


def run(weights: GPTWeights, ids: Tensor, context: PassContext, drop: Drop = None) -> Tensor:
    """Return the residual stream behind the last block, before the last norm.

    Args:
        weights: of the network.
        ids: tokens [B, T].
        context: positions, mask and cache of this pass.
        drop: dropout, or None.

    Returns:
        [B, T, E].
    """
    x = F.embedding(ids, weights.wte) + context.pos_emb
    if drop is not None:
        x = drop(x)
    for i, block in enumerate(weights.blocks):
        x = run_block(weights, block, i, x, context, drop)
    return x


def last_norm(weights: GPTWeights, x: Tensor) -> Tensor:
    """Return the hidden states, which the heads read, of a residual stream [..., E]."""
    spec = weights.spec
    return F.layer_norm(x, (spec.n_embd,), weights.norm, weights.norm_bias, spec.layer_norm_eps)


def run_block(
    weights: GPTWeights, block: BlockWeights, i: int, x: Tensor, context: PassContext, drop: Drop
) -> Tensor:
    """Return the residual stream [B, T, E] behind block ``i``."""
    spec = weights.spec
    width, eps = (spec.n_embd,), spec.layer_norm_eps
    normed = F.layer_norm(x, width, block.norm_1, block.norm_1_bias, eps)
    batch, time, _ = x.shape
    qkv = F.linear(normed, block.qkv, block.qkv_bias)
    qkv = qkv.view(batch, time, 3, spec.n_head, spec.head_dim).permute(2, 0, 3, 1, 4)
    if context.writes is None:
        query, key, value = qkv.unbind(0)
    else:
        query = qkv[0]
        context.writes[i].copy_(qkv[1:])
        key, value = context.reads[2 * i], context.reads[2 * i + 1]
    attn_out = attend(query, key, value, context, drop).transpose(1, 2)
    attn_out = attn_out.reshape(batch, time, spec.inner)
    attn_out = F.linear(attn_out, block.attn_out, block.attn_out_bias)
    x = x + (attn_out if drop is None else drop(attn_out))
    normed = F.layer_norm(x, width, block.norm_2, block.norm_2_bias, eps)
    mlp_out = weights.activation(F.linear(normed, block.fc, block.fc_bias))
    mlp_out = F.linear(mlp_out, block.mlp_out, block.mlp_out_bias)
    return x + (mlp_out if drop is None else drop(mlp_out))


def attend(query: Tensor, key: Tensor, value: Tensor, context: PassContext, drop: Drop) -> Tensor:
    """Return what each query [B, H, T, D] reads of the values [B, H, S, D]."""
    if drop is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=context.mask, is_causal=context.causal
        )
    # torch's fused attention would draw its dropout from the global generator
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if context.causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    if context.mask is not None:
        scores = scores + context.mask
    return drop(scores.softmax(-1)) @ value


# ---------------------------------------------------------------- key-value cache, positions, masks


class KVCache:
    """The keys and values of the tokens that a network has read, in memory allocated once.

    ``net(ids, attention_mask, cache=cache)`` appends ``ids``, one token or many, to what was read
    before; mask and ids are those of the new tokens only.  A cache belongs to one shape of one
    network: after an edit, or after a step of the optimiser, make a new one.

    Args:
        weights: of the network.
        batch_size: rows.
        capacity: the most tokens, padding included, that one row will hold.
    """

    def __init__(self, weights: GPTWeights, batch_size: int, capacity: int) -> None:
        spec, like = weights.spec, weights.wte
        shape = (spec.n_layer, 2, batch_size, spec.n_head, capacity, spec.head_dim)
        self.kv = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.capacity = capacity
        #: Tokens read so far, padding included.
        self.length = 0
        #: 0 for a real token and -inf for padding [B, 1, 1, capacity]; None without padding.
        self.mask: Tensor | None = None
        #: Real tokens of each row so far [B, 1]; None without padding.
        self.counts: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.kv.shape[2]

    def views(self, time: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return where the blocks write their next ``time`` tokens, and what they read then."""
        length = self.length
        writes = self.kv.narrow(4, length, time).unbind(0)
        return writes, self.kv.flatten(0, 1).narrow(3, 0, length + time).unbind(0)

    def count(self, mask: Tensor | None, time: int) -> None:
        """Count ``time`` more tokens with their mask [B, T], None if all are real."""
        if mask is not None:
            if self.mask is None:
                self.mask = self.kv.new_zeros(self.batch_size, 1, 1, self.capacity)
                self.counts = mask.new_full((self.batch_size, 1), self.length, dtype=torch.long)
            new = self.mask.narrow(3, self.length, time)
            new.masked_fill_(~mask[:, None, None], -torch.inf)
        if self.counts is not None:
            self.counts = self.counts + (time if mask is None else mask.sum(1, keepdim=True))
        self.length += time

    def repeat(self, times: int) -> None:
        """Replace each row by ``times`` copies of it, one after the other."""
        self.kv = self.kv.repeat_interleave(times, dim=2)
        if self.mask is not None and self.counts is not None:
            self.mask = self.mask.repeat_interleave(times, dim=0)
            self.counts = self.counts.repeat_interleave(times, dim=0)

    def reorder(self, rows: Tensor, since: int) -> None:
        """Continue row i from row ``rows[i]``; they agree on all tokens before ``since``."""
        part = self.kv.narrow(4, since, self.length - since)
        part.copy_(part.index_select(2, rows))


def pass_context(
    weights: GPTWeights,
    shape: tuple[int, int],
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    cache: KVCache | None = None,
) -> PassContext:
    """Return the context of tokens [B, T], behind those of the cache, which counts them.

    Args:
        weights: of the network.
        shape: (B, T).
        mask: [B, T], True for the real ones of the new tokens; None if all are.
        position_ids: [1 or B, T], or None to count the real tokens of each row.
        cache: what was read before; None for nothing.
    """
    time = shape[1]
    if cache is None:
        pos_emb = position_embeddings(weights, 0, time, mask, position_ids, None)
        return PassContext(pos_emb, *attention_mask(time, 0, mask, None, weights.wte))
    past = cache.length
    pos_emb = position_embeddings(weights, past, time, mask, position_ids, cache.counts)
    writes, reads = cache.views(time)
    cache.count(mask, time)
    visible = attention_mask(time, past, mask, cache.mask, weights.wte)
    return PassContext(pos_emb, *visible, writes, reads)


def position_embeddings(
    weights: GPTWeights,
    past: int,
    time: int,
    mask: Tensor | None,
    position_ids: Tensor | None,
    counts: Tensor | None,
) -> Tensor:
    """Return the embeddings of the positions, [T, E] or [B or 1, T, E].

    Args:
        weights: of the network.
        past: tokens before, padding included.
        time: T.
        mask: see ``pass_context``.
        position_ids: likewise.
        counts: real tokens before [B, 1]; None if all of ``past`` are.
    """
    if position_ids is not None:
        return F.embedding(position_ids, weights.wpe)
    if mask is None and counts is None:
        return weights.wpe.narrow(0, past, time)
    if mask is None:
        assert counts is not None
        positions = counts + torch.arange(time, device=counts.device) if time > 1 else counts
    else:
        # padding takes the position of the token before it (0 in front); nobody reads it
        positions = (mask.cumsum(1) - 1).clamp_min(0) + (past if counts is None else counts)
    return F.embedding(positions.clamp_max(len(weights.wpe) - 1), weights.wpe)


def attention_mask(
    time: int, past: int, mask: Tensor | None, padding: Tensor | None, like: Tensor
) -> tuple[Tensor | None, bool]:
    """Return the additive mask and whether attention is plainly causal; see ``PassContext``.

    Every token sees itself, so that padding has finite outputs, too.
    """
    if past == 0 and (mask is None or _right_padded(mask)):
        return None, time > 1
    if time == 1 and mask is None:
        return (None if padding is None else padding[..., : past + 1]), False
    rows = torch.arange(past, past + time, device=like.device)[:, None]
    columns = torch.arange(past + time, device=like.device)
    hidden = columns > rows
    if padding is not None:
        hidden = hidden | (padding[..., : past + time] < 0)
    elif mask is not None:
        hidden = hidden | ~mask[:, None, None]
    hidden = hidden & (columns != rows)
    if hidden.dim() == 2:
        hidden = hidden[None, None]
    scores = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return scores.masked_fill_(hidden, -torch.inf), False


def _right_padded(mask: Tensor) -> bool:
    """Return whether no real token follows padding: then causal attention never sees any."""
    return not bool((mask[:, 1:] & ~mask[:, :-1]).any())


# ------------------------------------------------------------------------------------------- checks


def check_ids(ids: Tensor, weights: GPTWeights) -> Tensor:
    """Return tokens as int64 [B, T] on the network's device.

    Raises:
        ConfigError: if they are no integers, not [B, T], or outside the vocabulary.
    """
    ids = torch.as_tensor(ids, device=weights.wte.device)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ConfigError(f"ids: expected integers, got {ids.dtype}; token ids are whole numbers.")
    if ids.dim() != 2 or not ids.numel():
        raise ConfigError(
            f"ids: expected [B, T] with at least one token, got the shape {tuple(ids.shape)};"
            " add a batch dimension with ids[None], and a begin token to an empty prompt."
        )
    low, high = (int(value) for value in ids.aminmax())
    size = weights.spec.vocab_size
    if low < 0 or high >= size:
        raise ConfigError(
            f"ids: expected tokens in [0, {size}), got {low if low < 0 else high}; was the text"
            " encoded with another tokenizer?"
        )
    return ids.long()


def check_length(weights: GPTWeights, past: int, new: int, what: str) -> None:
    """Raise ``ConfigError`` if ``past + new`` tokens are more than ``block_size``."""
    limit = weights.spec.block_size
    if past + new > limit:
        raise ConfigError(
            f"{what}: {past + new} tokens (padding included) do not fit block_size={limit}; cut"
            " the prompt, ask for fewer tokens, or build the network with a larger block_size."
        )


def check_mask(mask: Tensor | None, ids: Tensor) -> Tensor | None:
    """Return the mask as booleans [B, T]; None where every token is real.

    Raises:
        ConfigError: if its shape is not that of ``ids``, or a value is neither 0 nor 1.
    """
    if mask is None:
        return None
    mask = torch.as_tensor(mask, device=ids.device)
    if mask.shape != ids.shape:
        raise ConfigError(
            f"attention_mask: expected the shape of ids {tuple(ids.shape)} (with a cache, too: it"
            f" knows the tokens before), got {tuple(mask.shape)}."
        )
    real = mask == 1
    if not bool((real | (mask == 0)).all()):
        raise ConfigError("attention_mask: expected 1 for real tokens and 0 for padding only.")
    return None if bool(real.all()) else real


def check_positions(
    position_ids: Tensor | None, ids: Tensor, time: int, limit: int
) -> Tensor | None:
    """Return positions as int64 [1 or B, time]; None where none are given.

    Raises:
        ConfigError: if they are of another shape, no integers or outside [0, limit).
    """
    if position_ids is None:
        return None
    positions = torch.as_tensor(position_ids, device=ids.device)
    if positions.dim() == 1:
        positions = positions[None]
    if positions.shape not in ((1, time), (len(ids), time)) or positions.is_floating_point():
        raise ConfigError(
            f"position_ids: expected integers of the shape ({time},) or ({len(ids)}, {time}), got"
            f" {positions.dtype} of the shape {tuple(positions.shape)}."
        )
    if int(positions.min()) < 0 or int(positions.max()) >= limit:
        raise ConfigError(
            f"position_ids: expected values in [0, block_size={limit}), got"
            f" {int(positions.min())} to {int(positions.max())}."
        )
    return positions.long()


def check_cache(cache: KVCache, weights: GPTWeights, batch: int, time: int) -> None:
    """Raise ``ConfigError`` unless the cache is this network's and holds ``time`` more tokens."""
    spec, kv = weights.spec, cache.kv
    expected = (spec.n_layer, 2, batch, spec.n_head, cache.capacity, spec.head_dim)
    if tuple(kv.shape) != expected or kv.device != weights.wte.device:
        raise ConfigError(
            f"cache: expected one of the shape {expected} on {weights.wte.device}, got"
            f" {tuple(kv.shape)} on {kv.device}; make it with new_cache({batch}), after any edit."
        )
    if cache.length + time > cache.capacity:
        raise ConfigError(
            f"cache: {cache.length} + {time} tokens do not fit its capacity {cache.capacity};"
            " make a larger one with new_cache(batch_size, capacity)."
        )
    if torch.is_grad_enabled() and weights.wte.requires_grad:
        raise ConfigError("cache: it keeps no gradients; call the network under torch.no_grad().")


def new_cache(weights: GPTWeights, batch_size: int, capacity: int | None) -> KVCache:
    """Return an empty cache; ``capacity`` None is the network's ``block_size``."""
    limit = weights.spec.block_size
    room = limit if capacity is None else check_int("capacity", capacity)
    check_length(weights, 0, room, "capacity")
    return KVCache(weights, check_int("batch_size", batch_size), room)
