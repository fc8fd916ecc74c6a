"""What all agents share, and what those have in common that learn from transitions."""

from __future__ import annotations

import copy
import logging
import math
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import nn

from agilerl import checkpoint
from agilerl.algorithms.arrays import (
    as_floats,
    as_integers,
    as_numbers,
    as_observations,
    one_hot,
    to_array,
)
from agilerl.algorithms.own_policy import check_policy, own_module
from agilerl.algorithms.settings import (
    Setting,
    flag,
    hyperparameter,
    hyperparameters_of,
    learning_rate,
    optional_weight,
    setting,
    setting_names,
)
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.components.spaces import check_observation_space, single_spaces
from agilerl.components.transitions import Step, evaluate
from agilerl.devices import check_device
from agilerl.errors import CheckpointError, ConfigError, check_int, check_sizes, refusing
from agilerl.networks.base import EvolvableNetwork, parameter_limit
from agilerl.networks.build import check_net_config
from agilerl.seeding import Generator, Stream, branch, generator, load_stream_state, stream_state

logger = logging.getLogger("agilerl")

#: How many times the parameters of a state its settings may ask for: an agent may have shrunk.
SPARE = 16

Tensor = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]


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


@dataclass(eq=False, repr=False)
class EvolvableAgent(Agent):
    """Base class of the agents that learn from transitions.

    Args:
        state_dim: number of discrete states, width of a vector, or the shape of an observation
            (channels first).
        action_dim: number of discrete actions, or width of a continuous one.
        one_hot: observations are integers 0..n-1 and are encoded one-hot.
        index: identity of the agent in its population.
        net_config: shape that the networks begin with, see ``agilerl.networks.build``;
            ``architecture`` says what they are now.
        batch_size: transitions in a learn step.
        lr: learning rate of Adam.
        learn_step: vector steps between learn steps.
        gamma: discount in [0, 1].
        tau: fraction by which a target network moves at each update, in [0, 1].
        mutation: initial value of ``mut``, the label of the last mutation.
        device: where the networks live.
        accelerator: must be None.
        seed: of initial weights and exploration.
        max_grad_norm: largest norm of a network's gradient in a step; None is off.
        averaged_policy: greedy actions (epsilon 0) come from the target network: its weights are a
            moving average of the policy's, and what an evaluation sees does not hang on the last
            few learn steps (Polyak and Juditsky 1992).
        policy: a torch module in place of the policy network of ``net_config``; the agent trains a
            copy of it.  It maps observations [N, ...], float32, to Q values [N, action_dim], or to
            actions [N, action_dim] in [-1, 1] where these are continuous.  Evolution leaves its
            shape as it is, and a checkpoint holds its weights alone: see ``load``.
    """

    #: Whether actions are numbers 0..action_dim-1; otherwise they are vectors.
    discrete: ClassVar[bool]

    state_dim: int | Sequence[int]
    action_dim: int
    one_hot: bool
    index: int = 0
    net_config: Setting[Mapping[str, Any] | None, dict[str, Any]] = Setting(
        None, lambda _, config: check_net_config(config or {"arch": "mlp", "h_size": [64, 64]})
    )
    batch_size: int = hyperparameter(64, low=1, range=(8, 1024))
    lr: float = learning_rate(1e-4)
    learn_step: int = hyperparameter(5, low=1, range=(1, 16))
    gamma: float = hyperparameter(0.99, high=1.0, range=(0.9, 0.999), complement=True)
    tau: float = hyperparameter(1e-3, high=1.0, range=(1e-4, 1e-1), log=True)
    mutation: str | None = None
    # here stand the README's ``double`` or ``policy_freq``, ``device`` and ``accelerator``
    _: KW_ONLY
    seed: int | None = None
    max_grad_norm: float | None = setting(None, optional_weight)
    averaged_policy: bool = setting(False, flag)
    policy: Setting[nn.Module | None, nn.Module | None] = Setting(None, own_module)

    def __post_init__(self) -> None:
        """Check the arguments that stay as they are, and build the networks."""
        self.one_hot = bool(self.one_hot)
        self.state_dim = self.observation_shape = check_state_dim(self.state_dim, self.one_hot)
        self.action_dim = check_int("action_dim", self.action_dim)
        super().__post_init__()

    # ------------------------------------------------------------------- to be given by subclasses

    def own_policy(self, build: Callable[[], nn.Module]) -> nn.Module:
        """Return the module that was given as ``policy``, or else what ``build()`` returns."""
        if self.policy is None:
            return build()
        policy = self.policy.to(self.device)
        check_policy(policy, self.observation_shape, self.action_dim, self.device)
        return policy

    def settings(self) -> dict[str, Any]:
        """Return the constructor arguments; a policy of one's own is there by its class's name."""
        own = type(self.policy).__name__
        return {**super().settings(), **({} if self.policy is None else {"policy": own})}

    def parts(self) -> dict[str, Any]:
        """Return the policy of one's own, if there is one."""
        return {} if self.policy is None else {"policy": self.policy}

    @abstractmethod
    def act(self, states: Any, epsilon: float) -> Array:
        """Return the actions in ``states`` [N, ...] (see ``native``), explored with ``epsilon``."""

    @abstractmethod
    def learn(self, experiences: Sequence[Tensor]) -> float:
        """Learn from one batch and return its loss.

        Args:
            experiences: states [B, ...], actions [B, 1] or [B, action_dim], rewards [B, 1], next
                states [B, ...] and dones [B, 1], as ``ReplayBuffer.sample`` gives them.
        """

    def adapt_to_env(self, env: Any) -> None:
        """Take from an environment what the agent was not told; raise ``EnvError`` if unfit."""
        check_observation_space(single_spaces(env)[0])

    # ------------------------------------------------------------------------------------- learning

    def descend(self, network: TrainedNetwork, loss: Any, gradient: Any) -> float:
        """Make one step of a network down a loss [], and return the loss.

        Where the loss or a gradient is NaN or infinite, no step is made, and the agent is marked.

        Args:
            network: whose ``forward`` came last.
            loss: of the outputs of ``forward``.
            gradient: of the loss with respect to these outputs.
        """
        value = float(loss)
        network.backward(gradient)
        if not (math.isfinite(value) and network.step(self.max_grad_norm)):
            self.note_divergence("a loss or gradient is")
        return value

    # -------------------------------------------------------------------------------- observations

    def native(self, *values: Any) -> list[Any]:
        """Return values as the policy is fastest on: NumPy on the CPU kernel, else torch."""
        if self.policy_network.on_kernel:
            return [to_array(x) for x in values]
        return [torch.as_tensor(x, device=self.device) for x in values]

    def encode(self, states: Any) -> Any:
        """Return a batch of observations [N, ...], an array or a tensor, as the networks read it.

        Raises:
            EnvError: if the observations have another shape, or a state is not in 0..n-1.
        """
        if self.one_hot:
            return one_hot(states, self.observation_shape[0])
        return as_observations(states, self.observation_shape)

    @np.errstate(all="ignore")
    def getAction(self, state: Any, epsilon: float = 0) -> Array:
        """Return the action in one state, or the actions [N] or [N, action_dim] in N states.

        The action in one state is a NumPy number where actions are discrete.

        Args:
            state: an observation, or a batch of them along the first axis (channels first).
            epsilon: exploration, 0 is greedy and draws nothing.

        Raises:
            EnvError: if ``state`` is no observation, or none of the agent's shape.
        """
        (states,) = self.native(as_numbers(state))
        single = states.ndim == (0 if self.one_hot else len(self.observation_shape))
        actions = self.act(self.encode(states[None] if single else states), epsilon)
        first: Array = actions[0]
        return first if single else actions

    def unpack(self, experiences: Sequence[Any]) -> tuple[Any, ...]:
        """Return states, actions, rewards [B], next states and dones [B] of a batch.

        Discrete actions are integers [B].  All else is float32 (states are encoded, other actions
        are [B, action_dim]), and of the kind that ``native`` gives.
        """
        states, actions, rewards, next_states, dones = self.native(*experiences)
        if self.discrete:
            actions = as_integers(actions)
        else:
            actions = as_floats(actions).reshape(len(states), self.action_dim)
        return (
            self.encode(states),
            actions,
            as_floats(rewards).reshape(-1),
            self.encode(next_states),
            as_floats(dones).reshape(-1),
        )

    def test(
        self,
        env: Any,
        swap_channels: bool = False,
        max_steps: int = 500,
        loop: int = 3,
        seen: Callable[[Step], object] = lambda step: None,
    ) -> float:
        """Return, and append to ``fitness``, the mean undiscounted return of whole episodes.

        Args:
            env: a vector environment, or a single one.
            swap_channels: images come as [H, W, C].
            max_steps: an episode is cut there, with its return so far.
            loop: episodes of each sub-environment.
            seen: is shown every step.
        """
        self.adapt_to_env(env)
        return self.measure(
            lambda: evaluate(self.getAction, env, loop, max_steps, swap_channels, seen)
        )


def check_state_dim(state_dim: Any, one_hot: bool) -> tuple[int, ...]:
    """Return ``state_dim``, a number or a shape, as a shape; of one number where ``one_hot``."""
    if isinstance(state_dim, list | tuple):
        shape = check_sizes("state_dim", state_dim)
    else:
        shape = (check_int("state_dim", state_dim),)
    if one_hot and len(shape) != 1:
        raise ConfigError(
            f"state_dim: one_hot=True needs the number of states n, got {shape}; pass"
            " one_hot=False for vectors and images."
        )
    return shape
