"""Implicit Language Q-Learning."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from agilerl import checkpoint
from agilerl.algorithms import language_losses as losses
from agilerl.algorithms.language_agent import (
    LanguageAgent,
    Steps,
    Tensor,
    TokenBatch,
    steps_of,
)
from agilerl.algorithms.settings import fraction, hyperparameter, setting, weight
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.errors import CheckpointError, check_int
from agilerl.networks.evolvable_gpt import EvolvableGPT, normal
from agilerl.networks.gpt_decoding import LogitsProcessor
from agilerl.seeding import Generator, generator


class Head(nn.Module):
    """A value head: linear, ReLU, linear; it starts at 0.

    Args:
        width: of the hidden states, E.
        outputs: number of values.
        rng: draws the initial weights of the first layer.
        device: where the parameters live.
    """

    def __init__(self, width: int, outputs: int, rng: Generator, device: torch.device) -> None:
        super().__init__()
        self.first = nn.Linear(width, 2 * width, device="meta").to_empty(device=device)
        self.last = nn.Linear(2 * width, outputs, device="meta").to_empty(device=device)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        normal(rng, self.first.weight, width**-0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the values [..., outputs] of hidden states [..., E]."""
        values: Tensor = self.last(torch.relu(self.first(hidden)))
        return values


class TwinQ(nn.Module):
    """Two independent Q heads."""

    def __init__(self, width: int, outputs: int, rng: Generator, device: torch.device) -> None:
        super().__init__()
        self.q1 = Head(width, outputs, rng, device)
        self.q2 = Head(width, outputs, rng, device)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return both heads' values [N, A] of hidden states [N, E]."""
        return self.q1(hidden), self.q2(hidden)


class LanguageValues(nn.Module):
    """A language model with value heads on its hidden states; one optimiser trains it all."""

    def __init__(self, lm: EvolvableGPT, actions: int, rng: Generator) -> None:
        super().__init__()
        width, device = lm.spec.n_embd, next(lm.parameters()).device
        self.lm = lm
        self.q = TwinQ(width, actions, rng, device)
        self.v = Head(width, 1, rng, device)


@dataclass(eq=False, repr=False)
class ILQL(LanguageAgent):
    """Implicit Language Q-Learning (Snell et al. 2022, arXiv 2206.11871).

    One trunk carries a policy (the language model's own head, cloned from the data), two Q heads
    over the action tokens with Polyak copies, and a V head.  On each action token:

    - V goes to an expectile of ``min(Q1, Q2)`` of the target heads,
    - Q goes to ``r + gamma * V(next state)``,
    - the CQL penalty keeps tokens that the data does not show below those that it does,
    - the policy term keeps the language model at the data (with ``sharpness`` > 0 it leans to
      actions of high advantage, as in AWAC).

    The policy that acts is the cloned one, perturbed: ``log pi + beta * (Q - V)``, among tokens
    with ``pi >= min_p``.  As all heads start at 0, it is the cloned policy before training.

    Departures: Q heads cover the action tokens only; the policy shares the trunk; the first
    ``monte_carlo`` learn steps regress Q on the data's returns in place of its own targets.

    Args:
        gamma: discount of one action token, in [0, 1].
        tau: fraction by which target heads move at each learn step, in [0, 1].
        expectile: level of V, in (0, 1); ``tau`` in the paper.
        beta: weight of the advantage when acting.
        min_p: least probability, under the cloned policy, of a token that may be chosen.
        cql: weight of the conservative penalty.
        policy_weight: weight of the policy term.
        sharpness: of the policy term's weights, ``min(exp(sharpness * (Q - V)), 20)``.
        monte_carlo: learn steps at the beginning whose Q targets are returns of the data.
        others: see ``LanguageAgent``.
    """

    algo: ClassVar[str] = "ILQL"
    #: Largest weight of an action in the policy term.
    highest_weight: ClassVar[float] = 20.0

    _: KW_ONLY
    gamma: float = setting(0.99, fraction)
    tau: float = setting(5e-3, fraction)
    expectile: float = hyperparameter(0.7, high=1.0, range=(0.5, 0.95))
    beta: float = hyperparameter(4.0, range=(0.25, 64.0), log=True)
    min_p: float = setting(0.01, fraction)
    cql: float = hyperparameter(0.01, range=(1e-4, 1.0), log=True)
    policy_weight: float = setting(1.0, weight)
    sharpness: float = setting(0.0, weight)
    monte_carlo: int = setting(0, lambda name, value: check_int(name, value, minimum=0))

    def build_networks(self) -> dict[str, TrainedNetwork]:
        """Return the language model with its heads; the Q heads have a target copy."""
        module = LanguageValues(
            self.build_lm(), len(self.action_tokens), generator(self.seed, "heads")
        )
        return {"actor": TrainedNetwork(module, lr=self.lr, target_of="q")}

    def clone_policy(self, path: str | os.PathLike[str]) -> None:
        """Take the language model of a ``BC_LM`` checkpoint; the value heads stay.

        Raises:
            CheckpointError: if the file can't be read, or is of another vocabulary, of other
                actions or of another width than this agent.
        """
        payload = checkpoint.load(path)
        try:
            saved, settings = payload["networks"]["actor"], payload["settings"]
            if payload["algo"] != "BC_LM":
                raise CheckpointError(f"a checkpoint of {payload['algo']!r}, expected 'BC_LM'.")
            shape = saved["shapes"][""]
            for field in ("vocab_size", "n_embd", "block_size"):
                own = getattr(self.lm.spec, field)
                if shape[field] != own:
                    raise CheckpointError(f"{field}: expected {own}, found {shape[field]}.")
            if settings["actions"] != self.actions:
                raise CheckpointError("actions: the checkpoint's agent chose among other tokens.")
            values = {name.removeprefix("layers."): v for name, v in saved["module"].items()}
            self.lm.restore(shape, values)
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        module = self.policy_network.module
        self.networks = {"actor": TrainedNetwork(module, lr=self.lr, target_of="q")}

    # ------------------------------------------------------------------------------------ learning

    def losses(self, steps: Steps) -> dict[str, Tensor]:
        """Return the terms "v", "q", "cql" and "policy" of the loss, each [N] and weighted."""
        hidden = self.lm.hidden(steps.ids).flatten(0, 1)
        here = hidden.index_select(0, steps.positions)
        actions = self.action_tokens.numbers(steps.actions)
        twins = self._twins(here)
        values = self._value(here)
        with torch.no_grad():
            best = torch.minimum(*self._twins(here, target=True))
            best = best.gather(1, actions[:, None])[:, 0]
            targets = self._targets(hidden, steps)
        q = sum((losses.q_learning(q, actions, targets) for q in twins), torch.zeros_like(values))
        terms = {"v": losses.expectile(values, best, self.expectile), "q": q}
        if self.cql:
            terms["cql"] = self.cql * sum(
                (losses.conservative(q, actions) for q in twins), torch.zeros_like(values)
            )
        if self.policy_weight:
            terms["policy"] = self.policy_weight * losses.advantage_weighted(
                self.action_logits(here),
                actions,
                best - values,
                self.sharpness,
                self.highest_weight,
            )
        return terms

    def _targets(self, hidden: Tensor, steps: Steps) -> Tensor:
        """Return what Q should be, [N]: returns at first, then one-step targets."""
        if self.learn_count < self.monte_carlo:
            return steps.returns
        following = self._value(hidden.index_select(0, steps.next_positions))
        return losses.td_targets(steps.rewards, following.masked_fill(steps.ended, 0.0), self.gamma)

    def _value(self, hidden: Tensor) -> Tensor:
        module: Any = self.policy_network.module
        value: Tensor = module.v(hidden)[..., 0].float()
        return value

    def _twins(self, hidden: Tensor, target: bool = False) -> tuple[Tensor, Tensor]:
        module: Any = self.policy_network.module
        q1, q2 = (self.policy_network.target if target else module.q)(hidden)
        return q1.float(), q2.float()

    def steps_of(self, batch: TokenBatch) -> Steps:
        """Return the steps of a batch of games, with discounted returns."""
        return steps_of(batch, self.gamma, self.device)

    def after_step(self) -> None:
        """Move the target heads."""
        self.policy_network.soft_update(self.tau)

    # -------------------------------------------------------------------------------------- acting

    def values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``min(Q1, Q2)`` of the target heads [N, A], and V [N], of hidden states [N, E]."""
        return torch.minimum(*self._twins(hidden, target=True)), self._value(hidden)

    def decoder(
        self, beta: float | None = None, min_p: float | None = None, **settings: Any
    ) -> LogitsProcessor:
        """Return the perturbed policy.

        Args:
            beta: in place of the agent's own.
            min_p: in place of the agent's own.
            settings: of other agents; not used.
        """
        weight = self.beta if beta is None else beta
        least = self.min_p if min_p is None else min_p

        def process(ids: Tensor, logits: Tensor, hidden: Tensor) -> Tensor:
            own = self.action_tokens.of(logits)
            return self.action_tokens.spread(
                losses.perturbed(own, *self.values(hidden), weight, least)
            )

        return process
