"""What language agents share: games as token-level decisions, the tokens to choose from, learning.

A game is one row of tokens.  The state before token ``t`` is ``tokens[:t]``, and a causal network
has read exactly that at position ``t - 1``.  The agent's actions are the tokens under the action
mask; what stands between two of them was written by the environment and belongs to the next state.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

from agilerl.algorithms.agent import Agent
from agilerl.algorithms.settings import (
    Setting,
    count,
    device_setting,
    flag,
    hyperparameter,
    learning_rate,
    no_accelerator,
    setting,
    weight,
)
from agilerl.errors import ConfigError, DatasetError, check_choice, check_int, check_keys
from agilerl.networks.evolvable_gpt import EvolvableGPT
from agilerl.networks.gpt import GPTSpec
from agilerl.networks.gpt_decoding import LogitsProcessor
from agilerl.seeding import derive

Tensor = torch.Tensor
Tokens = npt.NDArray[np.int64]
TokenPolicy = Callable[..., Tokens]


class TokenArena(Protocol):
    """Many games that are played in tokens, all at once."""

    def play(self, policy: TokenPolicy) -> Any:
        """Play the games, and return what has their ``returns`` [N].

        ``policy(prefixes [n, t], attention_mask=None)`` gives the tokens of the next actions.
        """
        ...


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


# ----------------------------------------------------------------------------------- steps of games


@dataclass(frozen=True)
class Steps:
    """The ``N`` steps of a batch of games, game by game.

    A *position* counts through the hidden states of the batch, flattened to ``[B * T]``.

    Attributes:
        ids: the tokens that the network has to read, [B, T]; the tail without a position is cut.
        positions: of the hidden state before each action, [N].
        next_positions: of the hidden state before the agent's next action, [N].  Where the game
            ended it means nothing; where it was cut short, it is that of the last token.
        actions: the tokens chosen, [N].
        rewards: [N].
        ended: whether the step ended the game, [N].
        returns: discounted sum of the rewards from the step to the end of its row, [N].
    """

    ids: Tensor
    positions: Tensor
    next_positions: Tensor
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
        positions=on(rows * width + before),
        next_positions=on(rows * width + after),
        actions=on(batch.tokens[rows, columns]),
        rewards=on(batch.rewards[rows, columns], torch.float32),
        ended=on(ended, torch.bool),
        returns=on(returns[rows, columns], torch.float32),
    )


# ---------------------------------------------------------------------------- tokens to choose from


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


def check_gpt_config(net_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``net_config``, its keys checked; raise ``ConfigError`` otherwise."""
    if not isinstance(net_config, Mapping):
        raise ConfigError(
            f"net_config: expected a dict like {{'arch': 'gpt', 'n_layer': 4}}, got {net_config!r}."
        )
    arch = check_choice("net_config['arch']", net_config.get("arch", "gpt"), ["gpt"])
    fields = [field.name for field in dataclasses.fields(GPTSpec)]
    check_keys("net_config of arch 'gpt'", net_config, ("arch", "weights", *fields))
    return {**net_config, "arch": arch}


# ------------------------------------------------------------------------------------------- agents


@dataclass(eq=False, repr=False)
class LanguageAgent(Agent):
    """Base class of agents that write tokens with an evolvable GPT.

    They learn from games of tokens (see the top of this file), and an action is a run of tokens.

    Args:
        net_config: arguments of ``EvolvableGPT``, and ``arch`` "gpt".  With ``weights`` it starts
            from those, else from weights that are drawn.
        actions: the tokens that an agent may choose; None is the whole vocabulary.
        action_length: tokens of one action of the environment.
        index: identity of the agent in its population.
        lr: learning rate of Adam.
        batch_size: games in a learn step.
        accumulate: parts that a batch is dealt into, one after the other, to save memory; the
            gradient is that of the whole batch.
        clip: largest norm of the gradient; 0 leaves it as it is.
        bf16: compute in bfloat16 where torch deems it safe (autocast).
        mutation: initial value of ``mut``.
        device: where the networks live.
        accelerator: must be None.
        seed: of initial weights and of what the agent draws.

    Attributes:
        steps: games learnt from, one entry for each generation.
        scores: mean loss of each training episode.
        fitness: one value for each ``test()``.
        terms: the parts of the last learn step's loss, by name.
    """

    HISTORY: ClassVar[tuple[str, ...]] = (*Agent.HISTORY, "terms")
    #: Every batch is learnt from at once.
    learn_step: ClassVar[int] = 1

    net_config: Mapping[str, Any]
    actions: Sequence[int] | None = None
    action_length: int = setting(1, count)
    index: int = 0
    _: KW_ONLY
    lr: float = learning_rate(1e-3)
    batch_size: int = hyperparameter(64, low=1, range=(8, 1024))
    accumulate: int = setting(1, count)
    clip: float = setting(1.0, weight)
    bf16: bool = setting(False, flag)
    mutation: str | None = None
    device: Setting[str | torch.device | None, torch.device] = device_setting()
    accelerator: None = setting(None, no_accelerator)
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the shape of the network and the tokens, and build the networks."""
        self.net_config = check_gpt_config(self.net_config)
        vocab_size = check_int("vocab_size", self.net_config.get("vocab_size", 50257))
        self.action_tokens = ActionTokens(self.actions, vocab_size, self.device)
        self.actions = self.action_tokens.tolist()
        self.terms: dict[str, float] = {}
        super().__post_init__()

    def build_lm(self) -> EvolvableGPT:
        """Return a language model of ``net_config``, and let go of the weights given there."""
        config = {key: value for key, value in self.net_config.items() if key != "arch"}
        self.net_config = {k: v for k, v in self.net_config.items() if k != "weights"}
        return EvolvableGPT(**config, device=self.device, seed=derive(self.seed, "actor"))

    # ------------------------------------------------------------------- to be given by subclasses

    @abstractmethod
    def losses(self, steps: Steps) -> dict[str, Tensor]:
        """Return the terms of the loss by name, each [N] and weighted; their sum is the loss."""

    @abstractmethod
    def decoder(self, **settings: Any) -> LogitsProcessor:
        """Return what turns the network's logits [B, V] into those of the policy."""

    def steps_of(self, batch: TokenBatch) -> Steps:
        """Return the steps of a batch of games; their returns are not discounted."""
        return steps_of(batch, 1.0, self.device)

    def after_step(self) -> None:
        """Do what comes after a step of the optimiser (a soft update, say)."""

    # ------------------------------------------------------------------------------------ networks

    @property
    def lm(self) -> EvolvableGPT:
        """The language model."""
        network = self.policy_network.evolvable
        assert isinstance(network, EvolvableGPT)
        return network

    def schedule(self, factor: float) -> None:
        """Learn with ``factor`` times the learning rate until it is set again."""
        for network in self.networks.values():
            network.lr = self.lr * factor

    def action_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the action tokens [N, A], given hidden states [N, E]."""
        return self.action_tokens.of(self.lm.head(hidden)).float()

    def settings(self) -> dict[str, Any]:
        """Return the constructor arguments that describe the agent, its present shape included."""
        shape = {key: value for key, value in self.lm.init_dict.items() if key != "device"}
        return {**super().settings(), "net_config": {"arch": "gpt", **shape}}

    # ------------------------------------------------------------------------------------ learning

    def learn(self, experiences: Any) -> float:
        """Make one step on a batch of games, and return the mean loss of its action tokens.

        Args:
            experiences: a ``TokenBatch``.
        """
        network = self.policy_network
        network.module.train()
        network.optimizer.zero_grad(set_to_none=True)
        total = int(np.asarray(experiences.action_mask).sum())
        terms: dict[str, float] = {}
        for part in self._parts(experiences):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                losses = self.losses(self.steps_of(part))
            means = {name: loss.float().sum() / total for name, loss in losses.items()}
            torch.stack(list(means.values())).sum().backward()  # type: ignore[no-untyped-call]
            for name, mean in means.items():
                terms[name] = terms.get(name, 0.0) + float(mean.detach())
        if self.clip:
            torch.nn.utils.clip_grad_norm_(network.module.parameters(), self.clip)
        total_loss = sum(terms.values())
        if not (math.isfinite(total_loss) and network.step()):
            self.note_divergence("a loss or gradient is")
        self.learn_count += 1
        self.terms = terms
        self.after_step()
        return total_loss

    def _parts(self, batch: Any) -> list[Any]:
        """Return the batch in ``accumulate`` parts of games."""
        if self.accumulate == 1:
            return [batch]
        rows = np.array_split(np.arange(len(batch.lengths)), self.accumulate)
        return [batch.select(part) for part in rows if len(part)]

    # -------------------------------------------------------------------------------------- acting

    def decode(
        self,
        prefixes: Any,
        temperature: float = 0.0,
        attention_mask: Any = None,
        rng: np.random.Generator | None = None,
        **settings: Any,
    ) -> Tokens:
        """Return the tokens of the next action [n, action_length].

        Args:
            prefixes: all tokens so far, [n, t].
            temperature: 0 takes the likeliest token; otherwise tokens are drawn.
            attention_mask: [n, t], 0 at padding; None if there is none.
            rng: of the draws; None is the agent's own stream.
            settings: of the policy, see the subclass's ``decoder``.
        """
        source = None
        if temperature > 0:
            seed = int((self.rng if rng is None else rng).integers(2**62))
            source = torch.Generator().manual_seed(seed)
        texts = self.lm.generate(
            torch.as_tensor(np.asarray(prefixes)).to(self.device),
            self.action_length,
            temperature=temperature,
            attention_mask=attention_mask,
            logits_processor=self.decoder(**settings),
            generator=source,
        )
        written: Tokens = texts[:, -self.action_length :].cpu().numpy()
        return written

    def getAction(self, state: Any, epsilon: float = 0, attention_mask: Any = None) -> Any:
        """Return the tokens of the next action [action_length], or [n, action_length].

        Args:
            state: all tokens so far, [t] or [n, t].
            epsilon: probability that an action is drawn from the policy; otherwise it is made of
                the likeliest tokens, and nothing is drawn at 0.
            attention_mask: of the shape of ``state``, 0 at padding.
        """
        prefixes = np.asarray(state.cpu() if torch.is_tensor(state) else state)
        single = prefixes.ndim == 1
        prefixes = prefixes[None] if single else prefixes
        tokens = self.decode(prefixes, attention_mask=attention_mask)
        if epsilon > 0:
            drawn = self.decode(prefixes, 1.0, attention_mask)
            explore = self.rng.random(len(tokens)) < epsilon
            tokens = np.where(explore[:, None], drawn, tokens)
        return tokens[0] if single else tokens

    def test(self, env: TokenArena, loop: int = 1) -> float:
        """Return, and append to ``fitness``, the mean return of greedily played games.

        Args:
            env: where the games are played.
            loop: times that all of them are.
        """
        return self.measure(
            lambda: np.concatenate([env.play(self.getAction).returns for _ in range(loop)])
        )
