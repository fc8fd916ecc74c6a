"""What a network is, and how it may change.

The shape of a network is a frozen *spec*, which checks itself.  An *edit* is a new spec together
with a *transfer*, a map from the parameters of the old shape to those of the new one.  The same map
is applied to the target network and to the optimiser's moments, so that nothing is left training
dead parameters.
"""

from __future__ import annotations

import copy
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec, Self, TypeVar

import torch
from torch import nn

from agilerl.devices import check_device
from agilerl.errors import ConfigError, check_int, check_keys
from agilerl.networks import transfer
from agilerl.networks.activations import MUTABLE
from agilerl.networks.transfer import Params as Params
from agilerl.networks.transfer import Transfer, Units
from agilerl.seeding import Generator, branch, generator

logger = logging.getLogger("agilerl")

Choice = dict[str, Any]

_parameter_limit: ContextVar[int | None] = ContextVar("parameter_limit", default=None)


# ------------------------------------------------------------------------------------------- shapes


@dataclass(frozen=True, kw_only=True)
class Spec(ABC):
    """The shape of a network: a frozen dataclass with the arguments of its constructor.

    It checks itself when it is made, and widens its limits (fields ``min_...`` and ``max_...``) to
    include its own sizes.
    """

    activation: str

    def __post_init__(self) -> None:
        """Put the checked values into the fields."""
        for name, value in self.checked().items():
            object.__setattr__(self, name, value)

    @abstractmethod
    def checked(self) -> dict[str, Any]:
        """Return checked values by field; raise ``ConfigError`` on one that can't be."""

    def checked_limits(self, **sizes: Sequence[int]) -> dict[str, int]:
        """Return the fields ``min_<name>`` and ``max_<name>``, widened to include ``sizes``."""
        limits = {}
        for name, values in sizes.items():
            low = check_int(f"min_{name}", getattr(self, f"min_{name}"))
            high = check_int(f"max_{name}", getattr(self, f"max_{name}"))
            if low > high:
                raise ConfigError(f"min_{name}: {low} is above max_{name}={high}; swap them.")
            limits[f"min_{name}"] = min(low, *values)
            limits[f"max_{name}"] = max(high, *values)
        return limits

    @classmethod
    def limit_names(cls) -> tuple[str, ...]:
        """Return the names of the limits."""
        return tuple(f.name for f in fields(cls) if f.name.startswith(("min_", "max_")))

    @classmethod
    def known_limits(cls, limits: Mapping[str, int]) -> Mapping[str, int]:
        """Return ``limits``; raise ``ConfigError`` on a name that is none of them."""
        check_keys("limits of the network", limits, cls.limit_names())
        return limits

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, with lists for tuples."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the spec that ``as_dict`` described.

        Raises:
            ConfigError: if a field is missing, unknown or malformed, or a size is outside of the
                limits.
        """
        expected = {f.name for f in fields(cls)}
        if values.keys() != expected:
            raise ConfigError(
                f"shape: expected the fields {sorted(expected)}, got {sorted(values)}."
            )
        tuples = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        spec = cls(**{**values, **tuples})
        for name, value in spec.as_dict().items():
            given = list(values[name]) if isinstance(values[name], tuple) else values[name]
            if value != given:
                raise ConfigError(
                    f"shape: {name}: the other fields ask for {value!r}, got {given!r}."
                )
        return spec


def check_parameters(layers: Iterable[tuple[str, nn.Module]], values: Params) -> None:
    """Raise ``ConfigError`` unless ``values`` are just the parameters of ``layers``, by shape.

    Layers are taken one by one up to the first that differs, so that a shape of absurd depth
    costs nothing.
    """
    left = {name: tuple(value.shape) for name, value in values.items()}
    for name, layer in layers:
        for key, parameter in layer.named_parameters():
            given = left.pop(f"{name}.{key}", "nothing")
            if given != tuple(parameter.shape):
                raise ConfigError(
                    f"weights: {name}.{key}: expected {tuple(parameter.shape)}, got {given}; they"
                    " are not of the network's shape."
                )
    if left:
        raise ConfigError(f"weights: the network has no {', '.join(sorted(left)[:5])}.")


@contextmanager
def parameter_limit(count: int) -> Iterator[None]:
    """Refuse, inside, to build a network of more than ``count`` parameters.

    For sizes that come from a file which is not trusted: the ``ConfigError`` comes before memory
    is allocated.
    """
    token = _parameter_limit.set(count)
    try:
        yield
    finally:
        _parameter_limit.reset(token)


def materialise(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give the parameters of a module on the meta device memory, in place; nothing is drawn.

    As ``to_empty`` does, but that makes torch import sympy, which takes a second.
    """
    module._apply(  # type: ignore[no-untyped-call]
        lambda t: torch.empty(t.shape, dtype=dtype, device=device)
    )


# -------------------------------------------------------------------------------------------- edits


class EditRefused(Exception):  # noqa: N818  # a decision, not a fault
    """An edit that would leave the limits of the network; the message says which."""


@dataclass(frozen=True)
class Edit:
    """One structural change of a network.

    Attributes:
        choice: the arguments that make the same change on another network.
        spec: the shape after the change.
        transfer: ``transfer(params, moments)`` maps the parameters of the old shape (by name,
            relative to ``layers``) to those of the new one.  With ``moments=True`` the values are
            the optimiser's moments: new entries are zero.  A name that it leaves out is
            initialised.
    """

    choice: Choice
    spec: Any
    transfer: Transfer


Net = TypeVar("Net", bound="EvolvableNetwork")
P = ParamSpec("P")


def edit(
    kind: Literal["layer", "node", "activation"],
) -> Callable[[Callable[Concatenate[Net, P], Edit]], Callable[Concatenate[Net, P], Choice | None]]:
    """Declare an edit: decorate the method that plans it, under the public name.

    The method takes the arguments of the edit and ``rng``, draws those that are None (see
    ``EvolvableNetwork.draw``), and returns an ``Edit``; it raises ``EditRefused`` at a limit.  The
    decorated method also makes the edit, and returns its choice, or None where it was refused (and
    logged).  ``EvolvableNetwork.plan`` only plans it.

    Args:
        kind: what changes; mutations choose among the edits of one kind.
    """

    def decorate(
        plan: Callable[Concatenate[Net, P], Edit],
    ) -> Callable[Concatenate[Net, P], Choice | None]:
        def method(self: Net, /, *args: P.args, **kwargs: P.kwargs) -> Choice | None:
            try:
                planned = plan(self, *args, **kwargs)
            except EditRefused as refusal:
                logger.info("%s left out: %s", plan.__name__, refusal)
                return None
            self.apply_edit(planned)
            return planned.choice

        functools.update_wrapper(method, plan).__dict__["edit_kind"] = kind
        return method

    return decorate


# ------------------------------------------------------------------------------------------ network


class EvolvableNetwork(nn.Module, ABC):
    """A network whose shape can be edited in place.

    Args:
        spec: the shape.
        device: where the parameters live.
        seed: of the stream that draws initial weights and, where no other generator is given,
            the choices of edits.
        values: all initial parameters by name, relative to ``layers``; None draws them.

    Raises:
        ConfigError: if ``values`` are not of the shape, or the device is not there.
    """

    #: The edits of a class by kind, in the order of their definition: those that change the number
    #: of layers, and those that change the size of one.
    LAYER_EDITS: ClassVar[tuple[str, ...]] = ()
    NODE_EDITS: ClassVar[tuple[str, ...]] = ()

    layers: nn.ModuleDict

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect the edits that the class and its bases declare."""
        super().__init_subclass__(**kwargs)
        members = {k: v for base in reversed(cls.__mro__) for k, v in vars(base).items()}
        kinds = {name: getattr(member, "edit_kind", None) for name, member in members.items()}
        cls.LAYER_EDITS = tuple(name for name, kind in kinds.items() if kind == "layer")
        cls.NODE_EDITS = tuple(name for name, kind in kinds.items() if kind == "node")

    def __init__(
        self,
        spec: Any,
        device: str | torch.device = "cpu",
        seed: int | None = None,
        values: Params | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.rng: Generator = generator(seed, "network")
        #: Edits that the owner of this network has not yet made on target and optimiser; None
        #: while nobody owns it.
        self.pending_edits: list[Edit] | None = None
        if values is not None:
            check_parameters(self.make_layers(spec), values)
        self._install(spec, values or {}, check_device(device), torch.float32)

    # ------------------------------------------------------------------- to be given by subclasses

    @abstractmethod
    def make_layers(self, spec: Any) -> Iterator[tuple[str, nn.Module]]:
        """Yield the named layers of ``spec``, in the order of use, on the meta device."""

    @abstractmethod
    def initialise(self, name: str, layer: nn.Module, spec: Any) -> None:
        """Draw the initial parameters of one layer from ``self.rng``, in place."""

    @abstractmethod
    def new_rows(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Draw the rows of new units in parameter ``name``, of this shape, from ``self.rng``."""

    def summary(self) -> str:
        """Return the shape in a few words."""
        return type(self).__name__

    # ------------------------------------------------------------------------------------- editing

    @edit("activation")
    def change_activation(
        self, activation: str | None = None, rng: Generator | None = None
    ) -> Edit:
        """Put ``activation`` behind every hidden layer; the weights stay.  None draws another."""
        if activation is None:
            others = [name for name in MUTABLE if name != self.spec.activation]
            activation = str((self.rng if rng is None else rng).choice(others))
        spec = replace(self.spec, activation=activation)
        return Edit({"activation": activation}, spec, transfer.keep_all)

    def plan(self, method: str, rng: Generator | None = None, **choice: Any) -> Edit:
        """Return the edit that ``method`` with the arguments ``choice`` would make here.

        Raises:
            EditRefused: if it would leave the limits.
        """
        planned: Edit = getattr(type(self), method).__wrapped__(self, rng=rng, **choice)
        return planned

    def edit(self, method: str, rng: Generator | None = None, **choice: Any) -> Choice | None:
        """Make an edit by name; return its choice, or None where it was refused (and logged)."""
        made: Choice | None = getattr(self, method)(rng=rng, **choice)
        return made

    def apply_edit(self, edit: Edit) -> None:
        """Take the shape that ``edit`` describes, with this network's own parameters."""
        like = next(self.parameters())
        values = edit.transfer(self.named_tensors(), False)
        self._install(edit.spec, values, like.device, like.dtype)
        self.spec = edit.spec
        if self.pending_edits is not None:
            self.pending_edits.append(edit)

    def draw(
        self,
        rng: Generator | None,
        options: Sequence[int],
        given: int | None,
        field: str,
        refusal: str,
    ) -> int:
        """Return ``given``, or a draw from ``options``; refuse where neither is possible."""
        if given is None and options:
            return int((self.rng if rng is None else rng).choice(options))
        if given is None or check_int(field, given, minimum=0) not in options:
            raise EditRefused(refusal)
        return given

    def draw_count(
        self,
        rng: Generator | None,
        given: int | None,
        grow: bool,
        *,
        field: str,
        steps: Sequence[int],
        size: int,
        limits: str,
        what: str,
    ) -> int:
        """Return by how many units a part grows or shrinks; refuse where it can't.

        Args:
            rng: to draw from; None is the network's own stream.
            given: the number, or None to draw one.
            grow: whether it grows.
            field: name of the argument ``given``.
            steps: numbers to draw from.
            size: units that it has now.
            limits: the spec's fields ``min_<limits>`` and ``max_<limits>`` are the limits.
            what: of the refusal: size, "most" or "least", and limit go into its braces.
        """
        limit = getattr(self.spec, f"max_{limits}" if grow else f"min_{limits}")
        room = abs(limit - size)
        options = range(1, room + 1) if given is not None else [n for n in steps if n <= room]
        refusal = what.format(size, "most" if grow else "least", limit)
        return self.draw(rng, options, given, field, refusal)

    def resized(
        self, choice: Choice, spec: Any, groups: Sequence[Units], count: int, grow: bool
    ) -> Edit:
        """Return the edit that adds ``count`` units, or removes the least useful ones.

        Args:
            choice: see ``Edit``.
            spec: the shape after the edit.
            groups: where units are added or removed.
            count: how many, in each.
            grow: whether they are added.
        """
        params = self.named_tensors()
        if not grow:
            kept = [(units, units.without_least_useful(params, count)) for units in groups]
            return Edit(choice, spec, functools.partial(transfer.keep_units, kept=kept))
        additions = []
        for units in groups:
            rows = units.parts * count * units.size
            shapes = {name: (rows, *params[name].shape[1:]) for name in units.rows}
            additions.append((units, {k: self.new_rows(k, shape) for k, shape in shapes.items()}))
        return Edit(choice, spec, functools.partial(transfer.add_units, additions=additions))

    # --------------------------------------------------------------------------------- parameters

    @property
    def rng_owners(self) -> list[Any]:
        """The objects of this network that draw, each from its attribute ``rng``."""
        return [self]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return next(self.parameters()).dtype

    def named_tensors(self) -> Params:
        """Return the parameters, detached, by their names relative to ``layers``."""
        return {name: p.detach() for name, p in self.layers.named_parameters()}

    def _on_meta(self, spec: Any) -> nn.ModuleDict:
        """Return the layers of ``spec`` on the meta device."""
        layers, left = {}, _parameter_limit.get()
        for name, layer in self.make_layers(spec):
            layers[name] = layer
            if left is not None:
                left -= sum(p.numel() for p in layer.parameters())
                if left < 0:
                    raise ConfigError(
                        f"network: it would have more than {_parameter_limit.get():,} parameters,"
                        " out of all proportion to the weights that are stored for it."
                    )
        return nn.ModuleDict(layers)

    def _install(self, spec: Any, values: Params, device: torch.device, dtype: torch.dtype) -> None:
        layers = self._on_meta(spec)
        materialise(layers, device, dtype)
        before = self.layers.named_parameters() if hasattr(self, "layers") else ()
        frozen = {name for name, p in before if not p.requires_grad}
        with torch.no_grad():
            for name, layer in layers.items():
                own = {f"{name}.{key}": p for key, p in layer.named_parameters()}
                if not own.keys() <= values.keys():
                    self.initialise(name, layer, spec)
                for key, parameter in own.items():
                    if key in values:
                        parameter.copy_(values[key])
                    if key in frozen:
                        parameter.requires_grad_(False)
        self.layers = layers.train(self.training)

    # ------------------------------------------------------------------------------------- copying

    def restore(self, shape: Mapping[str, Any], values: Params) -> None:
        """Take the shape and the parameters that another network of this class had.

        Args:
            shape: its ``init_dict``, without the device, which is left as it is here.
            values: its parameters by name, relative to ``layers``.

        Raises:
            ConfigError: if the shape can't be built, is outside of its own limits, or is not that
                of the values; this is found out before memory is allocated.
        """
        spec = type(self.spec).from_dict(shape)
        check_parameters(self.make_layers(spec), values)
        like = next(self.parameters())
        self._install(spec, values, like.device, like.dtype)
        self.spec = spec

    @property
    def init_dict(self) -> dict[str, Any]:
        """The constructor arguments that build a network of this shape."""
        return {**self.spec.as_dict(), "device": str(next(self.parameters()).device)}

    def clone(self) -> EvolvableNetwork:
        """Return an independent network of the same shape and weights, with a new stream."""
        twin = copy.deepcopy(self)
        twin.pending_edits = None
        twin.rng = branch(self.rng)
        return twin
