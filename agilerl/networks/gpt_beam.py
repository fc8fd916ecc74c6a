"""Beam search."""

from __future__ import annotations

import torch

from agilerl.networks.gpt_reader import Decoding, Reader, ends_of, is_end

Tensor = torch.Tensor


def beam_search(reader: Reader, how: Decoding) -> int:
    """Write into ``reader.out`` the likeliest texts that beams find; return the length reached.

    A text that ends (the last one allowed ends all) is rated by log-probability / length **
    length_penalty, lengths without the prompt.  A row is done when it has as many ended texts as
    beams, and its best beam is rated no better, at its present length, than the worst of those.
    """
    search = BeamSearch(reader, how)
    logits = reader.logits().repeat_interleave(how.num_beams, 0)
    search.spread()
    for length in range(search.prompt, search.total):
        if length > search.prompt:
            reader.read(reader.out[:, length - 1])
            logits = reader.logits()
        search.step(logits, length)
        if bool(search.done.all()):
            break
    return int(search.lengths.max())


class BeamSearch:
    """The beams of each row, and the best text that has ended.

    Args:
        reader: of the prompts.
        how: arguments of ``generate``.
    """

    def __init__(self, reader: Reader, how: Decoding) -> None:
        self.reader, self.how, self.best = reader, how, reader.out
        self.prompt, self.total = reader.cache.length, self.best.shape[1]
        batch, device = len(self.best), self.best.device
        self.end = ends_of(how, self.best)
        #: Of the beams, best first; at the start they are all the same, so only one counts.
        self.scores = torch.full((batch, how.num_beams), -torch.inf, device=device)
        self.scores[:, 0] = 0.0
        #: Of as many ended texts, and of the best of them.
        self.ended = torch.full_like(self.scores, -torch.inf)
        self.best_rating = torch.full((batch,), -torch.inf, device=device)
        self.lengths = torch.full((batch,), self.prompt, device=device)
        self.done = torch.zeros(batch, dtype=torch.bool, device=device)
        self.first = torch.arange(batch, device=device)[:, None] * how.num_beams

    def spread(self) -> None:
        """Make one row of each beam."""
        reader, beams = self.reader, self.how.num_beams
        reader.cache.repeat(beams)
        reader.out = self.best.repeat_interleave(beams, 0)
        if reader.places is not None and len(reader.places) > 1:
            reader.places = reader.places.repeat_interleave(beams, 0)

    def step(self, logits: Tensor, length: int) -> None:
        """Extend the beams of ``length`` tokens by one, given their logits [B * beams, V]."""
        beams, vocab = self.how.num_beams, logits.shape[1]
        totals = logits.log_softmax(-1).view(len(self.best), -1) + self.scores.repeat_interleave(
            vocab, 1
        )
        # enough candidates that every beam goes on even if all its best ones end the text
        width = min(beams * (1 + max(1, len(self.how.eos))), totals.shape[1])
        values, index = totals.topk(width)
        rows, tokens = self.first + index // vocab, index % vocab
        over = torch.full_like(tokens, length + 1 == self.total, dtype=torch.bool)
        if self.end is not None:
            over = over | is_end(tokens, self.end)
        weight = (length + 1 - self.prompt) ** self.how.length_penalty
        closed = ~over[:, :beams] | self.done[:, None]
        self._keep(
            (values[:, :beams] / weight).masked_fill(closed, -torch.inf), rows, tokens, length
        )
        self.scores, going = values.masked_fill(over, -torch.inf).topk(beams)
        chosen = rows.gather(1, going).flatten()
        self.reader.out = self.reader.out[chosen]
        self.reader.out[:, length] = tokens.gather(1, going).flatten()
        self.reader.cache.reorder(chosen, self.prompt)
        self.reader.dead = self.scores.flatten() == -torch.inf
        self.done = self.done | (self.ended[:, -1] >= self.scores[:, 0] / weight)

    def _keep(self, ratings: Tensor, rows: Tensor, tokens: Tensor, length: int) -> None:
        """Take note of the texts that end with this step, rated [B, beams]; -inf for the others."""
        self.ended = torch.cat([self.ended, ratings], 1).topk(ratings.shape[1])[0]
        top, at = ratings.max(1)
        better = (top > self.best_rating).nonzero()[:, 0]
        self.best_rating = torch.maximum(top, self.best_rating)
        at = at[:, None]
        self.best[better] = self.reader.out[rows.gather(1, at)[better, 0]]
        self.best[better, length] = tokens.gather(1, at)[better, 0]
        self.lengths[better] = length + 1
