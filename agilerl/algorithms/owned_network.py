"""A network with its target and its optimiser, kept together through every change."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from agilerl.algorithms.optimizer_state import adopt, carry_moments, fits, moments_of, rest_of
from agilerl.errors import CheckpointError
from agilerl.networks.base import EvolvableNetwork, Params

#: Settings of Adam, beside the learning rate, that a user may have changed.
OPTIONS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")


class OwnedNetwork:
    """A module, a Polyak copy of it (or of a part), and an Adam optimiser.

    The module may be edited in place at any time.  Before the next use, target and moments follow
    the edit, so that the optimiser always holds exactly the live parameters.

    Args:
        module: the network; it may be a composite of evolvable ones.
        lr: learning rate of Adam; None means frozen (no optimiser).
        target_of: which submodule has a target copy: "" is all of it, None is no target.
    """

    def __init__(
        self, module: nn.Module, lr: float | None = None, target_of: str | None = ""
    ) -> None:
        self._module = module
        self._target_of = target_of
        self._target: nn.Module | None = None
        self._optimizer: torch.optim.Adam | None = None
        self._alone = isinstance(module, EvolvableNetwork)
        if target_of is not None:
            self._target = copy.deepcopy(module.get_submodule(target_of)).requires_grad_(False)
        if lr is not None:
            self._optimizer = torch.optim.Adam(module.parameters(), lr=lr, fused=True)
        #: the parameters that the optimiser holds, by name
        self._held: dict[str, torch.nn.Parameter] = dict(module.named_parameters())
        for network in self.evolvables:
            network.pending_edits = []

    # --------------------------------------------------------------------------------------- parts

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self._module

    @property
    def target(self) -> nn.Module:
        """The Polyak copy; it raises ``AttributeError`` where there is none."""
        self.follow()
        if self._target is None:
            raise AttributeError("this network has no target copy")
        return self._target

    @property
    def optimizer(self) -> torch.optim.Adam:
        """The optimiser; it raises ``AttributeError`` on a frozen network."""
        self.follow()
        if self._optimizer is None:
            raise AttributeError("this network is frozen: it has no optimiser")
        self._reconcile()
        return self._optimizer

    @property
    def evolvables(self) -> list[EvolvableNetwork]:
        """The evolvable networks in the module: itself, or the parts of a composite."""
        return [network for _, network in self._evolvables()]

    @property
    def evolvable(self) -> EvolvableNetwork:
        """The first of ``evolvables``."""
        return self.evolvables[0]

    def _evolvables(self) -> list[tuple[str, EvolvableNetwork]]:
        found = self._module.named_modules()
        return [(name, m) for name, m in found if isinstance(m, EvolvableNetwork)]

    # ----------------------------------------------------------------------------------- following

    def follow(self) -> None:
        """Carry target and moments along with the edits made on the module since the last call."""
        if self._alone and not self._module.pending_edits:
            return
        edits = [
            (name, edit) for name, net in self._evolvables() for edit in net.pending_edits or ()
        ]
        if not edits:
            return
        moments, rest = self._remembered()
        for prefix, edit in edits:
            target = self._target_part(prefix)
            if target is not None:
                target.apply_edit(edit)
                target.requires_grad_(False)
            carry_moments(moments, edit, f"{prefix}.layers." if prefix else "layers.")
        for network in self.evolvables:
            network.pending_edits = []
        self._adopt(moments, rest)

    def _remembered(self) -> tuple[dict[str, Params], dict[str, Any]]:
        """Return what the optimiser remembers of the parameters that it holds."""
        if self._optimizer is None:
            return {}, {}
        return moments_of(self._optimizer, self._held), rest_of(self._optimizer, self._held)

    def _target_part(self, prefix: str) -> EvolvableNetwork | None:
        """Return the target's copy of the evolvable network at ``prefix``, if it has one."""
        if self._target is None or self._target_of is None:
            return None
        root = self._target_of
        if not (f"{prefix}." if prefix else "").startswith(f"{root}." if root else ""):
            return None
        inner = prefix[len(root) :].lstrip(".")
        part = self._target.get_submodule(inner)
        assert isinstance(part, EvolvableNetwork)
        return part

    def _adopt(self, moments: dict[str, Params], rest: dict[str, Any]) -> None:
        """Make the optimiser hold the live parameters, with ``moments`` (zero where none came)."""
        live = dict(self._module.named_parameters())
        if self._optimizer is not None:
            adopt(self._optimizer, self._held, live, moments, rest)
        self._held = live

    def _reconcile(self) -> None:
        """Follow what was done to the parameters from outside.

        They may have been replaced (``load_state_dict(assign=True)``) or moved to another dtype or
        device, without the optimiser or the target being told.
        """
        self.follow()
        like = next(self._module.parameters())
        if self._target is not None:
            first = next(self._target.parameters())
            if (first.dtype, first.device) != (like.dtype, like.device):
                self._target.to(like.device, like.dtype)
        if self._optimizer is None:
            return
        live = self._module.named_parameters()
        moved = not fits(self._optimizer, next(iter(self._held.values())))
        if moved or any(self._held.get(name) is not p for name, p in live):
            self._adopt(*self._remembered())

    # -------------------------------------------------------------------------------------- values

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    @lr.setter
    def lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def is_finite(self) -> bool:
        """Return whether no parameter is NaN or infinite."""
        return all(bool(torch.isfinite(p).all()) for p in self._module.parameters())

    def state(self) -> dict[str, Any]:
        """Return everything that was learnt, as tensors and plain values."""
        self.follow()
        state: dict[str, Any] = {
            "shapes": {name: plain_shape(net) for name, net in self._evolvables()},
            "module": {k: v.detach().clone() for k, v in self._module.state_dict().items()},
            "frozen": [name for name, p in self._module.named_parameters() if not p.requires_grad],
        }
        if self._target is not None:
            state["target"] = {k: v.detach().clone() for k, v in self._target.state_dict().items()}
        if self._optimizer is not None:
            state["moments"] = {
                name: {key: value.detach().clone() for key, value in entry.items()}
                for name, entry in moments_of(self._optimizer, self._held).items()
            }
            rest = rest_of(self._optimizer, self._held)
            state["steps"], state["lr"] = float(rest.get("step", 0.0)), self.lr
            group = self._optimizer.param_groups[0]
            state["options"] = {name: group[name] for name in OPTIONS}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what ``state()`` returned, shapes included.

        Raises:
            CheckpointError: if a part is missing or does not fit; nothing has changed then.
        """
        fresh = copy.deepcopy(self)
        try:
            fresh._load(state)
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"the saved network does not fit: {error}") from error
        self.__dict__.update(fresh.__dict__)

    def _load(self, state: dict[str, Any]) -> None:
        dtypes = {v.dtype for v in state["module"].values() if v.is_floating_point()}
        if len(dtypes) == 1:
            self._module.to(dtypes.pop())
            self._reconcile()
        for prefix, network in self._evolvables():
            head = f"{prefix}.layers." if prefix else "layers."
            own = {k[len(head) :]: v for k, v in state["module"].items() if k.startswith(head)}
            network.restore(state["shapes"][prefix], own)
            target = self._target_part(prefix)
            if target is not None:
                target.restore(state["shapes"][prefix], own)
                target.requires_grad_(False)
            network.pending_edits = []
        self._module.load_state_dict(state["module"])
        if self._target is not None:
            self._target.load_state_dict(state["target"])
        if self._optimizer is not None:
            live = {name: p.shape for name, p in self._module.named_parameters()}
            for name, entry in state["moments"].items():
                if {value.shape for value in entry.values()} != {live[name]}:
                    raise CheckpointError(f"the optimiser's moments of {name} have another shape")
            self._adopt(state["moments"], {"step": torch.tensor(float(state["steps"]))})
            self.lr = float(state["lr"])
            self._optimizer.param_groups[0].update(state.get("options", {}))
        for name, parameter in self._module.named_parameters():
            if name in state.get("frozen", ()):
                parameter.requires_grad_(False)


def plain_shape(network: EvolvableNetwork) -> dict[str, Any]:
    """Return the arguments that rebuild a network, without its device."""
    return {key: value for key, value in network.init_dict.items() if key != "device"}
