"""Deep deterministic policy gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import torch

from agilerl.algorithms import losses
from agilerl.algorithms.arrays import to_array
from agilerl.algorithms.base import Array, EvolvableAgent, learning
from agilerl.algorithms.settings import (
    Setting,
    device_setting,
    hyperparameter,
    no_accelerator,
    setting,
)
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.components.spaces import continuous_bounds
from agilerl.errors import ConfigError
from agilerl.finite import finite
from agilerl.networks.base import EvolvableNetwork
from agilerl.networks.build import build_network
from agilerl.seeding import derive

SMOOTHING_NOISE = 0.2
SMOOTHING_CLIP = 0.5


@dataclass(eq=False, repr=False)
class DDPG(EvolvableAgent):
    """DDPG (Lillicrap et al. 2016) with delayed policy updates and target smoothing.

    Delay and smoothing are those of TD3 (Fujimoto et al. 2018); there is one critic.  Actions are
    in the environment's units everywhere: acting, the buffer, learning.  Noise is measured in
    half-ranges of the actions: exploration is Normal(0, epsilon), smoothing is Normal(0, 0.2)
    clipped to 0.5, and what comes out is clipped to the bounds.

    Args:
        policy_freq: learn steps between updates of the actor and of the targets.
        min_action: lowest action, a number or [action_dim]; not given, it is taken from the
            environment by ``train()`` and ``test()``, and is -1 until then.
        max_action: highest action, likewise, and 1 until then.
        others: see ``EvolvableAgent``.
    """

    algo: ClassVar[str] = "DDPG"
    discrete: ClassVar[bool] = False
    #: The names of the critics.
    CRITICS: ClassVar[tuple[str, ...]] = ("critic",)

    policy_freq: int = hyperparameter(2, low=1, range=(1, 8))
    device: Setting[str | torch.device | None, torch.device] = device_setting()
    accelerator: None = setting(None, no_accelerator)
    _: KW_ONLY
    min_action: float | Sequence[float] | None = None
    max_action: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the bounds, and build the networks."""
        super().__post_init__()
        #: which bounds are known, because they were given or an environment has told them
        self._known = {
            name: getattr(self, name) is not None for name in ("min_action", "max_action")
        }
        self._set_bounds(
            -1.0 if self.min_action is None else self.min_action,
            1.0 if self.max_action is None else self.max_action,
        )

    def build_networks(self) -> dict[str, TrainedNetwork]:
        """Return the actor, whose tanh is scaled to the bounds, and the critics Q(s, a)."""
        actor = self.own_policy(
            lambda: self._network("actor", self.action_dim, output_activation="tanh")
        )
        critics = {
            name: self._network(name, 1, extra_inputs=self.action_dim) for name in self.CRITICS
        }
        networks: dict[str, torch.nn.Module] = {"actor": actor, **critics}
        return {name: TrainedNetwork(net, lr=self.lr) for name, net in networks.items()}

    def _network(self, name: str, outputs: int, **shape: Any) -> EvolvableNetwork:
        return build_network(
            self.net_config,
            self.observation_shape,
            outputs,
            device=self.device,
            seed=derive(self.seed, name),
            **shape,
        )

    @property
    def critics(self) -> list[TrainedNetwork]:
        """The critics; the actor climbs the first."""
        return [self.networks[name] for name in self.CRITICS]

    @property
    def critic(self) -> torch.nn.Module:
        """The module of the first critic."""
        return self.critics[0].module

    @property
    def critic_target(self) -> torch.nn.Module:
        """The target copy of the first critic."""
        return self.critics[0].target

    @property
    def actor_optimizer(self) -> torch.optim.Adam:
        """The actor's optimiser."""
        return self.optimizer

    @property
    def critic_optimizer(self) -> torch.optim.Adam:
        """The optimiser of the first critic."""
        return self.critics[0].optimizer

    # -------------------------------------------------------------------------------------- bounds

    def adapt_to_env(self, env: Any) -> None:
        """Take the bounds of the environment's actions, where none were given."""
        low, high = continuous_bounds(env, self.action_dim)
        if not all(self._known.values()):
            self._set_bounds(
                self.min_action if self._known["min_action"] else low,
                self.max_action if self._known["max_action"] else high,
            )
            self._known = dict.fromkeys(self._known, True)

    def settings(self) -> dict[str, Any]:
        """Return the constructor arguments; bounds that nobody has told are None."""
        unknown = [name for name, known in self._known.items() if not known]
        return {**super().settings(), **dict.fromkeys(unknown)}

    def _set_bounds(self, low: Any, high: Any) -> None:
        ones = np.ones(self.action_dim, np.float32)
        try:
            low, high = ones * np.asarray(low, np.float32), ones * np.asarray(high, np.float32)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"min_action, max_action: expected numbers or {self.action_dim} of them, got"
                f" {low!r} and {high!r}."
            ) from error
        if (
            low.shape != ones.shape
            or not (np.isfinite(low) & np.isfinite(high) & (low < high)).all()
        ):
            raise ConfigError(
                f"min_action, max_action: expected finite bounds, low < high, for"
                f" {self.action_dim} actions; got {low.tolist()} and {high.tolist()}."
            )
        self.min_action, self.max_action = low.tolist(), high.tolist()
        arrays = low, high, (high - low) / 2, (high + low) / 2
        self._bounds = arrays, tuple(torch.from_numpy(x).to(self.device) for x in arrays)

    def _bounds_like(self, x: Any) -> tuple[Any, ...]:
        """Return lowest and highest actions, half-ranges and middles [action_dim]."""
        return self._bounds[0 if isinstance(x, np.ndarray) else 1]

    def _scaled(self, policy: Any, noise: Any = None) -> Any:
        """Return actions of policy outputs in [-1, 1] plus noise, in the environment's units."""
        low, high, half, middle = self._bounds_like(policy)
        if noise is None:
            return middle + half * policy
        xp = losses.namespace(policy)
        return xp.minimum(xp.maximum(middle + half * (policy + noise), low), high)

    def _noise(self, policy: Any, sigma: float, limit: float = np.inf) -> Any:
        """Draw Normal(0, sigma) noise for policy outputs, clipped, from the agent's own stream."""
        drawn = self.rng.standard_normal(tuple(policy.shape), dtype=np.float32) * np.float32(sigma)
        np.clip(drawn, -limit, limit, out=drawn)
        return drawn if isinstance(policy, np.ndarray) else torch.from_numpy(drawn).to(self.device)

    # ----------------------------------------------------------------------------------- behaviour

    def act(self, states: Any, epsilon: float) -> Array:
        """Return the actions [N, action_dim] of the policy plus noise, within the bounds."""
        policy = self.policy_network.infer(states, target=self.averaged_policy and epsilon == 0)
        noise = self._noise(policy, epsilon) if epsilon > 0 else 0 * policy
        actions: Array = to_array(self._scaled(policy, noise))
        if not finite(actions):  # the environment would be blamed for what it makes of them
            self.note_divergence("actions are")
            actions = np.where(np.isfinite(actions), actions, self._bounds[0][3])
        return actions

    @learning
    def learn(self, experiences: Sequence[Any]) -> float:
        """Make one step of the critics and, every ``policy_freq`` calls, of the actor.

        Returns:
            The critics' loss.
        """
        states, actions, rewards, next_states, dones = self.unpack(experiences)
        actor, critics = self.policy_network, self.critics
        next_policy = actor.infer(next_states, target=True)
        noise = self._noise(next_policy, SMOOTHING_NOISE, SMOOTHING_CLIP)
        next_actions = self._scaled(next_policy, noise)
        next_values = [q.infer(next_states, next_actions, target=True)[:, 0] for q in critics]
        least = reduce(losses.namespace(rewards).minimum, next_values)
        targets = losses.td_target(rewards, dones, least, self.gamma)

        total = 0.0
        for critic in critics:
            values = critic.forward(states, actions)[:, 0]
            loss, gradient = losses.squared_error(values, targets)
            total += self.descend(critic, loss, gradient[:, None])

        self.learn_count += 1
        if self.learn_count % self.policy_freq == 0:
            self._climb(states)
            for network in self.networks.values():
                network.soft_update(self.tau)
        return total

    def _climb(self, states: Any) -> None:
        """Make one step of the actor towards actions that the first critic values more."""
        actor, critic = self.policy_network, self.critics[0]
        policy = actor.forward(states)
        values = critic.forward(states, self._scaled(policy))[:, 0]
        loss, gradient = losses.policy_gradient(values)
        half_range = self._bounds_like(policy)[2]
        self.descend(actor, loss, half_range * critic.input_gradient(gradient[:, None]))
