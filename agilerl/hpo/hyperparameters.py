"""Which learning hyper-parameters may change, how far, and in which steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agilerl.errors import ConfigError, check_float

#: Widest change of one mutation on a logarithmic scale.
LOG_STEP = 3.0
#: Change of one mutation elsewhere: to 80 % or 120 %.
STEPS = (0.8, 1.2)


@dataclass(frozen=True)
class HyperParameter:
    """A range, and how to move in it.

    Args:
        low: smallest value.
        high: largest value.
        log: multiply by a log-uniform factor in [1/3, 3]; otherwise by 0.8 or 1.2.
        integer: round, and move by at least 1.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def widened(self, value: float) -> HyperParameter:
        """Return the range that includes ``value``."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def mutate(self, value: float, rng: np.random.Generator) -> float:
        """Return a new value within the range."""
        if self.log:
            factor = float(np.exp(rng.uniform(-np.log(LOG_STEP), np.log(LOG_STEP))))
        else:
            factor = float(rng.choice(STEPS))
        new = value * factor
        if self.integer:
            new = round(new)
            if new == value:
                new += 1 if factor > 1 else -1
        new = min(max(new, self.low), self.high)
        return int(new) if self.integer else float(new)


DEFAULTS: dict[str, HyperParameter] = {
    "lr": HyperParameter(1e-5, 1e-2, log=True),
    "batch_size": HyperParameter(8, 1024, integer=True),
    "learn_step": HyperParameter(1, 16, integer=True),
    "gamma": HyperParameter(0.9, 0.999),
    "tau": HyperParameter(1e-4, 1e-1, log=True),
    "alpha": HyperParameter(1e-2, 10.0, log=True),
    "policy_freq": HyperParameter(1, 8, integer=True),
}


def ranges_for(
    names: Sequence[str], given: Mapping[str, tuple[float, float] | HyperParameter]
) -> dict[str, HyperParameter]:
    """Return the range of each hyper-parameter in ``names``.

    Args:
        names: the hyper-parameters that may change.
        given: ranges of the user, ``(low, high)`` or a ``HyperParameter``, before the defaults.

    Raises:
        ConfigError: if a range is malformed, or one is missing that has no default.
    """
    ranges = {}
    for name in names:
        if name not in given and name not in DEFAULTS:
            raise ConfigError(
                f"rl_hp_selection: no range is known for {name!r}; pass"
                f" Mutations(ranges={{{name!r}: (low, high)}})."
            )
        ranges[name] = _range(name, given[name]) if name in given else DEFAULTS[name]
    for name in given:
        if name not in names:
            raise ConfigError(
                f"ranges: {name!r} is not in rl_hp_selection {list(names)}; add it there."
            )
    return ranges


def _range(name: str, given: Any) -> HyperParameter:
    default = DEFAULTS.get(name)
    if isinstance(given, HyperParameter):
        low, high, default = given.low, given.high, given
    else:
        try:
            low, high = given
        except (TypeError, ValueError) as error:
            raise ConfigError(f"ranges[{name!r}]: expected (low, high), got {given!r}.") from error
    low, high = check_float(f"ranges[{name!r}]", low), check_float(f"ranges[{name!r}]", high)
    if default is not None and default.integer:
        low, high = math.ceil(low), math.floor(high)
    positive = default is None or default.log or default.integer
    if low > high or (positive and low <= 0):
        raise ConfigError(
            f"ranges[{name!r}]: expected 0 < low <= high"
            f"{' with an integer in between' if default and default.integer else ''},"
            f" got {given!r}."
        )
    if default is not None:
        return replace(default, low=low, high=high)
    integer = isinstance(given[0], int) and isinstance(given[1], int)
    return HyperParameter(low, high, log=not integer and high / low >= 10, integer=integer)
