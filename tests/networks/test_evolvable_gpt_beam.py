"""EvolvableGPT.generate: beam search; also compared in ``test_evolvable_gpt_huggingface``."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from agilerl.errors import ConfigError
from agilerl.networks.evolvable_gpt import EvolvableGPT
from tests.networks.gpt import WRITER_VOCAB, prompts, writer


def log_probability(net: EvolvableGPT, text: torch.Tensor, prompt: int) -> float:
    logp = net(text[None])[0].log_softmax(-1)
    return float(sum(logp[t - 1, text[t]] for t in range(prompt, len(text))).detach())


@pytest.mark.parametrize("end", [None, 2])
@pytest.mark.parametrize("length_penalty", [2.0, 0.0, -1.0])
def test_as_many_beams_as_tokens_find_the_best_text_of_two(
    length_penalty: float, end: int | None
) -> None:
    net, ids = writer(4), prompts(5, 3, 4)
    texts = net.generate(
        ids, 2, num_beams=4, eos_token_id=end, length_penalty=length_penalty, pad_token_id=0
    )
    for row in range(5):
        rated = {}
        for added in [(end,)] * (end is not None) + list(itertools.product(range(4), repeat=2)):
            if len(added) == 2 and added[0] == end:
                continue
            logp = log_probability(net, torch.cat([ids[row], torch.tensor(added)]), 3)
            rated[added] = logp / len(added) ** length_penalty
        best = max(rated, key=rated.__getitem__)
        padding = [0] * (texts.shape[1] - 3 - len(best))
        assert texts[row, 3:].tolist() == [*best, *padding]


def test_a_beam_that_ends_makes_room_for_the_next_best() -> None:
    end, vague, sure, rest = 0, 1, 2, 3
    table = torch.full((WRITER_VOCAB, WRITER_VOCAB), -torch.inf)
    table[rest, [end, vague, sure]] = torch.tensor([0.5, 0.3, 0.2]).log()
    table[[vague, *range(4, WRITER_VOCAB)], 4:] = 0.0
    table[sure, sure] = 0.0

    def by_table(ids: torch.Tensor, logits: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return table[ids[:, -1]]

    texts = writer().generate(
        torch.tensor([[rest]]),
        3,
        num_beams=2,
        eos_token_id=end,
        length_penalty=3.0,
        logits_processor=by_table,
    )
    assert texts.tolist() == [[rest, sure, sure, sure]]


def test_beams_that_find_no_allowed_token_do_no_harm() -> None:
    table = torch.full((WRITER_VOCAB, WRITER_VOCAB), -torch.inf)
    for token in range(4):
        table[token, token + 1] = 0.0

    def by_table(ids: torch.Tensor, logits: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return table[ids[:, -1]]

    start = torch.tensor([[0], [1]])
    texts = writer().generate(start, 3, num_beams=3, logits_processor=by_table)
    assert texts.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    with pytest.raises(ConfigError, match="logits_processor"):
        writer().generate(start, 4, num_beams=3, logits_processor=by_table)


def test_a_row_is_searched_as_if_it_were_alone() -> None:
    net, ids = writer(), prompts(12, 3)
    how: dict[str, Any] = {"num_beams": 2, "eos_token_id": [6, 7, 9], "length_penalty": 3.0}
    together = net.generate(ids, 16, pad_token_id=1, **how)
    lengths = set()
    for row in range(12):
        alone = net.generate(ids[row : row + 1], 16, pad_token_id=1, **how)[0]
        lengths.add(len(alone))
        assert torch.equal(together[row, : len(alone)], alone)
        assert (together[row, len(alone) :] == 1).all()
    assert len(lengths) > 1


def test_one_more_beam_than_one_is_rated_at_least_as_high_as_greedy() -> None:
    net, ids = writer(), prompts(8, 4)
    greedy = net.generate(ids, 8, temperature=0)
    beams = net.generate(ids, 8, num_beams=4)
    gains = [
        log_probability(net, beams[i], 4) - log_probability(net, greedy[i], 4) for i in range(8)
    ]
    assert max(gains) > 0.01
    assert sum(gains) > 0


def test_a_short_text_wins_where_long_ones_are_punished() -> None:
    net, ids = writer(), prompts(6, 4)
    short = net.generate(ids, 12, num_beams=3, eos_token_id=[7, 8], length_penalty=-3.0)
    long = net.generate(ids, 12, num_beams=3, eos_token_id=[7, 8], length_penalty=3.0)

    def lengths(texts: torch.Tensor) -> list[int]:
        ends = torch.isin(texts[:, 4:], torch.tensor([7, 8]))
        return [int(e.nonzero()[0]) + 1 if e.any() else 12 for e in ends]

    assert sum(lengths(short)) < sum(lengths(long))
