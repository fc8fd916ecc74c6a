"""The errors that agilerl raises on bad input.

Each message names the field, the value that came, what is accepted, and the cure.  They are
also ``ValueError``s, so code that guards against bad values in general catches them.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from typing import Any, Self


class AgileRLError(ValueError):
    """Base class of every error that agilerl raises on purpose."""


class ConfigError(AgileRLError):
    """An argument or a configuration value that can't be used."""


class EnvError(AgileRLError):
    """An environment, a space or an observation that can't be used."""

    def located(self, where: str) -> Self:
        """Return this error; its message says from now on where it came about."""
        self.args = (f"{where}: {self}",)
        return self


class DatasetError(AgileRLError):
    """A data set that can't be read, or is not what it should be."""


class CheckpointError(AgileRLError):
    """A checkpoint that can't be read, or does not belong here."""


#: What entries of the wrong kind may raise; sizes that no memory holds are among them.
MALFORMED = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


@contextmanager
def refusing(part: str) -> Iterator[None]:
    """Turn whatever a malformed state raises into a ``CheckpointError`` about ``part``."""
    try:
        yield
    except CheckpointError:
        raise
    except MALFORMED as error:
        raise CheckpointError(f"{part}: incomplete or inconsistent ({error!r}).") from error


#: What other libraries call things, in lower case, and what they are called here.
ELSEWHERE = {
    "learning_rate": "LR",
    "net_arch": "h_size",
    "hidden_size": "h_size",
    "hidden_sizes": "h_size",
    "buffer_size": "MEMORY_SIZE",
    "train_freq": "LEARN_STEP",
    "population_size": "POP_SIZE",
    "discount": "GAMMA",
    "policy_delay": "POLICY_FREQ",
}


def suggest(name: object, accepted: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the accepted name nearest to ``name``, or ``""``."""
    by_lower_case = {option.lower(): option for option in accepted}
    known = ELSEWHERE.get(str(name).lower(), "").lower()
    if known in by_lower_case:
        return f" Did you mean {by_lower_case[known]!r}?"
    close = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.6)
    return f" Did you mean {by_lower_case[close[0]]!r}?" if close else ""


def check_choice(field: str, value: object, accepted: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``accepted``; raise ``ConfigError`` otherwise."""
    options = list(accepted)
    if isinstance(value, str) and value in options:
        return value
    raise ConfigError(
        f"{field}: {value!r} is not known; expected one of {', '.join(map(repr, options))}."
        + suggest(value, options)
    )


def check_bool(field: str, value: object) -> bool:
    """Return ``value`` if it is True or False; raise ``ConfigError`` otherwise."""
    if type(value).__name__ in ("bool", "bool_"):  # NumPy's too
        return bool(value)
    raise ConfigError(f"{field}: expected True or False, got {value!r}.")


def check_keys(field: str, given: Mapping[str, Any], accepted: Iterable[str]) -> None:
    """Raise ``ConfigError`` if ``given`` has a key that is not in ``accepted``."""
    options = list(accepted)
    for key in given:
        if key not in options:
            raise ConfigError(
                f"{field}: unknown key {key!r}.{suggest(key, options)}"
                f" Accepted keys: {', '.join(sorted(options))}."
            )


def check_int(field: str, value: object, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``; raise ``ConfigError`` otherwise.

    Any integral type will do (``np.int64`` too), and a float is not cut: 2.5 is an error.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigError(f"{field}: expected an integer >= {minimum}, got {value!r}.")
    number = operator.index(value)
    if number < minimum:
        raise ConfigError(f"{field}: expected an integer >= {minimum}, got {number}.")
    return number


def check_sizes(field: str, values: object) -> tuple[int, ...]:
    """Return ``values`` as a tuple of positive ints; raise ``ConfigError`` otherwise."""
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(f"{field}: expected a non-empty list of sizes >= 1, got {values!r}.")
    return tuple(check_int(f"{field}[{i}]", value) for i, value in enumerate(values))


def check_float(field: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``value`` as a finite float in [low, high]; raise ``ConfigError`` otherwise."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer that no float holds
            number = float(value)
            if math.isfinite(number) and low <= number <= high:
                return number
    raise ConfigError(f"{field}: expected a finite number in [{low:g}, {high:g}], got {value!r}.")
