"""EvolvableGPT: what it computes, with padding and with a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from agilerl.errors import ConfigError
from agilerl.networks.evolvable_gpt import EvolvableGPT
from agilerl.networks.gpt import gelu_tanh
from tests.networks.gpt import padded, small, tokens


def reference(net: EvolvableGPT, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of one row [T], written out slowly from the definition."""
    p, spec = net.named_tensors(), net.spec
    x = p["wte.weight"][ids] + p["wpe.weight"][: len(ids)]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + spec.layer_norm_eps).sqrt()
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    for i in range(spec.n_layer):
        q, k, v = linear(norm(x, f"block_{i}.norm_1"), f"block_{i}.qkv").chunk(3, -1)
        heads = []
        for h in range(spec.n_head):
            part = slice(h * spec.head_dim, (h + 1) * spec.head_dim)
            rows = []
            for t in range(len(ids)):
                scores = k[: t + 1, part] @ q[t, part] / spec.head_dim**0.5
                rows.append(scores.softmax(0) @ v[: t + 1, part])
            heads.append(torch.stack(rows))
        x = x + linear(torch.cat(heads, -1), f"block_{i}.attn_out")
        inner = linear(norm(x, f"block_{i}.norm_2"), f"block_{i}.fc")
        cubic = 0.7978845608 * (inner + 0.044715 * inner**3)
        x = x + linear(0.5 * inner * (1 + cubic.tanh()), f"block_{i}.mlp_out")
    return norm(x, "norm") @ p["wte.weight"].T


# ---------------------------------------------------------------------------------------- reading


def test_logits_follow_the_definition() -> None:
    net, ids = small(), tokens(2, 9)
    logits = net(ids)
    assert logits.shape == (2, 9, 31)
    for row in range(2):
        torch.testing.assert_close(logits[row], reference(net, ids[row]), atol=2e-6, rtol=1e-5)


def test_heads_need_not_fill_the_embedding() -> None:
    net, ids = small(n_head=2, head_dim=5), tokens(1, 6)
    torch.testing.assert_close(net(ids)[0], reference(net, ids[0]), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("left", [True, False])
def test_padding_does_not_change_the_logits_of_real_tokens(left: bool) -> None:
    net, ids = small(), tokens(3, 12)
    lengths = (12, 7, 3)
    mask = padded(lengths, 12, left)
    logits = net(ids, mask)
    assert logits.isfinite().all()
    for row, length in enumerate(lengths):
        real = mask[row].bool()
        alone = net(ids[row][real][None])[0]
        assert alone.shape[0] == length
        torch.testing.assert_close(logits[row][real], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("left", [True, False, None])
@pytest.mark.parametrize("cuts", [(1,) * 12, (5, 7), (4, 1, 3, 1, 3), (12,)])
def test_cached_chunks_equal_the_full_pass(left: bool | None, cuts: tuple[int, ...]) -> None:
    net, ids = small(), tokens(3, 12)
    mask = None if left is None else padded((12, 8, 2), 12, left)
    cache = net.new_cache(3)
    with torch.no_grad():
        full = net(ids, mask)
        masks = [None] * len(cuts) if mask is None else mask.split(cuts, 1)
        pairs = zip(ids.split(cuts, 1), masks, strict=True)
        chunks = torch.cat([net(part, own, cache=cache) for part, own in pairs], 1)
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    torch.testing.assert_close(chunks[real], full[real], atol=1e-5, rtol=0)
    assert cache.length == 12


def test_given_positions_take_the_place_of_counted_ones() -> None:
    net, ids = small(), tokens(2, 6)
    assert torch.equal(net(ids, position_ids=torch.arange(6)), net(ids))
    turned = torch.tensor([[3, 4, 5, 3, 4, 5], [0, 1, 2, 3, 4, 5]])
    logits = net(ids, position_ids=turned)
    torch.testing.assert_close(logits[1], net(ids)[1], atol=1e-6, rtol=0)
    assert (logits[0] - net(ids)[0]).abs().max() > 1e-2
    cache = net.new_cache(2)
    with torch.no_grad():
        parts = [
            net(ids[:, part], position_ids=turned[:, part], cache=cache)
            for part in (slice(0, 4), slice(4, 6))
        ]
    torch.testing.assert_close(torch.cat(parts, 1), logits.detach(), atol=1e-5, rtol=0)


def test_logits_are_the_head_of_the_hidden_states() -> None:
    net, ids = small(), tokens(2, 5)
    hidden = net.hidden(ids)
    assert hidden.shape == (2, 5, 24)
    assert torch.equal(net.head(hidden), net(ids))


@pytest.mark.parametrize("left", [True, False])
def test_gradients_are_finite_and_reach_every_parameter(left: bool) -> None:
    net, ids = small(), tokens(3, 12)
    mask = padded((12, 7, 3), 12, left)
    net(ids, mask)[mask.bool()].logsumexp(-1).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_both_forms_of_gelu_are_one_function() -> None:
    x = torch.linspace(-12, 12, 5001)
    with torch.no_grad():
        torch.testing.assert_close(gelu_tanh(x), F.gelu(x, approximate="tanh"), atol=2e-6, rtol=0)
        big = gelu_tanh(torch.full((5001,), -1e20))
    assert torch.equal(big, torch.zeros(5001))


def test_it_runs_under_bf16_autocast_with_padding_and_cache() -> None:
    net, ids = small(), tokens(2, 8)
    mask = padded((8, 5), 8, left=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        full = net(ids, mask)
        cache = net.new_cache(2)
        parts = [net(ids[:, p], mask[:, p], cache=cache) for p in (slice(0, 7), slice(7, 8))]
    real = mask.bool()
    exact = net(ids, mask)[real]
    assert (full[real].float() - exact).abs().max() < 0.2
    assert (torch.cat(parts, 1)[real].float() - exact).abs().max() < 0.2


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("ids", "arguments", "message"),
    [
        (torch.tensor([[0, 31]]), {}, r"\[0, 31\), got 31"),
        (torch.tensor([[-1, 3]]), {}, "got -1"),
        (torch.zeros(1, 3), {}, "integers"),
        (torch.zeros(3, dtype=torch.long), {}, r"\[B, T\]"),
        (torch.zeros(2, 0, dtype=torch.long), {}, "at least one token"),
        (torch.zeros(1, 33, dtype=torch.long), {}, "block_size=32"),
        (tokens(2, 3), {"attention_mask": torch.ones(2, 4)}, "attention_mask"),
        (tokens(2, 3), {"attention_mask": torch.full((2, 3), 2)}, "attention_mask"),
        (tokens(2, 3), {"position_ids": torch.tensor([0, 1, 32])}, "position_ids"),
        (tokens(2, 3), {"position_ids": torch.tensor([0, 1])}, "position_ids"),
    ],
)
def test_bad_input_is_named(ids: torch.Tensor, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small()(ids, **arguments)


def test_a_cache_that_does_not_fit_is_refused() -> None:
    net = small()
    with torch.no_grad():
        with pytest.raises(ConfigError, match="capacity"):
            net(tokens(2, 6), cache=net.new_cache(2, capacity=5))
        with pytest.raises(ConfigError, match="cache"):
            net(tokens(2, 6), cache=net.new_cache(3))
        cache = net.new_cache(2)
        net.add_head(numb_new_heads=1)
        with pytest.raises(ConfigError, match="edit"):
            net(tokens(2, 6), cache=cache)
    with pytest.raises(ConfigError, match="no_grad"):
        net(tokens(2, 6), cache=net.new_cache(2))
    with pytest.raises(ConfigError, match="block_size"):
        net.new_cache(2, capacity=33)
