"""Where tokens stand, which tokens see which, and the memory of decoding."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from agilerl.networks.gpt_blocks import Frame, GPTWeights

Tensor = torch.Tensor


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

    def remember(self, mask: Tensor) -> None:
        """Take note of the mask [B, T] of tokens that come next; ``read`` counts them."""
        if self.mask is None:
            self.mask = self.kv.new_zeros(self.batch_size, 1, 1, self.capacity)
            self.counts = mask.new_full((self.batch_size, 1), self.length, dtype=torch.long)
        assert self.counts is not None
        new = self.mask.narrow(3, self.length, mask.shape[1])
        new.masked_fill_(~mask[:, None, None], -torch.inf)
        self.counts = self.counts + mask.sum(1, keepdim=True)

    def repeat(self, times: int) -> None:
        """Put ``times`` copies of each row in its place, one after the other."""
        self.kv = self.kv.repeat_interleave(times, dim=2)
        if self.mask is not None and self.counts is not None:
            self.mask = self.mask.repeat_interleave(times, dim=0)
            self.counts = self.counts.repeat_interleave(times, dim=0)

    def reorder(self, rows: Tensor, since: int) -> None:
        """Continue row i from row ``rows[i]``; they agree on all tokens before ``since``."""
        part = self.kv.narrow(4, since, self.length - since)
        part.copy_(part.index_select(2, rows))


def step_frame(weights: GPTWeights, cache: KVCache, places: Tensor | None = None) -> Frame:
    """Return the frame of one more real token in every row; the cache counts it.

    Args:
        weights: of the network.
        cache: to append to.
        places: position embeddings [1 or B, 1, E]; None takes the next ones.
    """
    length = cache.length
    mask = cache.mask
    if places is None:
        places = (
            weights.wpe.narrow(0, length, 1)
            if cache.counts is None
            else F.embedding(cache.counts, weights.wpe)
        )
    if cache.counts is not None:
        cache.counts = cache.counts + 1
    writes, reads = cache.views(1)
    cache.length = length + 1
    return Frame(
        places, None if mask is None else mask.narrow(3, 0, length + 1), False, writes, reads
    )


def chunk_frame(
    weights: GPTWeights,
    shape: tuple[int, int],
    mask: Tensor | None,
    position_ids: Tensor | None,
    cache: KVCache | None,
) -> Frame:
    """Return the frame of tokens [B, T], behind those of the cache, which counts them.

    Args:
        weights: of the network.
        shape: (B, T).
        mask: [B, T], True for the real ones of the new tokens; None if all are.
        position_ids: [1 or B, T], or None to count the real tokens of each row.
        cache: what was read before; None for nothing.
    """
    time = shape[1]
    past = cache.length if cache is not None else 0
    places = _places(weights, past, time, mask, position_ids, cache)
    if cache is None:
        return Frame(places, *_visible(time, 0, mask, None, weights.wte))
    writes, reads = cache.views(time)
    if mask is not None:
        cache.remember(mask)
    elif cache.counts is not None:
        cache.counts = cache.counts + time
    seen = _visible(time, past, mask, cache.mask, weights.wte)
    cache.length = past + time
    return Frame(places, *seen, writes, reads)


def _places(
    weights: GPTWeights,
    past: int,
    time: int,
    mask: Tensor | None,
    position_ids: Tensor | None,
    cache: KVCache | None,
) -> Tensor:
    counts = cache.counts if cache is not None else None
    if position_ids is not None:
        return F.embedding(position_ids, weights.wpe)
    if mask is None and counts is None:
        return weights.wpe.narrow(0, past, time)
    if mask is None:
        mask = torch.ones(1, time, dtype=torch.bool, device=weights.wpe.device)
    # padding takes the position of the token before it (0 in front); nobody reads it
    places = (mask.cumsum(1) - 1).clamp_min(0) + (past if counts is None else counts)
    return F.embedding(places.clamp_max(len(weights.wpe) - 1), weights.wpe)


def _visible(
    time: int, past: int, mask: Tensor | None, padding: Tensor | None, like: Tensor
) -> tuple[Tensor | None, bool]:
    """Return the additive mask and whether attention is plainly causal; see ``Frame``.

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
