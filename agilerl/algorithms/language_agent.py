"""What language agents share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from agilerl.algorithms.base import EvolvableAgent
from agilerl.algorithms.language_actions import ActionTokens, check_gpt_config
from agilerl.algorithms.language_tokens import Steps, steps_of
from agilerl.devices import check_device
from agilerl.errors import ConfigError, check_float, check_int
from agilerl.lineage import Ancestor
from agilerl.networks.evolvable_gpt import EvolvableGPT
from agilerl.networks.gpt_decoding import LogitsProcessor
from agilerl.seeding import derive, generator

logger = logging.getLogger("agilerl")

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


class LanguageAgent(EvolvableAgent):
    """Base class of agents that write tokens with an evolvable GPT.

    Networks, optimiser, clones, checkpoints and mutations are those of ``EvolvableAgent``.  What
    differs is the data: games of tokens in place of transitions (see ``language_tokens``), and an
    action is a run of tokens.  The constructor is therefore its own.

    Args:
        net_config: arguments of ``EvolvableGPT``, and ``arch`` "gpt".  With ``weights`` it starts
            from those, else from weights that are drawn.
        actions: the tokens that an agent may choose; None is the whole vocabulary.
        action_length: tokens of one action of the environment.
        index: identity of the agent in its population.
        batch_size: games in a learn step.
        lr: learning rate of Adam.
        gamma: discount of one action token, in [0, 1].
        tau: fraction by which target heads move at each learn step, in (0, 1].
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

    hyperparameter_names: ClassVar[tuple[str, ...]] = ("lr", "batch_size")

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
        if accelerator is not None:
            raise ConfigError("accelerator: only None is supported; pass device= to use a GPU.")
        self.device = check_device(device)
        self.seed = seed
        self.net_config = check_gpt_config(net_config)
        self.action_dim = check_int("vocab_size", self.net_config.get("vocab_size", 50257))
        self.actions = ActionTokens(actions, self.action_dim, self.device)
        self.action_length = check_int("action_length", action_length)
        self.index = index
        self.batch_size = batch_size
        self._lr = check_float("lr", lr, low=0.0)
        self.learn_step = 1
        self.gamma = gamma
        self.tau = tau
        self.accumulate = check_int("accumulate", accumulate)
        self.clip = check_float("clip", clip, low=0.0)
        self.bf16 = bool(bf16)
        self.mut = mutation
        self.rng = generator(seed, "exploration")
        self.parent: int | None = None
        self.elite = False
        self.lineage: tuple[Ancestor, ...] = ()
        self.scores: list[float] = []
        self.fitness: list[float] = []
        self.steps: list[int] = [0]
        self.learn_count = 0
        self.terms: dict[str, float] = {}

    def build_lm(self) -> EvolvableGPT:
        """Return a language model of ``net_config``, and let go of the weights given there."""
        config = {key: value for key, value in self.net_config.items() if key != "arch"}
        self.net_config.pop("weights", None)
        return EvolvableGPT(**config, device=self.device, seed=derive(self.seed, "actor"))

    # ------------------------------------------------------------------- to be given by subclasses

    @abstractmethod
    def losses(self, steps: Steps) -> dict[str, Tensor]:
        """Return the terms of the loss by name, each [N] and weighted; their sum is the loss."""

    @abstractmethod
    def decoder(self, **settings: Any) -> LogitsProcessor:
        """Return what turns the network's logits [B, V] into those of the policy."""

    def after_step(self) -> None:
        """Do what follows a step of the optimiser (a soft update, say)."""

    # ------------------------------------------------------------------------------------ networks

    @property
    def lm(self) -> EvolvableGPT:
        """The language model."""
        network = self.policy.evolvable
        assert isinstance(network, EvolvableGPT)
        return network

    def schedule(self, factor: float) -> None:
        """Learn with ``factor`` times the learning rate until it is set again."""
        for network in self.networks.values():
            network.lr = self._lr * factor

    def action_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the action tokens [N, A], given hidden states [N, E]."""
        return self.actions.of(self.lm.head(hidden)).float()

    # ------------------------------------------------------------------------------------ learning

    def learn(self, experiences: Any) -> float:
        """Make one step on a batch of games, and return the mean loss of its action tokens.

        Args:
            experiences: a ``TokenBatch``.
        """
        network = self.policy
        network.module.train()
        network.optimizer.zero_grad(set_to_none=True)
        total = int(np.asarray(experiences.action_mask).sum())
        terms: dict[str, float] = {}
        for part in self._parts(experiences):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                losses = self.losses(steps_of(part, self.gamma, self.device))
            means = {name: loss.float().sum() / total for name, loss in losses.items()}
            torch.stack(list(means.values())).sum().backward()  # type: ignore[no-untyped-call]
            for name, mean in means.items():
                terms[name] = terms.get(name, 0.0) + float(mean.detach())
        if self.clip:
            torch.nn.utils.clip_grad_norm_(network.module.parameters(), self.clip)
        network.step()
        self.learn_count += 1
        self.terms = terms
        self.after_step()
        return sum(terms.values())

    def _parts(self, batch: Any) -> list[Any]:
        """Return the batch in ``accumulate`` parts of games."""
        if self.accumulate == 1:
            return [batch]
        rows = np.array_split(np.arange(len(batch.lengths)), self.accumulate)
        return [batch.select(part) for part in rows if len(part)]

    # -------------------------------------------------------------------------------------- acting

    def act(self, states: Tensor, epsilon: float) -> Tokens:
        """Return the actions in ``states``; see ``getAction``."""
        tokens: Tokens = self.getAction(states, epsilon)
        return tokens

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

    def test(
        self, env: Any, swap_channels: bool = False, max_steps: int = 500, loop: int = 1
    ) -> float:
        """Return, and append to ``fitness``, the mean return of greedily played games.

        Args:
            env: a ``TokenArena``.
            swap_channels: has no meaning for texts.
            max_steps: the arena's games end by their own rules.
            loop: times that the arena is played.
        """
        if all(network.is_finite() for network in self.networks.values()):
            returns = [env.play(self.getAction).returns for _ in range(loop)]
            fitness = float(np.concatenate(returns).mean())
        else:
            logger.warning(
                "agent %d has diverged (weights are not finite): fitness -inf", self.index
            )
            fitness = float("-inf")
        self.fitness.append(fitness)
        return fitness

    # -------------------------------------------------------------------------------------- copies

    def clone(self, index: int | None = None) -> Self:
        """Return an independent copy whose streams, dropout's too, are all its own."""
        twin = super().clone(index)
        twin.lm.drop.reseed(int(twin.rng.integers(2**62)))
        return twin

    def settings(self) -> dict[str, Any]:
        """Return the constructor arguments that describe the agent, without index and device."""
        shape = {key: value for key, value in self.lm.init_dict.items() if key != "device"}
        shared = ("action_length", "batch_size", "lr", "gamma", "tau", "accumulate", "clip", "bf16")
        return {
            "net_config": {"arch": "gpt", **shape},
            "actions": self.actions.tolist(),
            **{name: getattr(self, name) for name in (*shared, *self.own_settings)},
        }
