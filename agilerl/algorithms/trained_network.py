"""A network with its target and its optimiser, kept together through every change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from agilerl.algorithms.arrays import joined, like, to_array
from agilerl.algorithms.optimizer_state import (
    adam_state,
    check_adam_state,
    fits,
    load_adam_state,
    make_adam,
    moments_of,
    replace_parameters,
    step_state,
    transfer_moments,
)
from agilerl.errors import CheckpointError
from agilerl.finite import finite
from agilerl.networks import mlp_kernel
from agilerl.networks.base import EvolvableNetwork, Params
from agilerl.networks.mlp_kernel import MLPKernel

Tensor = torch.Tensor


#: What belongs to a network's memory, and to the call that is being made.
UNBOUND: dict[str, Any] = {
    "_kernel": None,
    "_target_kernel": None,
    "_graph": None,
    "_checked": False,
}


class TrainedNetwork:
    """What an agent owns: a module, a Polyak copy of it (or of a part), and an Adam optimiser.

    The module may be edited in place at any time.  Before the next use, target and moments are
    brought in line with the edit (``sync``), so that the optimiser always holds exactly the live
    parameters.

    An algorithm's ``learn`` is one implementation over the verbs ``forward``, ``backward`` (or
    ``input_gradient``), ``step`` and ``soft_update``.  Plain MLPs on the CPU run them on the
    kernel of ``networks.mlp_kernel``, everything else on autograd; the numbers are the same to
    rounding.  The verbs take NumPy arrays or tensors, and give back the kind that they were given.

    Args:
        module: the network; it may be a composite of evolvable ones.
        lr: learning rate of Adam; None means frozen (no optimiser).
        target_of: which submodule has a target copy: "" is all of it, None is no target.
    """

    _kernel: MLPKernel | None = None
    _target_kernel: MLPKernel | None = None
    #: the inputs and outputs of the last ``forward`` under autograd
    _graph: tuple[tuple[Tensor, ...], Tensor] | None = None
    _width = 0
    #: whether the verbs may take for granted what ``check`` has looked for
    _checked = False

    def __init__(
        self, module: nn.Module, lr: float | None = None, target_of: str | None = ""
    ) -> None:
        self._module = module
        #: the module where it is one evolvable network, and no composite
        self._alone = module if isinstance(module, EvolvableNetwork) else None
        self._target_of = target_of
        self._target: nn.Module | None = None
        self._optimizer: torch.optim.Adam | None = None
        if target_of is not None:
            self._target = copy.deepcopy(module.get_submodule(target_of)).requires_grad_(False)
        if lr is not None:
            self._optimizer = make_adam(module.parameters(), lr)
        #: the parameters that the optimiser holds, by name
        self._held: dict[str, nn.Parameter] = dict(module.named_parameters())
        for network in self.evolvables:
            network.pending_edits = []
        #: whether uint8 images are made floats, of which the user's own layers do not know
        self._floats = not self.evolvables

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process's memory; copies bind their own."""
        self.sync()
        return {**self.__dict__, **UNBOUND}

    # --------------------------------------------------------------------------------------- parts

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        self._checked = False
        return self._module

    @property
    def target(self) -> nn.Module:
        """The Polyak copy; it raises ``AttributeError`` where there is none."""
        self._checked = False
        self.sync()
        if self._target is None:
            raise AttributeError("this network has no target copy")
        return self._target

    @property
    def optimizer(self) -> torch.optim.Adam:
        """The optimiser; it raises ``AttributeError`` on a frozen network."""
        self._checked = False
        self.sync()
        if self._optimizer is None:
            raise AttributeError("this network is frozen: it has no optimiser")
        self._reconcile()
        return self._optimizer

    @property
    def evolvables(self) -> list[EvolvableNetwork]:
        """The evolvable networks in the module: itself, or the parts of a composite."""
        self._checked = False
        return [network for _, network in self._evolvables()]

    @property
    def evolvable(self) -> EvolvableNetwork:
        """The first of ``evolvables``."""
        return self.evolvables[0]

    @property
    def rng_owners(self) -> list[Any]:
        """Whatever draws in the module, each from its ``rng``."""
        return [owner for network in self.evolvables for owner in network.rng_owners]

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

    def _evolvables(self) -> list[tuple[str, EvolvableNetwork]]:
        if self._alone is not None:
            return [("", self._alone)]
        found = self._module.named_modules()
        return [(name, m) for name, m in found if isinstance(m, EvolvableNetwork)]

    # ------------------------------------------------------------------- edits, and what else moved

    def sync(self) -> None:
        """Make the edits of the module since the last call on target and moments as well."""
        if self._checked or (self._alone is not None and not self._alone.pending_edits):
            return
        edits = [
            (name, edit) for name, net in self._evolvables() for edit in net.pending_edits or ()
        ]
        if not edits:
            return
        moments, steps = self._remembered()
        for prefix, edit in edits:
            target = self._target_part(prefix)
            if target is not None:
                target.apply_edit(edit)
                target.requires_grad_(False)
            transfer_moments(moments, edit, f"{prefix}.layers." if prefix else "layers.")
        for network in self.evolvables:
            network.pending_edits = []
        self._hold_live(moments, steps)

    def _remembered(self) -> tuple[dict[str, Params], dict[str, Any]]:
        """Return what the optimiser remembers of the parameters that it holds."""
        if self._optimizer is None:
            return {}, {}
        return moments_of(self._optimizer, self._held), step_state(self._optimizer, self._held)

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

    def _hold_live(self, moments: dict[str, Params], steps: dict[str, Any]) -> None:
        """Make the optimiser hold the live parameters, with ``moments`` (zero where none came)."""
        live = dict(self._module.named_parameters())
        if self._optimizer is not None:
            replace_parameters(self._optimizer, self._held, live, moments, steps)
        self._held = live
        self._kernel = self._target_kernel = None

    def _reconcile(self) -> None:
        """Make up for what was done to the parameters from outside.

        They may have been replaced (``load_state_dict(assign=True)``) or moved to another dtype or
        device, without the optimiser or the target being told.
        """
        self.sync()
        first = next(self._module.parameters())
        if self._target is not None:
            other = next(self._target.parameters())
            if (other.dtype, other.device) != (first.dtype, first.device):
                self._target.to(first.device, first.dtype)
        if self._optimizer is None:
            return
        live = self._module.named_parameters()
        moved = not fits(self._optimizer, next(iter(self._held.values())))
        if moved or any(self._held.get(name) is not p for name, p in live):
            self._hold_live(*self._remembered())

    # -------------------------------------------------------------------------------------- kernel

    def _bound(self) -> MLPKernel | None:
        """Return the kernel, bound to the module's present memory; None where autograd serves."""
        if self._checked:
            return self._kernel
        if not mlp_kernel.enabled:
            self._kernel = None
            return None
        if self._kernel is None or not self._kernel.holds():
            self._kernel = None
            if MLPKernel.serves(self._module, trained=self._optimizer is not None):
                self._reconcile()
                self._kernel = MLPKernel(self._module, self._optimizer)
        return self._kernel

    def _bound_target(self) -> MLPKernel | None:
        if self._checked:
            return self._target_kernel
        if not mlp_kernel.enabled:
            self._target_kernel = None
            return None
        if self._target_kernel is None or not self._target_kernel.holds():
            self._target_kernel = None
            if MLPKernel.serves(self._target, trained=False):
                self._target_kernel = MLPKernel(self._target, None)
        return self._target_kernel

    @property
    def on_kernel(self) -> bool:
        """Whether NumPy arrays are what the network is fastest on.

        The verbs look again, and take either kind.
        """
        self.sync()
        return mlp_kernel.enabled and (self._kernel is not None or self._bound() is not None)

    def check(self) -> None:
        """Look for edits and exchanged memory; the verbs do not until ``uncheck``.

        They do, too, once somebody has asked for the module or a part, the target or the optimiser.
        """
        self._checked = False
        self.sync()
        kernel, _ = self._bound(), self._bound_target()
        if kernel is not None:
            kernel.check_optimizer()
        self._checked = True

    def uncheck(self) -> None:
        """Let each verb look again."""
        self._checked = False

    # --------------------------------------------------------------------------------------- verbs

    def infer(self, *inputs: Any, target: bool = False) -> Any:
        """Return the outputs of the network (or of its target) without a graph."""
        self.sync()
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
        self.sync()
        kernel = self._bound() if self._optimizer is not None else None
        if kernel is not None and not kernel.net.gradients_are_watched():
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
            assert self._kernel is not None, "backward() needs a forward() before"
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
            assert self._kernel is not None, "input_gradient() needs a forward() before"
            gradient = self._kernel.input_gradient(to_array(grad_outputs), self._width)
            return like(gradient, grad_outputs)
        leaves, outputs = self._graph
        (of_input,) = torch.autograd.grad(outputs, leaves[-1], self._tensors([grad_outputs]))
        return like(of_input, grad_outputs)

    def _tensors(self, inputs: Sequence[Any]) -> list[Tensor]:
        device = next(self._module.parameters()).device
        tensors = [torch.as_tensor(x, device=device) for x in inputs]
        if self._floats:
            tensors = [x.float() if x.dtype == torch.uint8 else x for x in tensors]
        return tensors

    def step(self, max_grad_norm: float | None = None) -> bool:
        """Make one step of Adam with the gradients that ``backward`` set.

        Args:
            max_grad_norm: largest norm of the gradient of all parameters together; a larger one is
                scaled down to it.  None leaves it as it is.

        Returns:
            Whether it was made: not where a gradient is NaN or infinite.
        """
        kernel = self._kernel if self._graph is None else None
        if kernel is not None and kernel.adam is not None:
            if not finite(kernel.adam.gradient):
                return False
            if max_grad_norm is not None:  # as clip_grad_norm_, at once for all parameters
                norm = torch.linalg.vector_norm(kernel.adam.grad)
                kernel.adam.grad.mul_((max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
            if not self._checked:
                kernel.check_optimizer()
            kernel.adam.step()
            return True
        self._graph = None
        gradients = [p.grad for p in self._module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not (torch.isfinite(norm) or all(bool(torch.isfinite(g).all()) for g in gradients)):
            return False
        if max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self._module.parameters(), max_grad_norm, norm)
        self.optimizer.step()
        return True

    def descend(self, loss: Tensor) -> None:
        """Backpropagate a loss that was computed with autograd from ``module``, and step."""
        self.optimizer.zero_grad(set_to_none=True)
        self._reconcile()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def soft_update(self, tau: float) -> None:
        """Move the target: ``target <- target + tau * (online - target)``."""
        self.sync()
        kernel, target_kernel = self._bound(), self._bound_target()
        if kernel is not None and target_kernel is not None:
            target_kernel.net.follow(kernel.net, tau)
            return
        self._reconcile()
        with torch.no_grad():
            source = self._module.get_submodule(self._target_of or "")
            torch._foreach_lerp_(list(self.target.parameters()), list(source.parameters()), tau)

    # --------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Return shapes, weights, target and optimiser as tensors and plain values, copied."""
        self._reconcile()
        state: dict[str, Any] = {
            "shapes": {name: plain_shape(net) for name, net in self._evolvables()},
            "module": {k: v.clone() for k, v in self._module.state_dict().items()},
            "frozen": [name for name, p in self._module.named_parameters() if not p.requires_grad],
        }
        if self._target is not None:
            state["target"] = {k: v.clone() for k, v in self._target.state_dict().items()}
        if self._optimizer is not None:
            state["optimizer"] = adam_state(self._optimizer, self._held)
        return state

    def has_shapes_of(self, state: Mapping[str, Any]) -> bool:
        """Return whether ``state`` is of this network's shapes and dtype."""
        dtypes = {v.dtype for v in state["module"].values() if v.is_floating_point()}
        shapes = {name: plain_shape(net) for name, net in self._evolvables()}
        return bool(state["shapes"] == shapes) and dtypes == {next(iter(self._held.values())).dtype}

    def take_shapes_of(self, state: Mapping[str, Any]) -> None:
        """Take the shapes and the dtype of a state, for ``prepare_load``.

        Raises:
            ConfigError, LookupError, TypeError, ValueError: if there is no such shape.
        """
        (dtype,) = {v.dtype for v in state["module"].values() if v.is_floating_point()}
        self._module.to(dtype)
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
        self._hold_live({}, {})

    def prepare_load(self, state: Mapping[str, Any]) -> Callable[[], None]:
        """Return what copies ``state`` into this network, which has its shapes, and can't fail.

        Raises:
            AgileRLError, LookupError, TypeError, AttributeError, ValueError, RuntimeError: if the
                state does not fit.
        """
        self._reconcile()
        pairs = matching("module", self._module.state_dict(), state["module"])
        if self._target is not None:
            pairs += matching("target", self._target.state_dict(), state["target"])
        frozen = set(state["frozen"])
        if not frozen <= self._held.keys():
            raise CheckpointError(f"frozen: not all are parameters: {state['frozen']}.")
        if self._optimizer is not None:
            check_adam_state(state["optimizer"], self._held)

        def load() -> None:
            with torch.no_grad():
                for own, given in pairs:
                    own.copy_(given)
            for name, parameter in self._held.items():
                if parameter.requires_grad is (name in frozen):
                    parameter.requires_grad_(name not in frozen)
            if self._optimizer is not None:
                load_adam_state(self._optimizer, self._held, state["optimizer"])
            if self._kernel is not None and self._kernel.adam is not None:
                self._kernel.adam.entries = [-1]  # no tensor's: it binds before a step

        return load


def matching(
    part: str, own: Mapping[str, Tensor], given: Mapping[str, Any]
) -> list[tuple[Tensor, Tensor]]:
    """Return the tensors of ``own`` and ``given`` in pairs.

    Raises:
        CheckpointError: if ``given`` has not the same names, shapes and dtypes.
    """
    if given.keys() != own.keys():
        raise CheckpointError(f"{part}: expected {sorted(own)}, got {sorted(given)}.")
    for name, tensor in own.items():
        if (given[name].shape, given[name].dtype) != (tensor.shape, tensor.dtype):
            raise CheckpointError(
                f"{part}: {name}: expected {tensor.dtype} {list(tensor.shape)}, got"
                f" {given[name].dtype} {list(given[name].shape)}."
            )
    return [(tensor, given[name]) for name, tensor in own.items()]


def plain_shape(network: EvolvableNetwork) -> dict[str, Any]:
    """Return the arguments that rebuild a network, without its device."""
    return {key: value for key, value in network.init_dict.items() if key != "device"}
