"""The settings of an agent.  Each is declared once: as a field of the agent's dataclass.

From that declaration follow the constructor's argument, the check on every later assignment, what
checkpoints hold, the key of ``INIT_HP``, and the range in which ``Mutations`` moves it.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Generic, TypeVar, overload

import torch

from agilerl.devices import check_device
from agilerl.errors import ConfigError, check_float, check_int

Given = TypeVar("Given")
Kept = TypeVar("Kept")

#: Fields that say which agent it is, and where, or that no file can hold.
IDENTITY = ("index", "mutation", "device", "accelerator", "seed", "policy")


class Setting(Generic[Given, Kept]):
    """A dataclass field whose value is checked, whatever sets it.

    Args:
        default: of the constructor's argument.
        check: returns what is kept, from the field's name and a value; raises ``ConfigError``.
    """

    name: str

    def __init__(self, default: Given, check: Callable[[str, Any], Kept]) -> None:
        self.default, self.check = default, check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, agent: None, owner: type) -> Given: ...
    @overload
    def __get__(self, agent: object, owner: type) -> Kept: ...
    def __get__(self, agent: object | None, owner: type) -> Given | Kept:
        if agent is None:
            return self.default  # where dataclasses look for it
        value: Kept = agent.__dict__[self.name]
        return value

    def __set__(self, agent: Any, value: Given) -> None:
        agent.__dict__[self.name] = self.check(self.name, value)


class Hyperparameter(Setting[float, float]):
    """A number that mutations may move; it is an integer if its default is one.

    Args:
        default: of the constructor's argument.
        low: smallest value that is accepted.
        high: largest value that is accepted.
        range: in which mutations move it, until they are told otherwise.
        log: whether they move it by a log-uniform factor.
        complement: whether they move what is missing to 1 so, as fits a discount.
    """

    def __init__(
        self,
        default: float,
        low: float,
        high: float,
        range: tuple[float, float],
        log: bool,
        complement: bool = False,
    ) -> None:
        self.integer = isinstance(default, int)
        self.range, self.log, self.complement = range, log, complement

        def check(name: str, value: Any) -> float:
            if self.integer:
                return check_int(name, value, minimum=int(low))
            return check_float(name, value, low, high)

        super().__init__(default, check)


class LearningRate(Hyperparameter):
    """A hyper-parameter that reaches the optimisers when it is set; their moments stay."""

    def __set__(self, agent: Any, value: float) -> None:
        super().__set__(agent, value)
        for network in agent.__dict__.get("networks", {}).values():
            network.lr = agent.lr


def setting(default: Any, check: Callable[[str, Any], Any]) -> Any:
    """Declare a field whose value is checked by ``check``; see ``Setting``."""
    return Setting(default, check)


def hyperparameter(
    default: float,
    *,
    low: float = 0.0,
    high: float = math.inf,
    range: tuple[float, float],
    log: bool = False,
    complement: bool = False,
) -> Any:
    """Declare a field that mutations may move; see ``Hyperparameter``."""
    return Hyperparameter(default, low, high, range, log, complement)


def device_setting() -> Setting[str | torch.device | None, torch.device]:
    """Declare where the networks of an agent live."""
    return Setting("cpu", lambda _, device: check_device(device))


def learning_rate(default: float) -> Any:
    """Declare the learning rate of all networks of an agent."""
    return LearningRate(default, 0.0, math.inf, range=(1e-5, 1e-2), log=True)


def no_accelerator(name: str, value: Any) -> None:
    """Raise ``ConfigError`` if an accelerator is given."""
    if value is not None:
        raise ConfigError("accelerator: only None is supported; pass device= to use a GPU.")


def flag(name: str, value: Any) -> bool:
    """Return ``value`` as a bool."""
    return bool(value)


def fraction(name: str, value: Any) -> float:
    """Return ``value`` as a float in [0, 1]; raise ``ConfigError`` otherwise."""
    return check_float(name, value, 0.0, 1.0)


def weight(name: str, value: Any) -> float:
    """Return ``value`` as a float that is at least 0; raise ``ConfigError`` otherwise."""
    return check_float(name, value, low=0.0)


def optional_weight(name: str, value: Any) -> float | None:
    """Return None, or ``value`` as a float that is at least 0; raise ``ConfigError`` otherwise."""
    return None if value is None else weight(name, value)


def count(name: str, value: Any) -> int:
    """Return ``value`` as an integer that is at least 1; raise ``ConfigError`` otherwise."""
    return check_int(name, value)


@functools.cache
def setting_names(agent_class: Any) -> tuple[str, ...]:
    """Return the names of the constructor arguments that describe an agent of this class."""
    return tuple(f.name for f in fields(agent_class) if f.name not in IDENTITY)


@functools.cache
def hyperparameters_of(agent_class: Any) -> dict[str, Hyperparameter]:
    """Return the hyper-parameters that a class of agents declares, by name."""
    declared = {
        name: inspect.getattr_static(agent_class, name, None) for name in setting_names(agent_class)
    }
    return {name: x for name, x in declared.items() if isinstance(x, Hyperparameter)}
