"""What a network is, and how it may change.

The shape of a network is a frozen *spec*.  An *edit* is a new spec together with a map from the
parameters of the old shape to those of the new one.  The same map carries the target network
and the optimiser's moments along, so nothing is left training dead parameters.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from agilerl.devices import check_device
from agilerl.errors import ConfigError
from agilerl.seeding import Generator, branch, generator

logger = logging.getLogger("agilerl")

Params = dict[str, torch.Tensor]
Carry = Callable[[Params, bool], Params]
Choice = dict[str, Any]


class EditRefused(Exception):  # noqa: N818  # a decision, not a fault
    """An edit that would leave the limits of the network; the message says which."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """One structural change of a network.

    Attributes:
        method: name of the public method that makes it, ``"add_node"`` say.
        choice: the arguments that make the same change on another network.
        spec: the shape after the change.
        carry: ``carry(params, moments)`` maps the parameters of the old shape (by name, relative
            to ``layers``) to those of the new one.  With ``moments=True`` the values are the
            optimiser's moments: new entries are zero.  A name that it leaves out is initialised.
    """

    method: str
    choice: Choice
    spec: Any
    carry: Carry


def materialise(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give the parameters of a module on the meta device memory, in place; nothing is drawn.

    As ``to_empty`` does, but that makes torch import sympy, which takes a second.
    """
    module._apply(  # type: ignore[no-untyped-call]
        lambda t: torch.empty(t.shape, dtype=dtype, device=device)
    )


class EvolvableNetwork(nn.Module, ABC):
    """A network whose shape can be edited in place.

    Args:
        spec: a frozen dataclass whose fields are the constructor's arguments.
        device: where the parameters live.
        seed: of the stream that draws initial weights and, where no other generator is given,
            the choices of edits.
        values: initial parameters by name, relative to ``layers``; what is missing is drawn.
    """

    #: Methods that change the number of layers, and those that change the size of one.
    LAYER_EDITS: tuple[str, ...] = ()
    NODE_EDITS: tuple[str, ...] = ()

    layers: nn.ModuleDict

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
        #: Edits that the owner of this network has not yet followed; None while nobody owns it.
        self.journal: list[Edit] | None = None
        self._install(spec, values or {}, check_device(device), torch.float32)

    # ------------------------------------------------------------------- to be given by subclasses

    @abstractmethod
    def make_layers(self, spec: Any) -> dict[str, nn.Module]:
        """Return the layers of ``spec`` by name, in the order of use, on the meta device."""

    @abstractmethod
    def initialise(self, name: str, layer: nn.Module, spec: Any) -> None:
        """Draw the initial parameters of one layer from ``self.rng``, in place."""

    @abstractmethod
    def planners(self) -> Mapping[str, Callable[..., Edit]]:
        """Return, for each edit's name, the method that plans it.

        A planner takes ``rng`` and the arguments of the edit, draws those that are None, and
        returns the edit without making it; it raises ``EditRefused`` at a limit.
        """

    def summary(self) -> str:
        """Return the shape in a few words."""
        return type(self).__name__

    # ------------------------------------------------------------------------------------- editing

    def plan(self, method: str, rng: Generator | None = None, **choice: Any) -> Edit:
        """Return the edit that ``method`` with the arguments ``choice`` would make here."""
        return self.planners()[method](self.rng if rng is None else rng, **choice)

    def edit(self, method: str, rng: Generator | None = None, **choice: Any) -> Choice | None:
        """Plan and make an edit; return its choice, or None where it was refused (and logged)."""
        try:
            edit = self.plan(method, rng, **choice)
        except EditRefused as refusal:
            logger.info("%s left out: %s", method, refusal)
            return None
        self.apply_edit(edit)
        return edit.choice

    def apply_edit(self, edit: Edit) -> None:
        """Take the shape that ``edit`` describes, with this network's own parameters."""
        like = next(self.parameters())
        values = edit.carry(self.named_tensors(), False)
        self._install(edit.spec, values, like.device, like.dtype)
        self.spec = edit.spec
        if self.journal is not None:
            self.journal.append(edit)

    def change_activation(self, activation: str) -> Choice | None:
        """Put ``activation`` behind every hidden layer; the weights stay."""
        return self.edit("change_activation", activation=activation)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return next(self.parameters()).dtype

    def named_tensors(self) -> Params:
        """Return the parameters, detached, by their names relative to ``layers``."""
        return {name: p.detach() for name, p in self.layers.named_parameters()}

    def _install(self, spec: Any, values: Params, device: torch.device, dtype: torch.dtype) -> None:
        layers = nn.ModuleDict(self.make_layers(spec))
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
        for name, parameter in layers.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self.layers = layers.train(self.training)

    def restore(self, shape: Mapping[str, Any], values: Params) -> None:
        """Take the shape and the parameters that another network of this class had.

        Args:
            shape: its ``init_dict``; the device is left as it is here.
            values: its parameters by name, relative to ``layers``.

        Raises:
            ConfigError: if the shape can't be built, or the values are not of that shape; this
                is found out before memory is allocated.
        """
        fields = {f.name for f in dataclasses.fields(self.spec)}
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()}
        if plain.keys() != fields:
            raise ConfigError(f"shape: expected the fields {sorted(fields)}, got {sorted(plain)}.")
        spec = type(self.spec)(**plain)
        layers = nn.ModuleDict(self.make_layers(spec))
        expected = {name: tuple(p.shape) for name, p in layers.named_parameters()}
        given = {name: tuple(value.shape) for name, value in values.items()}
        if expected != given:
            raise ConfigError(f"parameters: expected the shapes {expected}, got {given}.")
        like = next(self.parameters())
        self._install(spec, values, like.device, like.dtype)
        self.spec = spec

    # ------------------------------------------------------------------------------------- copying

    @property
    def init_dict(self) -> dict[str, Any]:
        """The constructor arguments that build a network of this shape."""
        fields = {f.name: getattr(self.spec, f.name) for f in dataclasses.fields(self.spec)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
        return {**plain, "device": str(next(self.parameters()).device)}

    def clone(self) -> EvolvableNetwork:
        """Return an independent network of the same shape and weights, with a new stream."""
        twin = copy.deepcopy(self)
        twin.journal = None
        twin.rng = branch(self.rng)
        return twin
