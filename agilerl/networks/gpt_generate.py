"""How a GPT writes: greedily, by drawing, or by beam search."""

from __future__ import annotations

import torch

from agilerl.errors import ConfigError
from agilerl.networks.gpt_beam import beam_search
from agilerl.networks.gpt_blocks import GPTWeights
from agilerl.networks.gpt_reader import Decoding, LogitsProcessor, Reader, ends_of, is_end

Tensor = torch.Tensor


def generate(
    weights: GPTWeights,
    ids: Tensor,
    mask: Tensor | None,
    position_ids: Tensor | None,
    how: Decoding,
    processor: LogitsProcessor | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Return prompts and continuations; arguments checked, see ``EvolvableGPT.generate``."""
    if mask is not None and not bool(mask.any(1).all()):
        raise ConfigError(
            "attention_mask: a row has no real token; give an empty prompt a begin token."
        )
    time = ids.shape[1]
    # made outside of inference mode: the caller may train on it
    out = ids.new_full((len(ids), time + how.max_new_tokens), how.pad)
    out[:, :time] = ids
    if not how.max_new_tokens:
        return out
    with torch.inference_mode():
        reader = Reader(weights, ids, mask, position_ids, how, processor, out)
        searched = how.num_beams > 1
        length = beam_search(reader, how) if searched else write(reader, how, generator)
    return out if length == out.shape[1] else out[:, :length].clone()


def write(reader: Reader, how: Decoding, generator: torch.Generator | None) -> int:
    """Take or draw one token after the other into ``reader.out``; return the length reached."""
    out, prompt = reader.out, reader.cache.length
    end = ends_of(how, out)
    over = torch.zeros(len(out), dtype=torch.bool, device=out.device)
    for length in range(prompt, out.shape[1]):
        if length > prompt:
            reader.read(out[:, length - 1])
        tokens = choose(reader.logits(), how, generator)
        if end is not None:
            tokens = tokens.masked_fill(over, how.pad)
            over = over | is_end(tokens, end)
        out[:, length] = tokens
        if end is not None and bool(over.all()):
            return length + 1
    return out.shape[1]


def choose(logits: Tensor, how: Decoding, generator: torch.Generator | None) -> Tensor:
    """Return the next token of each row [B] of logits [B, V]."""
    if not how.draws:
        return logits.argmax(-1)
    logits, tokens = candidates(logits / how.temperature, how.top_k, how.top_p)
    assert generator is not None
    cumulated = logits.softmax(-1).cumsum(-1)
    uniform = torch.rand(len(logits), 1, generator=generator, device=generator.device)
    # the first entry that lies above the draw, so none of probability zero
    drawn = torch.searchsorted(cumulated, uniform.to(logits.device) * cumulated[:, -1:], right=True)
    return (drawn if tokens is None else tokens.gather(1, drawn))[:, 0]


def candidates(
    logits: Tensor, top_k: int | None, top_p: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return the logits that stay in the draw, and their tokens (None: in order, all of them)."""
    tokens: Tensor | None = None
    if top_k is not None:
        logits, tokens = logits.topk(top_k)
    if top_p is not None:
        if tokens is None:
            logits, tokens = logits.sort(descending=True)
        probabilities = logits.softmax(-1)
        likelier = probabilities.cumsum(-1) - probabilities
        beyond = likelier >= top_p
        beyond[:, 0] = False
        logits = logits.masked_fill(beyond, -torch.inf)
    return logits, tokens
