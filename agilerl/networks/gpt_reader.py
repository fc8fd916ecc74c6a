"""What is asked of a GPT that writes, and the texts it is writing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from agilerl.errors import ConfigError, check_float, check_int
from agilerl.networks.gpt_blocks import GPTWeights, last_norm, run
from agilerl.networks.gpt_cache import KVCache, chunk_frame, step_frame
from agilerl.networks.gpt_input import check_length

Tensor = torch.Tensor
#: ``(ids [B, t], logits [B, V], hidden [B, E]) -> logits [B, V]``.
LogitsProcessor = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Decoding:
    """Checked arguments of ``generate``; see there."""

    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    eos: tuple[int, ...]
    pad: int
    num_beams: int
    length_penalty: float

    @property
    def draws(self) -> bool:
        """Whether a token is drawn (in place of the likeliest being taken)."""
        return self.temperature > 0 and self.num_beams == 1


def check_decoding(
    weights: GPTWeights,
    prompt: int,
    max_new_tokens: int,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    eos_token_id: int | list[int] | None,
    num_beams: int,
    length_penalty: float,
    pad_token_id: int | None,
) -> Decoding:
    """Return the arguments of ``generate``, checked.

    Raises:
        ConfigError: on one out of its range, or where the text would not fit ``block_size``.
    """
    size = weights.spec.vocab_size
    new = check_int("max_new_tokens", max_new_tokens, minimum=0)
    check_length(weights, 0, prompt, "idx")
    check_length(weights, prompt, new, "idx and max_new_tokens")
    ends = eos_token_id if isinstance(eos_token_id, list | tuple) else [eos_token_id]
    eos = tuple(check_token("eos_token_id", end, size) for end in ends if end is not None)
    pad = check_token("pad_token_id", 0 if pad_token_id is None else pad_token_id, size)
    how = Decoding(
        new,
        check_float("temperature", temperature, 0.0),
        None if top_k is None else min(check_int("top_k", top_k), size),
        None if top_p is None else check_float("top_p", top_p, 0.0, 1.0),
        eos,
        eos[0] if eos and pad_token_id is None else pad,
        check_int("num_beams", num_beams),
        check_float("length_penalty", length_penalty),
    )
    if how.num_beams > 1 and (temperature not in (0, 1) or top_k or top_p):
        raise ConfigError(
            "num_beams: beam search takes the likeliest text and draws nothing; leave temperature,"
            " top_k and top_p out, or use num_beams=1."
        )
    if how.num_beams > size:
        raise ConfigError(f"num_beams: {num_beams} are more than the {size} tokens there are.")
    return how


def check_token(field: str, value: object, size: int) -> int:
    """Return a token id; raise ``ConfigError`` if it is outside the vocabulary."""
    token = check_int(field, value, minimum=0)
    if token >= size:
        raise ConfigError(f"{field}: expected a token in [0, {size}), got {token}.")
    return token


def ends_of(how: Decoding, like: Tensor) -> Tensor | None:
    """Return the end tokens as a tensor, None where no token ends a text."""
    return torch.tensor(how.eos, device=like.device) if how.eos else None


def is_end(tokens: Tensor, end: Tensor) -> Tensor:
    """Return which of ``tokens`` end a text."""
    return tokens == end if len(end) == 1 else torch.isin(tokens, end)


class Reader:
    """Texts that are being written: their tokens, and what the network remembers of them.

    Args:
        weights: of the network.
        ids: prompts [B, T].
        mask: [B, T] or None, see ``gpt_cache.chunk_frame``.
        position_ids: [1 or B, T + new tokens] or None.
        how: arguments of ``generate``.
        processor: of the logits, or None.
        out: [B, T + new tokens], where the prompts stand already.
    """

    def __init__(
        self,
        weights: GPTWeights,
        ids: Tensor,
        mask: Tensor | None,
        position_ids: Tensor | None,
        how: Decoding,
        processor: LogitsProcessor | None,
        out: Tensor,
    ) -> None:
        self.weights, self.processor, self.out = weights, processor, out
        #: Rows that count for nothing (a beam of probability zero), whatever stands in them.
        self.dead: Tensor | None = None
        batch, time = ids.shape
        self.cache = KVCache(weights, batch, time + how.max_new_tokens)
        self.places = None if position_ids is None else F.embedding(position_ids, weights.wpe)
        first = None if position_ids is None else position_ids[:, :time]
        frame = chunk_frame(weights, (batch, time), mask, first, self.cache)
        x = run(weights, ids, frame)
        if mask is None:
            self._last = x[:, -1]
        else:
            # the last real token of each row, wherever its padding stands
            last = (mask * torch.arange(1, time + 1, device=ids.device)).argmax(1)
            self._last = x[torch.arange(batch, device=ids.device), last]

    def logits(self) -> Tensor:
        """Return the processed logits of the next token, [B, V]."""
        hidden = last_norm(self.weights, self._last)
        logits = F.linear(hidden, self.weights.wte).float()
        if self.processor is None:
            return logits
        written = self.out[:, : self.cache.length]
        logits = self.processor(written, logits, hidden).float()
        if self.dead is not None:
            logits = logits.masked_fill(self.dead[:, None], 0.0)
        if not bool((logits.amax(-1).isfinite()).all()):
            raise ConfigError(
                "logits_processor: expected at least one finite logit, and no NaN or inf, in every"
                " row; it forbids all tokens of a text, or its numbers overflow."
            )
        return logits

    def read(self, tokens: Tensor) -> None:
        """Read one more token of each text, [B]."""
        length = self.cache.length
        places = None if self.places is None else self.places[:, length : length + 1]
        frame = step_frame(self.weights, self.cache, places)
        self._last = run(self.weights, tokens[:, None], frame)[:, 0]
