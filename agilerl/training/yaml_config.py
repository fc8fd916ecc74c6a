"""From a YAML file and the command line to a frozen dataclass of checked values."""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from agilerl.errors import ConfigError, check_keys

T = TypeVar("T")

#: Longest configuration file, in characters.
MAX_CHARACTERS = 2**20

#: What reading YAML of any content may raise (a date such as 2001-99-99 is a ``ValueError``).
UNREADABLE = (OSError, ValueError, RecursionError, yaml.YAMLError)


class _Loader(yaml.SafeLoader):
    """A safe loader without aliases, since a few lines of them unpack to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not read; write the value out", event.start_mark
            )
        return super().compose_node(parent, index)


def parse(text: str) -> Any:
    """Return the value of a YAML text; raise one of ``UNREADABLE`` if there is none."""
    return yaml.load(text, _Loader)


def read_config(cls: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Return the configuration ``cls`` of a YAML file with ``key.sub=value`` overrides.

    Raises:
        ConfigError: if the file can't be read, or a key or a value is not what it should be.
    """
    values: dict[str, Any] = {}
    where = "the command line"
    if path is not None:
        where = str(path)
        try:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(MAX_CHARACTERS + 1)
            if len(text) > MAX_CHARACTERS:
                raise ValueError(f"it has more than {MAX_CHARACTERS:,} characters")
            loaded = parse(text)
        except UNREADABLE as error:
            raise ConfigError(
                f"{path}: expected a YAML file; it can't be read ({error})."
            ) from error
        values = {} if loaded is None else loaded
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected 'key: value' lines, got {type(values).__name__}.")
    for override in overrides:
        put(values, override)
    return build(cls, values, where)


def put(values: dict[str, Any], override: str) -> None:
    """Set ``key.sub=value`` in nested dictionaries; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r}: expected key.sub=value, for example agent.lr=1e-3.")
    *sections, name = key.strip().split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{override!r}: {section!r} is a value, not a section.")
        values = inner
    try:
        values[name] = parse(text)
    except UNREADABLE as error:
        raise ConfigError(f"{override!r}: the value is not YAML ({error}).") from error


def build(cls: type[T], values: Any, where: str, prefix: str = "") -> T:
    """Return the dataclass ``cls`` with ``values`` in place of its defaults, types checked."""
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: {prefix[:-1]}: expected a section, got {values!r}.")
    hints = typing.get_type_hints(cls)
    check_keys(f"{where}: {prefix[:-1] or 'top level'}", values, hints)
    arguments = {
        key: convert(hints[key], value, where, prefix + key) for key, value in values.items()
    }
    return cls(**arguments)


def convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """Return ``value`` as the type ``hint`` of a configuration field."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where, f"{key}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        if value is None and len(kinds) < len(arguments):
            return None
        for kind in kinds[:-1]:
            with contextlib.suppress(ConfigError):
                return convert(kind, value, where, key)
        return convert(kinds[-1], value, where, key)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: {key}: expected a list, got {value!r}.")
        return tuple(convert(arguments[0], v, where, f"{key}[{i}]") for i, v in enumerate(value))
    return scalar(hint, value, where, key)


def scalar(kind: type, value: Any, where: str, key: str) -> Any:
    """Return a bool, int, float or str; ``1e-3``, which YAML reads as text, is a number."""
    if kind in (int, float) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: {key}: expected {kind.__name__}, got {value!r}.")
    return value
