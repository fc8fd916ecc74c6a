"""Where the agents of a first population start: values that are given, or drawn for each agent.

With n agents a range is cut into n parts of equal probability, and each agent draws from one of
them (a Latin hypercube, McKay et al. 1979): even a small population covers every range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agilerl.algorithms.settings import Hyperparameter, hyperparameters_of
from agilerl.errors import ConfigError
from agilerl.hpo.hyperparameters import Range, range_of
from agilerl.seeding import generator

#: Hidden sizes that are drawn: how many layers, and units in each of them.
DRAWN_SIZE = ("layers", "units")


def quantiles(count: int, seed: int | None, name: str) -> list[float]:
    """Return ``count`` draws in [0, 1), one in each interval of width ``1 / count``, shuffled."""
    rng = generator(seed, "start", name)
    return [float(x) for x in (rng.permutation(count) + rng.random(count)) / count]


def drawn_settings(
    agent_class: Any, settings: Mapping[str, Any], count: int, seed: int | None
) -> list[dict[str, Any]]:
    """Return the settings of each agent; what is a range or a list of choices is drawn.

    Args:
        agent_class: the class of the agents.
        settings: constructor arguments by name.  A hyper-parameter, or another number, may be a
            range: ``(low, high)`` or ``{"low": low, "high": high}``, both ends included.  Anything
            may be a list of choices.
        count: number of agents.
        seed: of the draws.

    Raises:
        ConfigError: if a range or a list of choices can't be used.
    """
    declared = hyperparameters_of(agent_class)
    values = {
        name: drawn(name, value, declared.get(name), quantiles(count, seed, name))
        for name, value in settings.items()
    }
    return [{name: column[i] for name, column in values.items()} for i in range(count)]


def drawn(
    name: str, value: Any, declared: Hyperparameter | None, points: Sequence[float]
) -> list[Any]:
    """Return one value for each quantile: those of a range or of choices, else ``value``."""
    field = f"INIT_HP[{name.upper()!r}]"
    if isinstance(value, list):
        if not value:
            raise ConfigError(f"{field}: an empty list of choices; name one or more values.")
        return [value[int(point * len(value))] for point in points]
    if not isinstance(value, tuple | Mapping):
        return [value] * len(points)
    moves = None if declared is None else Range.of(declared)
    found = range_of(field, value, moves)
    if declared is not None:
        for end in (found.low, found.high):
            declared.check(field, int(end) if declared.integer else end)
    return [found.at(point) for point in points]


def drawn_net_configs(
    net_config: Mapping[str, Any] | None, count: int, seed: int | None
) -> Sequence[Mapping[str, Any] | None]:
    """Return the shape that the networks of each agent begin with.

    Args:
        net_config: ``h_size`` may be ``{"layers": (1, 3), "units": (32, 256)}``: each agent draws
            its number of hidden layers, and one width for all of them, log-uniform.
        count: number of agents.
        seed: of the draws.
    """
    size = net_config.get("h_size") if isinstance(net_config, Mapping) else None
    if net_config is None or not isinstance(size, Mapping):
        return [net_config] * count
    if set(size) != set(DRAWN_SIZE):
        raise ConfigError(
            "net_config['h_size']: expected a list of sizes, or"
            f" {{'layers': (low, high), 'units': (low, high)}}, got {dict(size)!r}."
        )
    columns = []
    for name in DRAWN_SIZE:
        field = f"net_config['h_size'][{name!r}]"
        low, high = size_range(field, size[name])
        points = quantiles(count, seed, name)
        if name == "units":
            columns.append([round(low * (high / low) ** point) for point in points])
        else:
            columns.append([int(low + point * (high - low + 1)) for point in points])
    return [
        {**net_config, "h_size": [units] * layers} for layers, units in zip(*columns, strict=True)
    ]


def size_range(field: str, given: Any) -> tuple[int, int]:
    """Return the lowest and highest of a number of layers or units: a range, or one number."""
    if not isinstance(given, tuple | list | Mapping):
        given = (given, given)
    found = range_of(field, given, Range(1, 1, integer=True))
    return int(found.low), int(found.high)
