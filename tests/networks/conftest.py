"""A small GPT-2 of Hugging Face's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def hf_gpt2() -> Any:
    """A small GPT2LMHeadModel, all of whose parameters are random."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=61,
        n_positions=48,
        n_embd=32,
        n_layer=3,
        n_head=4,
        layer_norm_epsilon=1e-4,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        model = GPT2LMHeadModel(config).eval()
    stream = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=stream))
    return model


@pytest.fixture
def saved_gpt2(hf_gpt2: Any, tmp_path: Path) -> Path:
    hf_gpt2.save_pretrained(tmp_path)
    return tmp_path
