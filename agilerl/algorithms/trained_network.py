"""The verbs of learning on a network, on the CPU kernel or on autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from agilerl.algorithms.inputs import joined, like, to_array
from agilerl.algorithms.owned_network import OwnedNetwork
from agilerl.networks import mlp_kernel
from agilerl.networks.base import Params
from agilerl.networks.mlp_kernel import MLPKernel

Tensor = torch.Tensor


class TrainedNetwork(OwnedNetwork):
    """What an agent owns: a module, a Polyak copy of it (or of a part), and an Adam optimiser.

    An algorithm's ``learn`` is one text over the verbs ``forward``, ``backward`` (or
    ``input_gradient``), ``step`` and ``soft_update``.  Plain MLPs on the CPU run them on the
    kernel of ``networks.mlp_kernel``, everything else on autograd; the numbers are the same.  The
    verbs take NumPy arrays or tensors, and give back the kind that they were given.

    Args: see ``OwnedNetwork``.
    """

    _kernel: MLPKernel | None = None
    _target_kernel: MLPKernel | None = None
    #: the inputs and outputs of the last ``forward`` under autograd
    _graph: tuple[tuple[Tensor, ...], Tensor] | None = None
    _width = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process's memory; copies bind their own."""
        self.follow()
        return {**self.__dict__, "_kernel": None, "_target_kernel": None, "_graph": None}

    def _adopt(self, moments: dict[str, Params], rest: dict[str, Any]) -> None:
        super()._adopt(moments, rest)
        self._kernel = self._target_kernel = None

    def _bound(self) -> MLPKernel | None:
        """Return the kernel, bound to the module's present memory; None where autograd serves."""
        if not mlp_kernel.enabled:
            return None
        if self._kernel is None or not self._kernel.net.holds():
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
        """Whether NumPy arrays are what the network is fastest on.

        The verbs look again, and take either kind.
        """
        self.follow()
        return mlp_kernel.enabled and (self._kernel is not None or self._bound() is not None)

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
        kernel, target_kernel = self._bound(), self._bound_target()
        if kernel is not None and target_kernel is not None:
            target_kernel.net.flat.lerp_(kernel.net.flat, tau)
            return
        self._reconcile()
        with torch.no_grad():
            source = self._module.get_submodule(self._target_of or "")
            torch._foreach_lerp_(list(self.target.parameters()), list(source.parameters()), tau)
