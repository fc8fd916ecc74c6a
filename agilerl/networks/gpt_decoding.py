"""How a GPT writes: greedily, by sampling, or by beam search, with a key-value cache.

Shapes: B rows, t tokens so far, V the vocabulary, E the width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from agilerl.errors import ConfigError, check_float, check_int
from agilerl.networks.gpt import GPTWeights, KVCache, last_norm, pass_context, run

Tensor = torch.Tensor
#: ``(ids [B, t], logits [B, V], hidden [B, E]) -> logits [B, V]``.
LogitsProcessor = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DecodingOptions:
    """Arguments of ``EvolvableGPT.generate``, see there; they are checked here.

    Raises:
        ConfigError: on one out of its range.
    """

    vocab_size: int
    max_new_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    eos_token_id: int | Sequence[int] | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    pad_token_id: int | None = None
    #: End tokens and the one that fills up, of ``eos_token_id`` and ``pad_token_id``.
    eos: tuple[int, ...] = field(init=False)
    pad: int = field(init=False)

    def __post_init__(self) -> None:
        """Put the checked values into the fields."""
        given, size = self.eos_token_id, self.vocab_size
        ends = given if isinstance(given, list | tuple) else [given]
        eos = tuple(check_token("eos_token_id", end, size) for end in ends if end is not None)
        pad = self.pad_token_id
        checked = {
            "max_new_tokens": check_int("max_new_tokens", self.max_new_tokens, minimum=0),
            "temperature": check_float("temperature", self.temperature, 0.0),
            "top_k": None if self.top_k is None else min(check_int("top_k", self.top_k), size),
            "top_p": None if self.top_p is None else check_float("top_p", self.top_p, 0.0, 1.0),
            "num_beams": check_int("num_beams", self.num_beams),
            "length_penalty": check_float("length_penalty", self.length_penalty),
            "eos": eos,
            "pad": next(iter(eos), 0) if pad is None else check_token("pad_token_id", pad, size),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.num_beams > 1 and (self.temperature not in (0, 1) or self.top_k or self.top_p):
            raise ConfigError(
                "num_beams: beam search takes the likeliest sequence and draws nothing; leave"
                " temperature, top_k and top_p out, or use num_beams=1."
            )
        if self.num_beams > size:
            raise ConfigError(
                f"num_beams: {self.num_beams} are more than the {size} tokens there are."
            )

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn (otherwise the likeliest are taken)."""
        return self.temperature > 0 and self.num_beams == 1

    def ends(self, tokens: Tensor) -> Tensor | None:
        """Return which of ``tokens`` end a sequence; None where no token does."""
        if not self.eos:
            return None
        if len(self.eos) == 1:
            return tokens == self.eos[0]
        return torch.isin(tokens, torch.tensor(self.eos, device=tokens.device))


def check_token(field: str, value: object, size: int) -> int:
    """Return a token id; raise ``ConfigError`` if it is outside the vocabulary."""
    token = check_int(field, value, minimum=0)
    if token >= size:
        raise ConfigError(f"{field}: expected a token in [0, {size}), got {token}.")
    return token


class DecodingState:
    """Sequences that are being written: their tokens, and what the network remembers of them.

    Args:
        weights: of the network.
        ids: prompts [B, T].
        mask: [B, T] or None, see ``gpt.pass_context``.
        position_ids: [1 or B, T + new tokens] or None.
        options: arguments of ``generate``.
        processor: of the logits, or None.
        out: [B, T + new tokens], which begins with the prompts.
    """

    def __init__(
        self,
        weights: GPTWeights,
        ids: Tensor,
        mask: Tensor | None,
        position_ids: Tensor | None,
        options: DecodingOptions,
        processor: LogitsProcessor | None,
        out: Tensor,
    ) -> None:
        self.weights, self.processor, self.out = weights, processor, out
        self.position_ids = position_ids
        #: Rows that count for nothing (a beam of probability zero), whatever their tokens.
        self.dead: Tensor | None = None
        batch, time = ids.shape
        self.cache = KVCache(weights, batch, time + options.max_new_tokens)
        x = self._run(ids, mask)
        if mask is None:
            self._last = x[:, -1]
        else:
            # the last real token of each row, wherever its padding stands
            last = (mask * torch.arange(1, time + 1, device=ids.device)).argmax(1)
            self._last = x[torch.arange(batch, device=ids.device), last]

    def _run(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read the next tokens [B, T]; return the residual stream behind them [B, T, E]."""
        batch, time = ids.shape
        positions = self.position_ids
        if positions is not None:
            positions = positions[:, self.cache.length : self.cache.length + time]
        context = pass_context(self.weights, (batch, time), mask, positions, self.cache)
        return run(self.weights, ids, context)

    def read(self, tokens: Tensor) -> None:
        """Read one more token of each sequence, [B]."""
        self._last = self._run(tokens[:, None])[:, 0]

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
                " row; it forbids all tokens of a sequence, or its numbers overflow."
            )
        return logits

    def repeat(self, times: int) -> None:
        """Replace each row by ``times`` copies of it, one after the other."""
        self.cache.repeat(times)
        self.out = self.out.repeat_interleave(times, 0)
        if self.position_ids is not None and len(self.position_ids) > 1:
            self.position_ids = self.position_ids.repeat_interleave(times, 0)


# ------------------------------------------------------------------------------ greedy and sampling


def generate(
    weights: GPTWeights,
    ids: Tensor,
    mask: Tensor | None,
    position_ids: Tensor | None,
    options: DecodingOptions,
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
    out = ids.new_full((len(ids), time + options.max_new_tokens), options.pad)
    out[:, :time] = ids
    if not options.max_new_tokens:
        return out
    with torch.inference_mode():
        state = DecodingState(weights, ids, mask, position_ids, options, processor, out)
        if options.num_beams > 1:
            length = beam_search(state, options)
        else:
            length = sample(state, options, generator)
    return out if length == out.shape[1] else out[:, :length].clone()


def sample(
    state: DecodingState, options: DecodingOptions, generator: torch.Generator | None
) -> int:
    """Take or draw one token after the other into ``state.out``; return the length reached."""
    out, prompt = state.out, state.cache.length
    finished = torch.zeros(len(out), dtype=torch.bool, device=out.device)
    for length in range(prompt, out.shape[1]):
        if length > prompt:
            state.read(out[:, length - 1])
        tokens = next_tokens(state.logits(), options, generator)
        ends = options.ends(tokens)
        if ends is not None:
            tokens = tokens.masked_fill(finished, options.pad)
            finished = finished | ends
        out[:, length] = tokens
        if ends is not None and bool(finished.all()):
            return length + 1
    return out.shape[1]


def next_tokens(
    logits: Tensor, options: DecodingOptions, generator: torch.Generator | None
) -> Tensor:
    """Return the next token of each row [B] of logits [B, V]."""
    if not options.draws:
        return logits.argmax(-1)
    logits, tokens = filter_logits(logits / options.temperature, options.top_k, options.top_p)
    assert generator is not None
    cumulated = logits.softmax(-1).cumsum(-1)
    uniform = torch.rand(len(logits), 1, generator=generator, device=generator.device)
    # the first entry that lies above the draw, so none of probability zero
    drawn = torch.searchsorted(cumulated, uniform.to(logits.device) * cumulated[:, -1:], right=True)
    return (drawn if tokens is None else tokens.gather(1, drawn))[:, 0]


def filter_logits(
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


# ------------------------------------------------------------------------------------- beam search


def beam_search(state: DecodingState, options: DecodingOptions) -> int:
    """Write into ``state.out`` the likeliest sequences that beams find; return the length reached.

    A sequence that ends (the last one allowed ends all) is rated by log-probability / length **
    length_penalty, lengths without the prompt.  A row is done when it has as many ended sequences
    as beams, and its best beam is rated no better, at its present length, than the worst of those.
    """
    search = BeamSearch(state, options)
    logits = state.logits().repeat_interleave(options.num_beams, 0)
    state.repeat(options.num_beams)
    for length in range(search.prompt, search.total):
        if length > search.prompt:
            state.read(state.out[:, length - 1])
            logits = state.logits()
        search.step(logits, length)
        if bool(search.done.all()):
            break
    return int(search.lengths.max())


class BeamSearch:
    """The beams of each row, and the best sequence that has ended.

    Args:
        state: the prompts, one row each.
        options: arguments of ``generate``.
    """

    def __init__(self, state: DecodingState, options: DecodingOptions) -> None:
        self.state, self.options, self.best = state, options, state.out
        self.prompt, self.total = state.cache.length, self.best.shape[1]
        batch, device = len(self.best), self.best.device
        #: Of the beams, best first; at the start they are all the same, so only one counts.
        self.scores = torch.full((batch, options.num_beams), -torch.inf, device=device)
        self.scores[:, 0] = 0.0
        #: Of as many ended sequences, and of the best of them.
        self.ended_ratings = torch.full_like(self.scores, -torch.inf)
        self.best_rating = torch.full((batch,), -torch.inf, device=device)
        self.lengths = torch.full((batch,), self.prompt, device=device)
        self.done = torch.zeros(batch, dtype=torch.bool, device=device)
        self.first = torch.arange(batch, device=device)[:, None] * options.num_beams

    def step(self, logits: Tensor, length: int) -> None:
        """Extend the beams of ``length`` tokens by one, given their logits [B * beams, V]."""
        beams, vocab = self.options.num_beams, logits.shape[1]
        totals = logits.log_softmax(-1).view(len(self.best), -1) + self.scores.repeat_interleave(
            vocab, 1
        )
        # enough candidates that every beam goes on even if all its best ones end the sequence
        width = min(beams * (1 + max(1, len(self.options.eos))), totals.shape[1])
        values, index = totals.topk(width)
        rows, tokens = self.first + index // vocab, index % vocab
        ended = torch.full_like(tokens, length + 1 == self.total, dtype=torch.bool)
        ends = self.options.ends(tokens)
        if ends is not None:
            ended = ended | ends
        weight = (length + 1 - self.prompt) ** self.options.length_penalty
        closed = ~ended[:, :beams] | self.done[:, None]
        self._record(
            (values[:, :beams] / weight).masked_fill(closed, -torch.inf), rows, tokens, length
        )
        self.scores, alive = values.masked_fill(ended, -torch.inf).topk(beams)
        chosen = rows.gather(1, alive).flatten()
        self.state.out = self.state.out[chosen]
        self.state.out[:, length] = tokens.gather(1, alive).flatten()
        self.state.cache.reorder(chosen, self.prompt)
        self.state.dead = self.scores.flatten() == -torch.inf
        self.done = self.done | (self.ended_ratings[:, -1] >= self.scores[:, 0] / weight)

    def _record(self, ratings: Tensor, rows: Tensor, tokens: Tensor, length: int) -> None:
        """Record the sequences that end with this step, rated [B, beams]; -inf for the others."""
        self.ended_ratings = torch.cat([self.ended_ratings, ratings], 1).topk(ratings.shape[1])[0]
        top, at = ratings.max(1)
        better = (top > self.best_rating).nonzero()[:, 0]
        self.best_rating = torch.maximum(top, self.best_rating)
        at = at[:, None]
        self.best[better] = self.state.out[rows.gather(1, at)[better, 0]]
        self.best[better, length] = tokens.gather(1, at)[better, 0]
        self.lengths[better] = length + 1
