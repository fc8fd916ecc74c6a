"""What all agents share: what they own, and how it is copied, saved and measured."""

from __future__ import annotations

import copy
import logging
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch

from agilerl import checkpoint
from agilerl.algorithms.settings import (
    Setting,
    hyperparameters_of,
    setting_names,
)
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.devices import check_device
from agilerl.errors import CheckpointError, refusing
from agilerl.networks.base import EvolvableNetwork, parameter_limit
from agilerl.seeding import Generator, Stream, branch, generator, load_stream_state, stream_state

logger = logging.getLogger("agilerl")

#: How many times the parameters of a state its settings may ask for: an agent may have shrunk.
SPARE = 16


class Agent(ABC):
    """Base class of all agents: what they own, and how it is copied, saved and measured.

    A subclass is a dataclass whose fields are the constructor's arguments (see ``settings``).  It
    says once which networks it owns (``build_networks``); cloning, checkpoints, mutation and soft
    updates iterate over them.

    Attributes:
        scores: mean return of each training episode.
        fitness: one value for each ``test()``.
        fitness_se: standard error of the last one, over its episodes; None where that can't be
            told, as after one episode.
        steps: environment steps taken in training, one entry for each generation.
        parent: index of the agent that this one was cloned from, or None.
        mut: label of the last mutation.
        elite: whether mutations leave it as it is.
        diverged: whether a loss, a gradient or an output was NaN or infinite; an agent that has
            diverged stays so, with fitness -inf, until a healthy one takes its place.
        rng: what the agent draws from.
        networks: what it owns, by name; the first is the policy.
    """

    #: The name by which ``initialPopulation`` and ``Mutations`` know the algorithm.
    algo: ClassVar[str]
    #: The attributes that change while an agent lives, beside its settings and networks.
    HISTORY: ClassVar[tuple[str, ...]] = (
        "index",
        "parent",
        "mut",
        "scores",
        "fitness",
        "fitness_se",
        "steps",
        "learn_count",
        "elite",
        "diverged",
    )

    index: int
    batch_size: int
    lr: float
    mutation: str | None
    device: Setting[str | torch.device | None, torch.device]
    seed: int | None

    def __post_init__(self) -> None:
        """Complete an agent whose settings are there; subclasses extend it."""
        self.mut = self.mutation
        self.rng: Generator = generator(self.seed, "exploration")
        self.parent: int | None = None
        self.elite = False
        self.diverged = False
        self.scores: list[float] = []
        self.fitness: list[float] = []
        self.fitness_se: float | None = None
        self.steps: list[int] = [0]
        self.learn_count = 0
        self.networks = self.build_networks()

    # ------------------------------------------------------------------- to be given by subclasses

    @abstractmethod
    def build_networks(self) -> dict[str, TrainedNetwork]:
        """Return the networks that the agent owns; the first is the policy."""

    @abstractmethod
    def getAction(self, state: Any, epsilon: float = 0) -> Any:
        """Return the action in one state, or the actions in a batch of them."""

    @abstractmethod
    def learn(self, experiences: Any) -> float:
        """Learn from one batch and return its loss."""

    @abstractmethod
    def test(self, env: Any, *args: Any, **kwargs: Any) -> float:
        """Return, and append to ``fitness``, the mean return of whole episodes in ``env``."""

    # ------------------------------------------------------------------------------------ networks

    @property
    def policy_network(self) -> TrainedNetwork:
        """The network that acts."""
        return next(iter(self.networks.values()))

    @property
    def actor(self) -> Any:
        """The module of the policy network, an ``EvolvableNetwork`` if it is not the user's own."""
        found = self.policy_network.evolvables
        return found[0] if found else self.policy_network.module

    @property
    def actor_target(self) -> torch.nn.Module:
        """The target copy of the policy network."""
        return self.policy_network.target

    @property
    def optimizer(self) -> torch.optim.Adam:
        """The optimiser of the policy network."""
        return self.policy_network.optimizer

    @property
    def rng_owners(self) -> list[Any]:
        """Whatever draws, each from its ``rng``: the agent itself, its networks, their dropout."""
        return [self, *(owner for net in self.networks.values() for owner in net.rng_owners)]

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The learning hyper-parameters by name."""
        return {name: getattr(self, name) for name in hyperparameters_of(type(self))}

    @property
    def architecture(self) -> str:
        """The policy network in a few words."""
        actor = self.actor
        if isinstance(actor, EvolvableNetwork):
            return actor.summary()
        return f"{type(actor).__name__}, {sum(p.numel() for p in actor.parameters())} parameters"

    def measure(self, play: Callable[[], Any]) -> float:
        """Return, and append to ``fitness``, the mean of the returns that ``play()`` gives.

        An agent that has diverged does not play: its fitness is -inf.
        """
        self.fitness_se = None
        if not all(network.is_finite() for network in self.networks.values()):
            self.note_divergence("weights are")
        returns = np.array([-np.inf]) if self.diverged else np.asarray(play(), float)
        fitness = float(returns.mean())
        if self.diverged:  # before, or while it played
            fitness = float("-inf")
        elif returns.size > 1:
            self.fitness_se = float(returns.std(ddof=1) / np.sqrt(returns.size))
        self.fitness.append(fitness)
        return fitness

    def note_divergence(self, what: str) -> None:
        """Mark the agent as diverged; ``what`` was not finite."""
        if not self.diverged:
            logger.warning(
                "agent %d has diverged (%s not finite): its updates are skipped where they would"
                " spread this, and its fitness is -inf",
                self.index,
                what,
            )
        self.diverged = True

    # ----------------------------------------------------------------------------- copies and state

    def clone(self, index: int | None = None) -> Self:
        """Return an independent copy with random streams of its own, sharing nothing.

        Args:
            index: identity of the copy; None keeps this agent's.
        """
        twin = copy.deepcopy(self)
        for owner in twin.rng_owners:
            if isinstance(owner.rng, torch.Generator):
                seed = int(twin.rng.integers(2**62))
                owner.rng = torch.Generator(owner.rng.device).manual_seed(seed)
            else:
                owner.rng = branch(self.rng)
        twin.parent = self.index
        if index is not None:
            twin.index = index
        return twin

    def settings(self) -> dict[str, Any]:
        """Return the constructor arguments that describe the agent, without index and device."""
        values = ((name, getattr(self, name)) for name in setting_names(type(self)))
        return {name: list(v) if isinstance(v, tuple) else copy.deepcopy(v) for name, v in values}

    def parts(self) -> dict[str, Any]:
        """Return the constructor arguments that no state can hold."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that makes up the agent, but for the device it lives on.

        It consists of tensors and plain values, and shares none with the agent.
        """
        history = {name: copy.copy(getattr(self, name)) for name in self.HISTORY}
        return {
            "algo": self.algo,
            "settings": self.settings(),
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "history": history,
            "streams": [stream_state(owner.rng) for owner in self.rng_owners],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over everything from the state of an agent of the same algorithm.

        Where the settings and the shapes of the networks are the same, values are copied in place;
        otherwise the agent gets new networks.  The device stays.

        Raises:
            CheckpointError: if the state does not fit; the agent stays as it was.
        """
        with refusing("agent"):
            self._check_algo(state)
            if self._is_built_as(state):
                self._copy_state(state)
            else:
                built = self._built_from(state, self.device, **self.parts())
                self.__dict__.update(built.__dict__)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], device: str | torch.device | None = "cpu", **parts: Any
    ) -> Self:
        """Return the agent that a state describes, rebuilt from the state alone.

        Args:
            state: see ``state_dict``.
            device: where the networks live.
            parts: what the state can't hold: ``policy``, where that is a module of one's own.

        Raises:
            ConfigError: if there is no such device.
            CheckpointError: if the state is of another algorithm, incomplete or inconsistent.
        """
        chosen = check_device(device)
        with refusing("agent"):
            cls._check_algo(state)
            return cls._built_from(state, chosen, **parts)

    @classmethod
    def _check_algo(cls, state: Mapping[str, Any]) -> None:
        if state["algo"] != cls.algo:
            raise CheckpointError(
                f"a checkpoint of {state['algo']!r}, expected {cls.algo!r}; load it with that"
                " algorithm's class."
            )

    def _is_built_as(self, state: Mapping[str, Any]) -> bool:
        """Return whether ``state`` differs in values that can be copied, and in nothing else."""
        given = {**self.settings(), **dict.fromkeys(hyperparameters_of(type(self)))}
        return bool(
            {**state["settings"], **dict.fromkeys(hyperparameters_of(type(self)))} == given
            and all(
                network.has_shapes_of(state["networks"][name])
                for name, network in self.networks.items()
            )
        )

    @classmethod
    def _built_from(cls, state: Mapping[str, Any], device: torch.device, **parts: Any) -> Self:
        networks = state["networks"].values()
        stored = sum(x.numel() for network in networks for x in network["module"].values())
        with parameter_limit(max(SPARE * stored, 2**24)):  # settings that ask for more are forged
            agent: Self = cast(Any, cls)(**{**state["settings"], **parts}, device=device)
        for name, network in agent.networks.items():
            if not network.has_shapes_of(state["networks"][name]):
                network.take_shapes_of(state["networks"][name])
        agent._copy_state(state)
        return agent

    def _copy_state(self, state: Mapping[str, Any]) -> None:
        """Copy the values of a state of the same settings and shapes, all of them or none."""
        declared = hyperparameters_of(type(self)).values()
        settings = {x.name: x.check(x.name, state["settings"][x.name]) for x in declared}
        history = {name: copy.copy(state["history"][name]) for name in self.HISTORY}
        owners = self.rng_owners
        streams = [
            stream_like(owner.rng, text, self.device)
            for owner, text in zip(owners, state["streams"], strict=True)
        ]
        networks = [x.prepare_load(state["networks"][name]) for name, x in self.networks.items()]
        for name, value in (settings | history).items():
            setattr(self, name, value)
        for load in networks:
            load()
        for owner, stream in zip(owners, streams, strict=True):
            owner.rng = stream

    def saveCheckpoint(self, path: str | os.PathLike[str]) -> None:
        """Write the agent's state to a file, atomically; see ``load``."""
        checkpoint.save(path, self.state_dict())

    def loadCheckpoint(self, path: str | os.PathLike[str]) -> None:
        """Take over everything from a checkpoint of the same algorithm; the device stays.

        Raises:
            CheckpointError: if the file can't be read or does not fit; the agent stays as it was.
        """
        with naming(path):
            self.load_state_dict(checkpoint.load(path))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device | None = "cpu",
        **parts: Any,
    ) -> Self:
        """Return the agent that a checkpoint describes, rebuilt from the file alone.

        Args:
            path: of the file.
            device: where the networks live.
            parts: what a file can't hold: ``policy``, where that is a module of one's own.

        Raises:
            ConfigError: if there is no such device.
            CheckpointError: if the file can't be read, is of another algorithm, or is inconsistent.
        """
        chosen = check_device(device)
        with naming(path):
            return cls.from_state_dict(checkpoint.load(path), chosen, **parts)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors about a checkpoint name its file."""
    try:
        yield
    except CheckpointError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise CheckpointError(f"{path}: {error}") from error


def stream_like(rng: Stream, text: str, device: torch.device) -> Stream:
    """Return the stream that ``stream_state`` described, of the same library as ``rng``.

    A torch stream can't go on on another type of device: there it is one seeded by its state.
    """
    if isinstance(rng, np.random.Generator):
        fresh = np.random.default_rng(0)
        load_stream_state(fresh, text)
        return fresh
    for candidate in (torch.Generator(), torch.Generator(device)):
        try:
            load_stream_state(candidate, text)
        except RuntimeError:  # the state of another type of generator
            continue
        return candidate
    return torch.Generator().manual_seed(zlib.crc32(text.encode()))
