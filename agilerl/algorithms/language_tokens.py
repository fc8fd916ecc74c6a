"""Games as steps of the token-level decision process.

A game is one row of tokens.  The state before token ``t`` is ``tokens[:t]``, and a causal network
has read exactly that at place ``t - 1``.  The agent's actions are the tokens under the action
mask; what stands between two of them was written by the environment and belongs to the next state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from agilerl.errors import DatasetError

Tensor = torch.Tensor


class TokenBatch(Protocol):
    """``B`` games, padded on the right to ``T``; see ``data.language_dataset.TokenGames``."""

    @property
    def tokens(self) -> npt.NDArray[np.integer]: ...  # noqa: D102
    @property
    def lengths(self) -> npt.NDArray[np.int64]: ...  # noqa: D102
    @property
    def action_mask(self) -> npt.NDArray[np.bool_]: ...  # noqa: D102
    @property
    def rewards(self) -> npt.NDArray[np.float32]: ...  # noqa: D102
    @property
    def terminals(self) -> npt.NDArray[np.bool_]: ...  # noqa: D102


@dataclass(frozen=True)
class Steps:
    """The ``N`` steps of a batch of games, game by game.

    A *place* counts through the hidden states of the batch, flattened to ``[B * T]``.

    Attributes:
        ids: the tokens that the network has to read, [B, T]; the tail that no place is in is cut.
        places: of the hidden state before each action, [N].
        next_places: of the hidden state before the agent's next action, [N].  Where the game
            ended it means nothing; where it was cut short, it is that of the last token.
        actions: the tokens chosen, [N].
        rewards: [N].
        ended: whether the step ended the game, [N].
        returns: discounted sum of the rewards from the step to the end of its row, [N].
    """

    ids: Tensor
    places: Tensor
    next_places: Tensor
    actions: Tensor
    rewards: Tensor
    ended: Tensor
    returns: Tensor


def discounted_returns(
    rewards: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], gamma: float
) -> npt.NDArray[np.float32]:
    """Return the sum of rewards from each token on, discounted once for each action, [B, T]."""
    returns = np.zeros_like(rewards)
    running = np.zeros(len(rewards), np.float32)
    for t in reversed(range(rewards.shape[1])):
        running = np.where(mask[:, t], rewards[:, t] + gamma * running, running)
        returns[:, t] = running
    return returns


def steps_of(batch: TokenBatch, gamma: float, device: torch.device | str = "cpu") -> Steps:
    """Return the steps of a batch of games.

    Raises:
        DatasetError: if the first token of a game is an action, as there is no state before it.
    """
    mask = np.asarray(batch.action_mask)
    if mask[:, 0].any():
        row = int(np.flatnonzero(mask[:, 0])[0])
        raise DatasetError(
            f"action_mask[{row}, 0]: expected False, as there is no state before the first token;"
            " begin games with the tokenizer's begin token."
        )
    rows, columns = np.nonzero(mask)
    last = np.append(rows[1:] != rows[:-1], True)  # of its row
    ended = np.asarray(batch.terminals)[rows, columns]
    final = np.asarray(batch.lengths)[rows] - 1
    before = columns - 1
    after = np.where(last, np.where(ended, before, final), np.append(before[1:], 0))
    width = int(max(before.max(), after.max())) + 1
    returns = discounted_returns(batch.rewards, mask, gamma)

    def on(values: Any, dtype: torch.dtype = torch.long) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values)).to(device, dtype)

    return Steps(
        ids=on(batch.tokens[:, :width]),
        places=on(rows * width + before),
        next_places=on(rows * width + after),
        actions=on(batch.tokens[rows, columns]),
        rewards=on(batch.rewards[rows, columns], torch.float32),
        ended=on(ended, torch.bool),
        returns=on(returns[rows, columns], torch.float32),
    )
