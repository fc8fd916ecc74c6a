"""A user's own agent, presented as networks that mutations can change.

This is the one place that knows attributes by the names that a user gave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.errors import ConfigError, check_keys

Layout = list[dict[str, str]]

ROLES = ("eval", "target", "optimizer")


def check_layout(algo: Mapping[str, Any]) -> Layout:
    """Return the networks that ``algo`` names, the actor first.

    Raises:
        ConfigError: if a key is unknown or missing.
    """
    check_keys("algo", algo, ("actor", "critics"))
    if "actor" not in algo:
        raise ConfigError("algo: 'actor' is missing; expected {'actor': {'eval': 'actor', ...}}.")
    networks = [algo["actor"], *algo.get("critics", [])]
    for names in networks:
        check_keys("algo's networks", names, ROLES)
        if "eval" not in names:
            raise ConfigError(f"algo: a network without 'eval': {dict(names)}.")
    return [dict(names) for names in networks]


def _attribute(agent: Any, name: str, kind: type) -> Any:
    value = getattr(agent, name, None)
    if not isinstance(value, kind):
        raise ConfigError(
            f"algo: the agent's attribute {name!r} should be a {kind.__name__}, it is"
            f" {type(value).__name__}; correct the name in the dict."
        )
    return value


class ForeignAgent:
    """A view of a foreign agent with the parts that mutations need.

    Its networks are edited in place; its target networks and optimisers follow the edit in place,
    so that the agent's own ``learn`` goes on with live parameters and kept moments.
    """

    def __init__(self, agent: Any, layout: Layout) -> None:
        self.__dict__["agent"] = agent
        self.__dict__["networks"] = {
            names["eval"]: ForeignNetwork(agent, names) for names in layout
        }
        for name, network in self.networks.items():
            network.check_held(name, self.networks)

    @property
    def policy_network(self) -> ForeignNetwork:
        """The network that acts."""
        networks: dict[str, ForeignNetwork] = self.networks
        return next(iter(networks.values()))

    def __getattr__(self, name: str) -> Any:
        """Return the agent's own attribute."""
        return getattr(self.__dict__["agent"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the agent's own attribute; the learning rate reaches its optimisers too."""
        setattr(self.agent, name, value)
        if name == "lr":
            for network in self.networks.values():
                network.set_lr(value)


class ForeignNetwork(TrainedNetwork):
    """A module, target and optimiser that belong to a foreign agent."""

    def __init__(self, agent: Any, names: Mapping[str, str]) -> None:
        module = _attribute(agent, names["eval"], nn.Module)
        super().__init__(module, lr=None, target_of=None)
        if names.get("target"):
            self._target = _attribute(agent, names["target"], nn.Module)
            self._target_of = ""
        if names.get("optimizer"):
            self._optimizer = _attribute(agent, names["optimizer"], torch.optim.Optimizer)

    def check_held(self, name: str, networks: Mapping[str, ForeignNetwork]) -> None:
        """Raise ``ConfigError`` if only others are said to own the optimiser of this network."""
        own = set(map(id, self._module.parameters()))
        for other in networks.values() if self._optimizer is None else ():
            groups = other._optimizer.param_groups if other._optimizer is not None else ()
            if any(id(p) in own for group in groups for p in group["params"]):
                raise ConfigError(
                    f"algo: {name!r} has no 'optimizer', but one of another network holds its"
                    " parameters; name that optimiser for both."
                )

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the optimiser, if there is one."""
        for group in self._optimizer.param_groups if self._optimizer is not None else ():
            group["lr"] = lr
