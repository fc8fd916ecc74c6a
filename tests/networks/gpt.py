"""Small GPTs and their input, for tests."""

from __future__ import annotations

from typing import Any

import torch

from agilerl.networks.evolvable_gpt import EvolvableGPT


def small(**changes: Any) -> EvolvableGPT:
    """Return a small network whose biases and norms are not what they are at the start."""
    shape = {
        "n_layer": 3,
        "vocab_size": 31,
        "n_embd": 24,
        "n_head": 3,
        "dim_feedfwd": 40,
        "block_size": 32,
        "min_layers": 1,
        "seed": 0,
    }
    net = EvolvableGPT(**{**shape, **changes})
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.empty_like(parameter).normal_(0, 0.15, generator=generator)
            parameter.add_(noise)
    return net


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(31, shape, generator=torch.Generator().manual_seed(seed))


def padded(lengths: tuple[int, ...], time: int, left: bool) -> torch.Tensor:
    positions = torch.arange(time)[None]
    counts = torch.tensor(lengths)[:, None]
    return (positions >= time - counts if left else positions < counts).long()


#: Of ``writer``.
WRITER_VOCAB = 13


def writer(vocab_size: int = WRITER_VOCAB, spread: float = 0.4, **changes: Any) -> EvolvableGPT:
    """Return a small network that is sure enough of its next token that none tie."""
    shape = {"n_layer": 2, "n_embd": 16, "n_head": 2, "dim_feedfwd": 32, "block_size": 24}
    net = EvolvableGPT(**{**shape, "vocab_size": vocab_size, "seed": 0, **changes})
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.empty_like(parameter).normal_(0, spread, generator=stream)
            parameter.add_(noise)
    return net


def prompts(batch: int, time: int, vocab: int = WRITER_VOCAB) -> torch.Tensor:
    return torch.randint(vocab, (batch, time), generator=torch.Generator().manual_seed(1))
