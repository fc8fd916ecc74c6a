"""What all agents share."""

from __future__ import annotations

import copy
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch

from agilerl import checkpoint
from agilerl.algorithms.agent_state import agent_state, drawers, load_agent
from agilerl.algorithms.inputs import (
    Checked,
    as_floats,
    as_numbers,
    as_observations,
    check_observations,
    check_state_dim,
    fraction,
    one_hot,
    to_array,
)
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.components.spaces import check_observation_space, single_spaces
from agilerl.components.transitions import evaluate
from agilerl.devices import check_device
from agilerl.errors import ConfigError, check_float, check_int
from agilerl.lineage import Ancestor
from agilerl.networks.base import EvolvableNetwork
from agilerl.networks.build import check_net_config
from agilerl.seeding import branch, generator

logger = logging.getLogger("agilerl")

Tensor = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]


class EvolvableAgent(ABC):
    """Base class of the agents.

    A subclass says once which networks it owns (``build_networks``); cloning, checkpoints,
    mutation and soft updates iterate over them.

    Args:
        state_dim: number of discrete states, width of a vector, or the shape of an observation
            (channels first).
        action_dim: number of discrete actions, or width of a continuous one.
        one_hot: observations are integers 0..n-1 and are encoded one-hot.
        index: identity of the agent in its population.
        net_config: shape of the networks, see ``agilerl.networks.build``.
        batch_size: transitions in a learn step.
        lr: learning rate of Adam.
        learn_step: vector steps between learn steps.
        gamma: discount in [0, 1].
        tau: fraction by which a target network moves at each update, in [0, 1].
        mutation: initial value of ``mut``, the label of the last mutation.
        device: where the networks live.
        accelerator: must be None.
        seed: of initial weights and exploration.

    Attributes:
        scores: mean return of each training episode.
        fitness: one value for each ``test()``.
        steps: environment steps taken in training, one entry for each generation.
        lineage: one record for each generation that was evaluated, ancestors first.
        net_config: shape that the networks began with; ``architecture`` says what they are now.
        parent: index of the agent that this one was cloned from, or None.
    """

    #: The name by which ``initialPopulation`` and ``Mutations`` know the algorithm.
    algo: ClassVar[str]
    #: The constructor arguments beyond the shared ones.
    own_settings: ClassVar[tuple[str, ...]] = ()

    #: The learning hyper-parameters that are recorded, and that mutations may choose from.
    hyperparameter_names: ClassVar[tuple[str, ...]] = (
        "lr",
        "batch_size",
        "learn_step",
        "gamma",
        "tau",
    )

    batch_size = Checked(check_int)
    learn_step = Checked(check_int)
    gamma = Checked(fraction)
    tau = Checked(fraction)
    #: What the agent owns, by name; the first is the policy.  Subclasses set it last.
    networks: dict[str, TrainedNetwork]

    def __init__(
        self,
        state_dim: int | Sequence[int],
        action_dim: int,
        one_hot: bool,
        index: int = 0,
        net_config: Mapping[str, Any] | None = None,
        batch_size: int = 64,
        lr: float = 1e-4,
        learn_step: int = 5,
        gamma: float = 0.99,
        tau: float = 1e-3,
        mutation: str | None = None,
        device: str | torch.device = "cpu",
        accelerator: None = None,
        seed: int | None = None,
    ) -> None:
        if accelerator is not None:
            raise ConfigError("accelerator: only None is supported; pass device= to use a GPU.")
        self.one_hot = bool(one_hot)
        self.state_dim = check_state_dim(state_dim, self.one_hot)
        self.action_dim = check_int("action_dim", action_dim)
        self.index = index
        config = {"arch": "mlp", "h_size": [64, 64]} if net_config is None else net_config
        self.net_config = check_net_config(config)
        self.batch_size = batch_size
        self._lr = check_float("lr", lr, low=0.0)
        self.learn_step = learn_step
        self.gamma = gamma
        self.tau = tau
        self.mut = mutation
        self.device = check_device(device)
        self.rng = generator(seed, "exploration")
        self.parent: int | None = None
        self.elite = False
        self.lineage: tuple[Ancestor, ...] = ()
        self.scores: list[float] = []
        self.fitness: list[float] = []
        self.steps: list[int] = [0]
        self.learn_count = 0
        self.seed = seed

    # ------------------------------------------------------------------- to be given by subclasses

    @abstractmethod
    def build_networks(self) -> dict[str, TrainedNetwork]:
        """Return the networks that the agent owns; the first is the policy."""

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

    def bind(self, env: Any) -> None:
        """Take from an environment what the agent was not told; raise ``EnvError`` if unfit."""
        check_observation_space(single_spaces(env)[0])

    # ------------------------------------------------------------------------------------ networks

    @property
    def policy(self) -> TrainedNetwork:
        """The network that acts."""
        return next(iter(self.networks.values()))

    @property
    def actor(self) -> EvolvableNetwork:
        """The module of the policy network."""
        return self.policy.evolvable

    @property
    def actor_target(self) -> torch.nn.Module:
        """The target copy of the policy network."""
        return self.policy.target

    @property
    def optimizer(self) -> torch.optim.Adam:
        """The optimiser of the policy network."""
        return self.policy.optimizer

    @property
    def lr(self) -> float:
        """The learning rate; setting it reaches every optimiser, and moments stay."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = check_float("lr", lr, low=0.0)
        for network in self.networks.values():
            network.lr = self._lr

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The learning hyper-parameters by name."""
        return {name: getattr(self, name) for name in self.hyperparameter_names}

    @property
    def architecture(self) -> str:
        """The policy network in a few words."""
        return self.actor.summary()

    # -------------------------------------------------------------------------------- observations

    def native(self, *values: Any) -> list[Any]:
        """Return values as the policy is fastest on: NumPy on the CPU kernel, else torch."""
        if self.policy.on_kernel:
            return [to_array(x) for x in values]
        return [torch.as_tensor(x, device=self.device) for x in values]

    def encode(self, states: Any) -> Any:
        """Return a batch of observations [N, ...], an array or a tensor, as the networks read it.

        Raises:
            EnvError: if the observations have another shape, or a state is not in 0..n-1.
        """
        if self.one_hot:
            return one_hot(states, self.state_dim[0])
        check_observations(states, self.state_dim)
        return as_observations(states)

    @np.errstate(all="ignore")
    def getAction(self, state: Any, epsilon: float = 0) -> Any:
        """Return the action in one state, or the actions [N] or [N, action_dim] in N states.

        Args:
            state: an observation, or a batch of them along the first axis (channels first).
            epsilon: exploration, 0 is greedy and draws nothing.

        Raises:
            EnvError: if ``state`` is no observation, or none of the agent's shape.
        """
        (states,) = self.native(as_numbers(state))
        single = states.ndim == (0 if self.one_hot else len(self.state_dim))
        actions = self.act(self.encode(states[None] if single else states), epsilon)
        return actions[0] if single else actions

    def unpack(self, experiences: Sequence[Any]) -> tuple[Any, ...]:
        """Return states, actions [B, ...], rewards [B], next states and dones [B] of a batch.

        All are float32 (states are encoded), and of the kind that ``native`` gives.
        """
        states, actions, rewards, next_states, dones = self.native(*experiences)
        return (
            self.encode(states),
            as_floats(actions),
            as_floats(rewards).reshape(-1),
            self.encode(next_states),
            as_floats(dones).reshape(-1),
        )

    # ---------------------------------------------------------------------------------- evaluation

    def test(
        self,
        env: Any,
        swap_channels: bool = False,
        max_steps: int = 500,
        loop: int = 3,
    ) -> float:
        """Return, and append to ``fitness``, the mean undiscounted return of whole episodes.

        Args:
            env: a vector environment, or a single one.
            swap_channels: images come as [H, W, C].
            max_steps: an episode is cut there, with its return so far.
            loop: episodes of each sub-environment.
        """
        self.bind(env)
        if all(network.is_finite() for network in self.networks.values()):
            returns = evaluate(self.getAction, env, loop, max_steps, swap_channels)
            fitness = float(returns.mean())
        else:
            logger.warning(
                "agent %d has diverged (weights are not finite): fitness -inf", self.index
            )
            fitness = float("-inf")
        self.fitness.append(fitness)
        return fitness

    # -------------------------------------------------------------------------------------- copies

    def clone(self, index: int | None = None) -> Self:
        """Return an independent copy with random streams of its own, sharing nothing.

        Args:
            index: identity of the copy; None keeps this agent's.
        """
        twin = copy.deepcopy(self)
        for drawer in drawers(twin):
            drawer.rng = branch(self.rng)
        twin.parent = self.index
        if index is not None:
            twin.index = index
        return twin

    def settings(self) -> dict[str, Any]:
        """Return the constructor arguments that describe the agent, without index and device."""
        shared = {
            "state_dim": list(self.state_dim),
            "action_dim": self.action_dim,
            "one_hot": self.one_hot,
            "net_config": self.net_config,
            **{name: getattr(self, name) for name in EvolvableAgent.hyperparameter_names},
        }
        return {**shared, **{name: getattr(self, name) for name in self.own_settings}}

    def saveCheckpoint(self, path: str | os.PathLike[str]) -> None:
        """Write everything that was learnt, atomically; see ``load``."""
        checkpoint.save(path, agent_state(self))

    def loadCheckpoint(self, path: str | os.PathLike[str]) -> None:
        """Take over everything from a checkpoint of the same algorithm; the device stays.

        Raises:
            CheckpointError: if the file can't be read or does not fit; the agent stays as it was.
        """
        self.__dict__.update(type(self).load(path, self.device).__dict__)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """Return the agent that a checkpoint describes, rebuilt from the file alone."""
        agent: Self = load_agent(cls, path, device)
        return agent
