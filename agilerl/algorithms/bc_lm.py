"""Behavioural cloning of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from agilerl.algorithms import language_losses
from agilerl.algorithms.language_agent import LanguageAgent, Steps, Tensor
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks.gpt_decoding import LogitsProcessor


@dataclass(eq=False, repr=False)
class BC_LM(LanguageAgent):  # noqa: N801  # the name is the public API
    """A language model that is trained to choose the tokens that the data chose.

    The loss is the negative log-likelihood of the agent's tokens under the softmax over the
    tokens that it may choose; what the environment writes is read and not predicted.

    Args: see ``LanguageAgent``.
    """

    algo: ClassVar[str] = "BC_LM"

    def build_networks(self) -> dict[str, TrainedNetwork]:
        """Return the language model; it has no target."""
        return {"actor": TrainedNetwork(self.build_lm(), lr=self.lr, target_of=None)}

    def losses(self, steps: Steps) -> dict[str, Tensor]:
        """Return the negative log-likelihood of the actions, [N]."""
        hidden = self.lm.hidden(steps.ids).flatten(0, 1).index_select(0, steps.positions)
        actions = self.action_tokens.numbers(steps.actions)
        logits = self.action_logits(hidden)
        return {"policy": language_losses.behavioural_cloning(logits, actions)}

    def decoder(self, **settings: Any) -> LogitsProcessor:
        """Return the policy: the model's logits, of action tokens only."""

        def process(ids: Tensor, logits: Tensor, hidden: Tensor) -> Tensor:
            return self.action_tokens.spread(self.action_tokens.of(logits))

        return process
