"""What agents have in common that learn from transitions."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import wraps
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from agilerl.algorithms.agent import Agent
from agilerl.algorithms.arrays import (
    as_floats,
    as_integers,
    as_numbers,
    as_observations,
    one_hot,
    to_array,
)
from agilerl.algorithms.observation_scale import ObservationScale
from agilerl.algorithms.own_policy import check_policy, own_module
from agilerl.algorithms.settings import (
    Setting,
    flag,
    hyperparameter,
    learning_rate,
    optional_weight,
    setting,
)
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.components.spaces import check_observation_space, single_spaces
from agilerl.components.transitions import Step, evaluate
from agilerl.errors import ConfigError, check_int, check_sizes
from agilerl.networks.build import check_net_config

Tensor = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]


def learning(learn: Callable[[Any, Sequence[Any]], float]) -> Callable[[Any, Sequence[Any]], float]:
    """Wrap an agent's ``learn``: its networks are looked at once for what was done to them.

    Numbers that overflow are for ``descend`` to notice, and not for NumPy's warnings.
    """

    @wraps(learn)
    def wrapper(self: Any, experiences: Sequence[Any]) -> float:
        networks = self.networks.values()
        try:
            for network in networks:
                network.check()
            with np.errstate(all="ignore"):
                return learn(self, experiences)
        finally:
            for network in networks:
                network.uncheck()

    return wrapper


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
        scale_observations: entries of vectors that stay below 1 in the batches learnt from are
            divided by the largest there, see ``ObservationScale``.
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
    scale_observations: bool = setting(False, flag)
    policy: Setting[nn.Module | None, nn.Module | None] = Setting(None, own_module)

    def __post_init__(self) -> None:
        """Check the arguments that stay as they are, and build the networks."""
        self.one_hot = bool(self.one_hot)
        self.state_dim = self.observation_shape = check_state_dim(self.state_dim, self.one_hot)
        self.action_dim = check_int("action_dim", self.action_dim)
        vectors = len(self.observation_shape) == 1 and not self.one_hot
        self.observation_scale: ObservationScale | None = None
        if self.scale_observations and vectors:
            self.observation_scale = ObservationScale(self.observation_shape[0])
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
        observations = as_observations(states, self.observation_shape)
        scale = self.observation_scale
        return observations if scale is None else scale(observations)

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
        if self.observation_scale is not None:
            self.observation_scale.see(as_observations(states, self.observation_shape))
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

    def state_dict(self) -> dict[str, Any]:
        """Return everything that makes up the agent, but for the device it lives on."""
        scale = self.observation_scale
        kept = {} if scale is None else {"observation_scale": scale.state_dict()}
        return {**super().state_dict(), **kept}

    def _copy_state(self, state: Mapping[str, Any]) -> None:
        scale = self.observation_scale
        if scale is not None:
            scale = ObservationScale.from_state_dict(
                state["observation_scale"], self.observation_shape[0]
            )
        super()._copy_state(state)
        self.observation_scale = scale

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
