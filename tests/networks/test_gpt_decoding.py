"""EvolvableGPT.generate: greedy and drawn texts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from agilerl.errors import ConfigError
from agilerl.networks.evolvable_gpt import EvolvableGPT
from agilerl.networks.gpt_decoding import DecodingOptions, filter_logits, next_tokens
from tests.networks.gpt import WRITER_VOCAB, prompts, writer


def greedily(net: EvolvableGPT, ids: torch.Tensor, new: int) -> torch.Tensor:
    """Return greedy texts by full passes, without a cache."""
    for _ in range(new):
        ids = torch.cat([ids, net(ids)[:, -1:].argmax(-1)], dim=1)
    return ids


# -------------------------------------------------------------------------------------- greedy


def test_greedy_texts_are_those_of_full_passes() -> None:
    net, ids = writer(), prompts(4, 5)
    texts = net.generate(ids, 15, temperature=0)
    assert texts.shape == (4, 20)
    assert torch.equal(texts, greedily(net, ids, 15))
    assert torch.equal(net.generate(ids, 15, top_k=1), texts)
    assert torch.equal(net.generate(ids, 15, top_p=0.0), texts)
    assert torch.equal(net.generate(ids, 0), ids)


@pytest.mark.parametrize("left", [True, False])
def test_padding_on_either_side_leaves_the_text_as_it_is(left: bool) -> None:
    net, ids = writer(), prompts(3, 8)
    lengths = (8, 5, 1)
    mask = torch.zeros(3, 8)
    for row, length in enumerate(lengths):
        mask[row, 8 - length :] = 1 if left else 0
        if not left:
            mask[row, :length] = 1
    texts = net.generate(ids, 9, temperature=0, attention_mask=mask)
    beams = net.generate(ids, 6, num_beams=3, attention_mask=mask)
    assert torch.equal(texts[:, :8], ids)
    for row in range(3):
        alone = ids[row][mask[row].bool()][None]
        new = net.generate(alone, 9, temperature=0)[0, alone.shape[1] :]
        assert torch.equal(texts[row, 8:], new)
        best = net.generate(alone, 6, num_beams=3)[0, alone.shape[1] :]
        assert torch.equal(beams[row, 8:], best)


def test_a_text_ends_at_its_end_token_and_the_batch_at_the_last_of_them() -> None:
    net, ids = writer(), prompts(6, 4)
    free = net.generate(ids, 16, temperature=0)
    found = {}
    for end in range(WRITER_VOCAB):
        positions = [(row[4:] == end).nonzero()[:, 0] for row in free]
        firsts = [int(p[0]) if len(p) else 15 for p in positions]
        if len(set(firsts)) > 2:
            found[end] = firsts
    assert found
    for end, firsts in found.items():
        texts = net.generate(ids, 16, temperature=0, eos_token_id=end, pad_token_id=2)
        assert texts.shape[1] == 4 + max(firsts) + 1
        for row, first in enumerate(firsts):
            assert torch.equal(texts[row, : 5 + first], free[row, : 5 + first])
            assert (texts[row, 5 + first :] == 2).all()
    several = net.generate(ids, 16, temperature=0, eos_token_id=list(range(WRITER_VOCAB)))
    assert several.shape[1] == 5


def test_given_positions_reach_the_new_tokens() -> None:
    net, ids = writer(), prompts(2, 4)
    counted = net.generate(ids, 6, temperature=0)
    assert torch.equal(net.generate(ids, 6, 0, position_ids=torch.arange(10)), counted)
    turned = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    texts = net.generate(ids, 6, temperature=0, position_ids=turned)
    for t in range(4, 10):
        logits = net(texts[:, :t], position_ids=turned[:t])
        assert torch.equal(logits[:, -1].argmax(-1), texts[:, t])
    assert not torch.equal(texts, counted)
    own_rows = turned.repeat(2, 1)
    beams = net.generate(ids, 6, num_beams=2, position_ids=own_rows)
    assert torch.equal(beams, net.generate(ids, 6, num_beams=2, position_ids=turned))


# --------------------------------------------------------------------------------------- drawn


def test_drawn_tokens_have_the_probabilities_of_the_logits() -> None:
    net, ids = writer(), prompts(1, 5)
    draws = 6_000
    for temperature, top_k, top_p in ((1.0, None, None), (0.7, 4, None), (1.5, None, 0.8)):
        texts = net.generate(ids.expand(draws, -1), 1, temperature, top_k, top_p, seed=0)
        logits = net(ids)[0, -1].detach() / temperature
        kept = torch.zeros(WRITER_VOCAB, dtype=torch.bool)
        order = logits.argsort(descending=True)
        if top_p is not None:
            ahead = logits.softmax(0)[order].cumsum(0) - logits.softmax(0)[order]
            order = order[ahead < top_p]
        kept[order[:top_k]] = True
        expected = logits.masked_fill(~kept, -torch.inf).softmax(0)
        share = torch.bincount(texts[:, -1], minlength=WRITER_VOCAB) / draws
        assert (share[~kept] == 0).all()
        error = (expected * (1 - expected) / draws).sqrt()
        assert ((share - expected).abs() <= 4.5 * error + 1e-9).all()


def test_a_seed_repeats_a_text_and_draws_on_nothing_else() -> None:
    net, ids = writer(), prompts(3, 5)
    state = net.rng.bit_generator.state
    first = net.generate(ids, 10, seed=4)
    assert torch.equal(net.generate(ids, 10, seed=4), first)
    assert not torch.equal(net.generate(ids, 10, seed=5), first)
    given = [net.generate(ids, 10, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*given)
    net.generate(ids, 10, temperature=0)
    net.generate(ids, 4, num_beams=2)
    assert net.rng.bit_generator.state == state


def test_without_a_seed_the_network_draws_on_its_own_stream() -> None:
    net, other, ids = writer(), writer(), prompts(3, 5)
    first, second = net.generate(ids, 10), net.generate(ids, 10)
    assert not torch.equal(first, second)
    assert torch.equal(other.generate(ids, 10), first)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_stays(training: bool) -> None:
    net, ids = writer(dropout=0.5).train(training), prompts(3, 5)
    texts = net.generate(ids, 10, temperature=0)
    assert net.training is training
    assert net.layers.training is training
    assert torch.equal(texts, greedily(net.eval(), ids, 10))


def test_the_caller_can_train_on_what_was_written() -> None:
    net, ids = writer(), prompts(3, 5)
    for texts in (net.generate(ids, 5, seed=0), net.generate(ids, 5, num_beams=2)):
        net(texts).logsumexp(-1).sum().backward()
        assert net.layers["wte"].weight.grad is not None


def test_a_forbidden_token_is_never_drawn_at_the_edges_of_the_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 1.0, -torch.inf]])
    options = DecodingOptions(5, 1)
    for edge, token in ((0.0, 1), (0.5, 3), (1 - 2**-24, 3)):
        monkeypatch.setattr(torch, "rand", lambda *shape, edge=edge, **_: torch.full(shape, edge))
        assert next_tokens(logits, options, torch.Generator()).tolist() == [token]


# ----------------------------------------------------------------------------------- processor


def test_a_processor_sees_texts_logits_and_hidden_states() -> None:
    net, ids = writer(), prompts(3, 5)
    seen: list[int] = []

    def forbid_last(
        written: torch.Tensor, logits: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        seen.append(written.shape[1])
        full = net.hidden(written)[:, -1]
        torch.testing.assert_close(hidden, full, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net.head(hidden), logits)
        return logits.scatter(1, written[:, -1:], -torch.inf)

    texts = net.generate(ids, 8, temperature=0, logits_processor=forbid_last)
    assert seen == list(range(5, 13))
    assert (texts[:, 5:] != texts[:, 4:-1]).all()
    drawn = net.generate(ids, 8, temperature=5.0, logits_processor=forbid_last, seed=0)
    assert (drawn[:, 5:] != drawn[:, 4:-1]).all()
    beams = net.generate(ids, 8, num_beams=3, logits_processor=forbid_last)
    assert (beams[:, 5:] != beams[:, 4:-1]).all()


@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan])
def test_a_processor_that_leaves_no_token_is_named(value: float) -> None:
    with pytest.raises(ConfigError, match="logits_processor"):
        writer().generate(
            prompts(2, 3), 2, logits_processor=lambda ids, logits, hidden: logits * 0 + value
        )


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 21}, "block_size=24"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"eos_token_id": WRITER_VOCAB}, "eos_token_id"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": WRITER_VOCAB + 1}, "num_beams"),
        ({"num_beams": 2, "temperature": 0.5}, "draws nothing"),
        ({"num_beams": 2, "top_k": 3}, "draws nothing"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])}, "no real token"),
        ({"position_ids": torch.arange(4)}, "position_ids"),
        ({"seed": -3}, "seed"),
        ({"seed": 3, "generator": torch.Generator()}, "seed"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        writer().generate(prompts(2, 4), **{"max_new_tokens": 3, **arguments})


def test_a_prompt_that_is_too_long_or_foreign_is_named() -> None:
    with pytest.raises(ConfigError, match="idx: 25 tokens"):
        writer().generate(prompts(1, 25), 1)
    with pytest.raises(ConfigError, match=r"\[0, 13\), got 13"):
        writer().generate(torch.tensor([[13]]), 1)


def test_candidates_are_the_likeliest_tokens() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    kept, order = filter_logits(logits, None, 0.6)
    assert order is not None
    assert order.tolist() == [[1, 3, 2, 0]]
    assert kept.isfinite().tolist() == [[True, True, False, False]]
    kept, order = filter_logits(logits, 3, None)
    assert order is not None
    assert order.tolist() == [[1, 3, 2]]
    assert filter_logits(logits, None, None)[1] is None


# ------------------------------------------------------------------------------------ beam search


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
