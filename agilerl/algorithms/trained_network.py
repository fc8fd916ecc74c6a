"""A network, its target and its optimiser as one object."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from agilerl.algorithms.inputs import joined, like, to_array
from agilerl.algorithms.optimizer_state import adopt, carry_moments, fits, moments_of, rest_of
from agilerl.errors import CheckpointError
from agilerl.networks import mlp_kernel
from agilerl.networks.base import EvolvableNetwork, Params
from agilerl.networks.mlp_kernel import MLPKernel

Tensor = torch.Tensor


class TrainedNetwork:
    """What an agent owns: a module, a Polyak copy of it (or of a part), and an Adam optimiser.

    An algorithm's ``learn`` is one text over the verbs ``forward``, ``backward`` (or
    ``input_gradient``), ``step`` and ``soft_update``.  Plain MLPs on the CPU run them on the
    kernel of ``networks.mlp_kernel``, everything else on autograd; the numbers are the same.  The
    verbs take NumPy arrays or tensors, and give back the kind that they were given.

    The module may be edited in place at any time.  Before its next use, target and moments
    follow the edit, so that the optimiser always holds exactly the live parameters.

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
        self._kernel: MLPKernel | None = None
        self._target_kernel: MLPKernel | None = None
        self._graph: tuple[tuple[Tensor, ...], Tensor] | None = None
        self._width = 0
        self._alone = isinstance(module, EvolvableNetwork)
        #: what the last call did if it saw the kernel bound, so that the next need not look again
        self._last = ""
        if target_of is not None:
            self._target = copy.deepcopy(module.get_submodule(target_of)).requires_grad_(False)
        if lr is not None:
            self._optimizer = torch.optim.Adam(module.parameters(), lr=lr, fused=True)
        #: the parameters that the optimiser holds, by name
        self._held: dict[str, torch.nn.Parameter] = dict(module.named_parameters())
        for network in self.evolvables:
            network.journal = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process's memory; copies bind their own."""
        self.follow()
        return {**self.__dict__, "_kernel": None, "_target_kernel": None, "_graph": None}

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
        if self._alone and not self._module.journal:
            return
        edits = [(name, edit) for name, net in self._evolvables() for edit in net.journal or ()]
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
            network.journal = []
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
        self._kernel = self._target_kernel = None

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

    # --------------------------------------------------------------------------------------- verbs

    def _bound(self, after: str = "asked") -> MLPKernel | None:
        """Return the kernel, bound to the module's present memory; None where autograd serves."""
        checked, self._last = self._last == after, ""
        if not mlp_kernel.enabled:
            return None
        if self._kernel is None or not (checked or self._kernel.net.holds()):
            self._kernel = None
            if MLPKernel.serves(self._module, trained=self._optimizer is not None):
                self._reconcile()
                self._kernel = MLPKernel(self._module, self._optimizer)
        return self._kernel

    def _bound_target(self) -> MLPKernel | None:
        if not mlp_kernel.enabled:
            return None
        if self._target_kernel is None or not self._target_kernel.net.holds():
            self._target_kernel = None
            if MLPKernel.serves(self._target, trained=False):
                self._target_kernel = MLPKernel(self._target, None)
        return self._target_kernel

    @property
    def on_kernel(self) -> bool:
        """Whether the kernel serves the network, so that NumPy arrays are what it is fastest on."""
        self.follow()
        self._last = ""
        served = self._bound() is not None
        self._last = "asked" if served else ""
        return served

    def infer(self, *inputs: Any, target: bool = False) -> Any:
        """Return the outputs of the network (or of its target) without a graph."""
        self.follow()
        kernel = self._bound_target() if target else self._bound()
        if kernel is not None:
            return like(kernel.forward(joined(inputs, kernel.dtype)), inputs[0])
        if target:
            self._reconcile()
        with torch.no_grad():
            outputs = (self.target if target else self._module)(*self._tensors(inputs))
        return like(outputs, inputs[0])

    def forward(self, *inputs: Any) -> Any:
        """Return the outputs, detached, and keep what one ``backward`` needs."""
        self.follow()
        kernel = self._bound() if self._optimizer is not None else None
        if kernel is not None:
            self._graph = None
            self._width = inputs[-1].shape[1]
            return like(kernel.forward(joined(inputs, kernel.dtype), keep=True), inputs[0])
        tensors = self._tensors(inputs)
        leaves = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in tensors)
        outputs: Tensor = self._module(*leaves)
        self._graph = leaves, outputs
        return like(outputs.detach(), inputs[0])

    def backward(self, grad_outputs: Any) -> None:
        """Set the parameters' gradients, from that of the last ``forward``'s outputs."""
        if self._graph is None:
            assert self._kernel is not None, "backward() follows forward()"
            self._kernel.backward(to_array(grad_outputs))
            return
        for parameter in self._module.parameters():
            parameter.grad = None  # also of what was frozen since
        params = [p for p in self._module.parameters() if p.requires_grad]
        above = self._tensors([grad_outputs])
        grads = torch.autograd.grad(self._graph[1], params, above, allow_unused=True)
        for parameter, grad in zip(params, grads, strict=True):
            parameter.grad = grad

    def input_gradient(self, grad_outputs: Any) -> Any:
        """Return the gradient of the last input of ``forward``; the parameters keep theirs."""
        if self._graph is None:
            assert self._kernel is not None, "input_gradient() follows forward()"
            gradient = self._kernel.input_gradient(to_array(grad_outputs), self._width)
            return like(gradient, grad_outputs)
        leaves, outputs = self._graph
        (of_input,) = torch.autograd.grad(outputs, leaves[-1], self._tensors([grad_outputs]))
        return like(of_input, grad_outputs)

    def _tensors(self, inputs: Sequence[Any]) -> list[Tensor]:
        device = next(self._module.parameters()).device
        return [torch.as_tensor(x, device=device) for x in inputs]

    def step(self) -> None:
        """Make one step of Adam with the gradients that ``backward`` set."""
        if self._graph is None and self._kernel is not None and self._kernel.adam is not None:
            self._kernel.step()
            self._last = "stepped"
            return
        self._graph = None
        self.optimizer.step()

    def descend(self, loss: Tensor) -> None:
        """Backpropagate a loss that was computed with autograd from ``module``, and step."""
        self.optimizer.zero_grad(set_to_none=True)
        self._reconcile()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def soft_update(self, tau: float) -> None:
        """Move the target: ``target <- target + tau * (online - target)``."""
        self.follow()
        kernel, target_kernel = self._bound(after="stepped"), self._bound_target()
        if kernel is not None and target_kernel is not None:
            target_kernel.net.flat.lerp_(kernel.net.flat, tau)
            return
        self._reconcile()
        with torch.no_grad():
            source = self._module.get_submodule(self._target_of or "")
            torch._foreach_lerp_(list(self.target.parameters()), list(source.parameters()), tau)

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
        for prefix, network in self._evolvables():
            head = f"{prefix}.layers." if prefix else "layers."
            own = {k[len(head) :]: v for k, v in state["module"].items() if k.startswith(head)}
            network.restore(state["shapes"][prefix], own)
            target = self._target_part(prefix)
            if target is not None:
                target.restore(state["shapes"][prefix], own)
                target.requires_grad_(False)
            network.journal = []
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


def plain_shape(network: EvolvableNetwork) -> dict[str, Any]:
    """Return the arguments that rebuild a network, without its device."""
    return {key: value for key, value in network.init_dict.items() if key != "device"}
