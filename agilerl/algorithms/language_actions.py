"""What a language agent is built on: the shape of its network, and the tokens it may choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from agilerl.errors import ConfigError, check_choice, check_int, check_keys
from agilerl.networks.gpt import GPTSpec

Tensor = torch.Tensor


def check_gpt_config(net_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``net_config``, its keys checked; raise ``ConfigError`` otherwise."""
    if not isinstance(net_config, Mapping):
        raise ConfigError(
            f"net_config: expected a dict like {{'arch': 'gpt', 'n_layer': 4}}, got {net_config!r}."
        )
    arch = check_choice("net_config['arch']", net_config.get("arch", "gpt"), ["gpt"])
    fields = [field.name for field in dataclasses.fields(GPTSpec)]
    check_keys("net_config of arch 'gpt'", net_config, ("arch", "weights", *fields))
    return {"arch": arch, **net_config}


class ActionTokens:
    """The ``A`` tokens of a vocabulary of ``V`` that an agent may choose, numbered in order.

    Args:
        tokens: of the vocabulary; None is all of it.
        vocab_size: V.
        device: where logits are.

    Raises:
        ConfigError: if there are none, or one is outside the vocabulary.
    """

    def __init__(self, tokens: Sequence[int] | None, vocab_size: int, device: torch.device) -> None:
        chosen = range(vocab_size) if tokens is None else tokens
        ordered = sorted({check_int("actions", token, minimum=0) for token in chosen})
        if not ordered or ordered[-1] >= vocab_size:
            raise ConfigError(
                f"actions: expected at least one token in [0, {vocab_size}), got"
                f" {list(chosen)[:10]}; was the network made for another vocabulary?"
            )
        self.vocab_size = vocab_size
        self.tokens = torch.tensor(ordered, device=device)

    def __len__(self) -> int:
        return len(self.tokens)

    def tolist(self) -> list[int]:
        """Return the tokens."""
        tokens: list[int] = self.tokens.tolist()
        return tokens

    def of(self, logits: Tensor) -> Tensor:
        """Return the entries [..., A] of logits [..., V]."""
        return logits.index_select(-1, self.tokens)

    def numbers(self, tokens: Tensor) -> Tensor:
        """Return the number of each token.

        Raises:
            ConfigError: if one is no action.
        """
        numbers = torch.searchsorted(self.tokens, tokens).clamp_max(len(self) - 1)
        known = self.tokens[numbers] == tokens
        if not bool(known.all()):
            raise ConfigError(
                f"tokens: {int(tokens[~known][0])} was chosen in the data, but is not one of the"
                f" agent's {len(self)} actions; are data and model of the same tokenizer?"
            )
        return numbers

    def spread(self, logits: Tensor) -> Tensor:
        """Return logits [B, A] as logits of all tokens [B, V]; the others are -inf."""
        full = logits.new_full((len(logits), self.vocab_size), -torch.inf)
        return full.index_copy_(1, self.tokens, logits)
