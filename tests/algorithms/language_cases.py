"""Small language agents, and games for them to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.data.language_dataset import TokenGames, pack_games

#: Tokens: 0 pad, 1 begin, 2 end, 3 to 5 actions, 6 and 7 replies.
VOCAB = 8
ACTIONS = (3, 4, 5)
NET: dict[str, Any] = {
    "arch": "gpt",
    "n_layer": 2,
    "vocab_size": VOCAB,
    "n_embd": 16,
    "n_head": 2,
    "dim_feedfwd": 32,
    "block_size": 12,
    "min_layers": 1,
    "max_layers": 4,
}
AGENTS: tuple[type[BC_LM | ILQL], ...] = (BC_LM, ILQL)


def agent_of(cls: type[Any], **changes: Any) -> Any:
    """Return a small agent that learns fast enough to be seen."""
    settings = {"actions": ACTIONS, "action_length": 2, "lr": 1e-2, "seed": 0}
    settings |= {"tau": 0.1} if cls is ILQL else {}
    return cls(changes.pop("net_config", NET), **{**settings, **changes})


def random_games(count: int = 16, seed: int = 0, turns: int = 2) -> TokenGames:
    """Return games of one or more turns: two action tokens, one reply, the last turn ends it."""
    rng = np.random.default_rng(seed)
    games = []
    for _ in range(count):
        length = int(rng.integers(1, turns + 1))
        tokens, mask, rewards, ends = [1], [False], [0.0], [False]
        for turn in range(length):
            over = turn == length - 1
            tokens += [*rng.choice(ACTIONS, 2).tolist(), int(rng.integers(6, 8))]
            mask += [True, True, False]
            rewards += [0.0, float(rng.normal()), 0.0]
            ends += [False, over, False]
        games.append(([*tokens, 2], [*mask, False], [*rewards, 0.0], [*ends, False]))
    return pack_games(games, 0)


def trained(cls: type[Any], updates: int = 3, **changes: Any) -> Any:
    """Return an agent after some updates."""
    agent = agent_of(cls, **changes)
    for seed in range(updates):
        agent.learn(random_games(seed=seed))
    return agent


def tensors(agent: Any) -> dict[str, torch.Tensor]:
    """Return every tensor that makes up an agent: weights, targets and moments."""
    found = {}
    for name, network in agent.networks.items():
        state = network.state_dict()
        for part in ("module", "target"):
            found.update({f"{name} {part} {k}": v for k, v in state.get(part, {}).items()})
        for key, entry in state["optimizer"]["moments"].items():
            found.update({f"{name} moments {key} {k}": v for k, v in entry.items()})
    return found


def differing(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors that are not bit for bit the same."""
    names = sorted(one.keys() | two.keys())
    return [n for n in names if n not in one or n not in two or not torch.equal(one[n], two[n])]
