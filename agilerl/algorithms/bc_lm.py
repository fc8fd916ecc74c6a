"""Behavioural cloning of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from agilerl.algorithms import language_losses
from agilerl.algorithms.language_agent import LanguageAgent, Tensor
from agilerl.algorithms.language_tokens import Steps
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks.gpt_decoding import LogitsProcessor


class BC_LM(LanguageAgent):  # noqa: N801  # the name is the public API
    """A language model that is trained to choose the tokens that the data chose.

    The loss is the negative log-likelihood of the agent's tokens under the softmax over the
    tokens that it may choose; what the environment writes is read and not predicted.

    Args:
        others: see ``LanguageAgent``; ``gamma`` and ``tau`` have no effect here.
    """

    algo: ClassVar[str] = "BC_LM"

    def __init__(
        self,
        net_config: Mapping[str, Any],
        actions: Sequence[int] | None = None,
        action_length: int = 1,
        index: int = 0,
        batch_size: int = 64,
        lr: float = 1e-3,
        gamma: float = 0.99,
        tau: float = 5e-3,
        accumulate: int = 1,
        clip: float = 1.0,
        bf16: bool = False,
        mutation: str | None = None,
        device: str | torch.device = "cpu",
        accelerator: None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            net_config,
            actions,
            action_length,
            index,
            batch_size,
            lr,
            gamma,
            tau,
            accumulate,
            clip,
            bf16,
            mutation,
            device,
            accelerator,
            seed,
        )
        self.networks = self.build_networks()

    def build_networks(self) -> dict[str, TrainedNetwork]:
        """Return the language model; it has no target."""
        return {"actor": TrainedNetwork(self.build_lm(), lr=self._lr, target_of=None)}

    def losses(self, steps: Steps) -> dict[str, Tensor]:
        """Return the negative log-likelihood of the actions, [N]."""
        hidden = self.lm.hidden(steps.ids).flatten(0, 1).index_select(0, steps.places)
        actions = self.actions.numbers(steps.actions)
        logits = self.action_logits(hidden)
        return {"policy": language_losses.behavioural_cloning(logits, actions)}

    def decoder(self, **settings: Any) -> LogitsProcessor:
        """Return the policy: the model's logits, of action tokens only."""

        def process(ids: Tensor, logits: Tensor, hidden: Tensor) -> Tensor:
            return self.actions.spread(self.actions.of(logits))

        return process
