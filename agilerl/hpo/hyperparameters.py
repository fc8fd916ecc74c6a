"""Which learning hyper-parameters may change, how far, and in which steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agilerl.algorithms import ALGORITHMS
from agilerl.algorithms.settings import Hyperparameter, hyperparameters_of
from agilerl.errors import ConfigError, check_float, check_keys

#: Widest change of one mutation on a logarithmic scale.
LOG_STEP = 3.0
#: Change of one mutation elsewhere: to 80 % or 120 %.
STEPS = (0.8, 1.2)


@dataclass(frozen=True)
class Range:
    """Where a hyper-parameter may move, and how.

    Args:
        low: smallest value.
        high: largest value.
        log: multiply by a log-uniform factor in [1/3, 3]; otherwise by 0.8 or 1.2.
        integer: round, and move by at least 1.
        complement: multiply ``1 - value`` by a log-uniform factor in [1/3, 3], as fits a discount:
            its horizon is ``1 / (1 - discount)``.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    complement: bool = False

    @classmethod
    def of(cls, declared: Hyperparameter) -> Range:
        """Return the range that an algorithm declares for a hyper-parameter."""
        return cls(*declared.range, declared.log, declared.integer, declared.complement)

    def widened(self, value: float) -> Range:
        """Return the range that includes ``value``."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def at(self, quantile: float) -> float:
        """Return the value at a quantile in [0, 1) of the uniform, or log-uniform, distribution."""
        if self.integer:
            count = self.high - self.low + 1
            return int(min(self.low + math.floor(quantile * count), self.high))
        if self.complement and self.high < 1:
            return float(1 - (1 - self.low) * ((1 - self.high) / (1 - self.low)) ** quantile)
        if self.log:
            return float(self.low * (self.high / self.low) ** quantile)
        return float(self.low + quantile * (self.high - self.low))

    def mutate(self, value: float, rng: np.random.Generator) -> float:
        """Return a new value within the range."""
        if self.log or self.complement:
            factor = float(np.exp(rng.uniform(-np.log(LOG_STEP), np.log(LOG_STEP))))
        else:
            factor = float(rng.choice(STEPS))
        new = 1 - (1 - value) * factor if self.complement else value * factor
        if self.integer:
            new = round(new)
            if new == value:
                new += 1 if factor > 1 else -1
        new = min(max(new, self.low), self.high)
        return int(new) if self.integer else float(new)


def declared_ranges(algo: str) -> dict[str, Range]:
    """Return the ranges that an algorithm declares, by name of the hyper-parameter."""
    declared = hyperparameters_of(ALGORITHMS[algo])
    return {name: Range.of(x) for name, x in declared.items()}


#: The ranges of all algorithms, for agents of one's own; an earlier algorithm goes before a later.
DEFAULTS = {k: x for algo in reversed(ALGORITHMS) for k, x in declared_ranges(algo).items()}


def ranges_for(
    names: Sequence[str],
    given: Mapping[str, tuple[float, float] | Range],
    algo: str | None = None,
) -> dict[str, Range]:
    """Return the range of each hyper-parameter in ``names``.

    Args:
        names: the hyper-parameters that may change.
        given: ranges of the user, ``(low, high)`` or a ``Range``, before the declared ones.
        algo: the algorithm whose declared ranges go before those of others.

    Raises:
        ConfigError: if a range is malformed, or one is missing that has no default.
    """
    defaults = DEFAULTS | (declared_ranges(algo) if algo else {})
    ranges = {}
    for name in names:
        if name not in given and name not in defaults:
            raise ConfigError(
                f"rl_hp_selection: no range is known for {name!r}; pass"
                f" Mutations(ranges={{{name!r}: (low, high)}})."
            )
        default = defaults.get(name)
        field = f"ranges[{name!r}]"
        ranges[name] = range_of(field, given[name], default) if name in given else defaults[name]
    for name in given:
        if name not in names:
            raise ConfigError(
                f"ranges: {name!r} is not in rl_hp_selection {list(names)}; add it there."
            )
    return ranges


def range_of(field: str, given: Any, default: Range | None = None) -> Range:
    """Return the range that a user gave.

    Args:
        field: what it is called in errors.
        given: a ``Range``, a pair ``(low, high)``, or a dict ``{"low": low, "high": high}``.
        default: says how the hyper-parameter moves.

    Raises:
        ConfigError: if it is malformed or empty.
    """
    if isinstance(given, Range):
        low, high, default = given.low, given.high, given
    else:
        try:
            if isinstance(given, Mapping):
                check_keys(field, given, ("low", "high"))
                given = given["low"], given["high"]
            low, high = given
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"{field}: expected (low, high), got {given!r}.") from error
    low, high = check_float(field, low), check_float(field, high)
    if default is not None and default.integer:
        low, high = math.ceil(low), math.floor(high)
    positive = default is None or default.log or default.integer
    if low > high or (positive and low <= 0):
        raise ConfigError(
            f"{field}: expected 0 < low <= high"
            f"{' with an integer in between' if default and default.integer else ''},"
            f" got {given!r}."
        )
    if default is not None:
        return replace(default, low=low, high=high)
    integer = isinstance(given[0], int) and isinstance(given[1], int)
    return Range(low, high, log=not integer and high / low >= 10, integer=integer)
