"""EvolvableGPT and Hugging Face's GPT-2 are one function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agilerl.networks import gpt_huggingface
from agilerl.networks.evolvable_gpt import EvolvableGPT

VOCAB = 61


@pytest.fixture
def net(saved_gpt2: Path) -> EvolvableGPT:
    return EvolvableGPT.from_pretrained(saved_gpt2, seed=0)


def tokens(batch: int = 4, time: int = 16) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, time), generator=torch.Generator().manual_seed(1))


def padding(left: bool) -> torch.Tensor:
    mask = torch.ones(4, 16, dtype=torch.long)
    for row, count in enumerate((0, 4, 9, 15)):
        mask[row, slice(0, count) if left else slice(16 - count, 16)] = 0
    return mask


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ------------------------------------------------------------------------------------ the same


@torch.no_grad()
def test_logits_are_equal(net: EvolvableGPT, hf_gpt2: Any) -> None:
    ids = tokens()
    assert (net(ids) - hf_gpt2(ids).logits).abs().max() <= 1e-5
    assert net.spec.n_layer == net.spec.min_layers == 3
    assert net.spec.layer_norm_eps == 1e-4
    assert not net.training


@torch.no_grad()
@pytest.mark.parametrize("left", [True, False])
def test_logits_are_equal_with_padding_also_from_a_cache(
    net: EvolvableGPT, hf_gpt2: Any, left: bool
) -> None:
    ids, mask = tokens(), padding(left)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = hf_gpt2(ids, attention_mask=mask, position_ids=positions).logits
    real = mask.bool()
    assert (net(ids, mask) - expected)[real].abs().max() <= 1e-5
    cache = net.new_cache(4)
    parts = [net(i, m, cache=cache) for i, m in zip(ids.split(5, 1), mask.split(5, 1), strict=True)]
    assert (torch.cat(parts, 1) - expected)[real].abs().max() <= 1e-5


@torch.no_grad()
def test_greedy_texts_are_equal_with_left_padding(net: EvolvableGPT, hf_gpt2: Any) -> None:
    ids, mask = tokens(), padding(left=True)
    for end in (None, 7, [3, 7, 11, 20, 40]):
        expected = hf_gpt2.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=20,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=end,
        )
        ours = net.generate(ids, 20, 0, attention_mask=mask, eos_token_id=end, pad_token_id=0)
        assert torch.equal(ours, expected)


@torch.no_grad()
@pytest.mark.parametrize("length_penalty", [1.0, -2.0, 0.0])
@pytest.mark.parametrize("beams", [2, 5])
def test_beam_search_finds_the_same_texts(
    net: EvolvableGPT, hf_gpt2: Any, beams: int, length_penalty: float
) -> None:
    ids, mask = tokens(), padding(left=True)
    lengths = set()
    for end in (None, 7, [3, 7, 11, 20, 40], list(range(20))):
        expected = hf_gpt2.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=12,
            num_beams=beams,
            do_sample=False,
            pad_token_id=1,
            eos_token_id=end,
            length_penalty=length_penalty,
        )
        ours = net.generate(
            ids,
            12,
            num_beams=beams,
            attention_mask=mask,
            eos_token_id=end,
            pad_token_id=1,
            length_penalty=length_penalty,
        )
        assert torch.equal(ours, expected)
        lengths.add(ours.shape[1])
    assert len(lengths) > 1 or length_penalty > 0  # some searches ended before the limit


@torch.no_grad()
@pytest.mark.parametrize(("top_k", "top_p"), [(5, None), (None, 0.7), (9, 0.5)])
def test_the_same_tokens_stay_in_the_draw(
    net: EvolvableGPT, top_k: int | None, top_p: float | None
) -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = net(tokens())[:, -1]
    expected = logits
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None:
        expected = TopPLogitsWarper(top_p)(None, expected)
    allowed = expected.isfinite()
    drawn = net.generate(tokens().repeat(300, 1), 1, top_k=top_k, top_p=top_p, seed=0)[:, -1]
    seen = torch.zeros_like(allowed).scatter_(1, drawn.view(300, 4).T, True)
    assert not (seen & ~allowed).any()
    likely = expected.softmax(-1) > 0.03
    assert (seen | ~likely).all()


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(gpt_huggingface.ACTIVATIONS))
def test_every_activation_is_the_same_function(saved_gpt2: Path, hf_gpt2: Any, name: str) -> None:
    from transformers.activations import ACT2FN

    edit_config(saved_gpt2, activation_function=name)
    net = EvolvableGPT.from_pretrained(saved_gpt2)
    blocks = hf_gpt2.transformer.h
    old = [block.mlp.act for block in blocks]
    try:
        for block in blocks:
            block.mlp.act = ACT2FN[name]
        assert (net(tokens()) - hf_gpt2(tokens()).logits).abs().max() <= 1e-5
    finally:
        for block, act in zip(blocks, old, strict=True):
            block.mlp.act = act
