"""Forward, backward, Adam and soft update of plain MLPs in a few large operations on a CPU.

For networks of this size the bookkeeping of autograd, and of each torch operation, costs more than
the arithmetic.  The kernel lays all parameters of a network into one flat vector, its target's
into another, and Adam's moments into two more.  The torch modules and the optimiser keep their
per-layer tensors as *views* of that memory, and NumPy's arrays are views of it too, so there is one
truth.  Before each learn call, and each use outside of one, it is checked that they still are:
after a deep copy, ``load_state_dict(assign=True)``, ``.to(...)`` or an edit they are not, and the
kernel is bound anew, or steps aside for autograd.

The passes themselves are compiled (``mlp_compiled``), or in NumPy (``mlp_arrays``) where they are
not, or for other activations or float64.

``enabled`` turns the kernel off, and so does the environment variable ``AGILERL_MLP_KERNEL=0``; see
``agilerl.compiled`` for what is compiled.
"""

from __future__ import annotations

import os
from itertools import chain
from operator import attrgetter, is_
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import nn

from agilerl import compiled
from agilerl.networks import mlp_compiled
from agilerl.networks.evolvable_mlp import EvolvableMLP
from agilerl.networks.mlp_arrays import ArrayPass
from agilerl.networks.mlp_compiled import CompiledPass

Tensor = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

#: Whether plain MLPs on the CPU use the kernel.
enabled: bool = os.environ.get("AGILERL_MLP_KERNEL", "1") != "0"

TRAINED = attrgetter("requires_grad")
#: Where the hooks of a parameter are kept, of each kind.
TENSOR_HOOKS = attrgetter("_backward_hooks"), attrgetter("_post_accumulate_grad_hooks")
DTYPES = (torch.float32, torch.float64)


def kind() -> str:
    """Return what makes the passes of plain MLPs here, in words: numbers differ with it."""
    if not enabled:
        return "by autograd"
    return "compiled" if compiled.in_use() else "in NumPy"


def hooks_of(module: nn.Module, direction: str = "forward") -> list[dict[int, Any]]:
    """Return the dicts that hold the hooks of a module and its parts, of one direction."""
    names = (f"_{direction}_hooks", f"_{direction}_pre_hooks")
    return [getattr(part, name) for part in module.modules() for name in names]


def as_specified(module: EvolvableMLP) -> bool:
    """Return whether the layers are those of the spec: none was exchanged or parametrised."""
    spec, layers = module.spec, dict(module.layers)
    plain = {
        **{name: x for name, x in layers.items() if type(x) is nn.Linear},
        **{f"act_{i}": module.make_activation(spec.activation) for i in range(len(layers) // 2)},
    }
    if spec.output_activation is not None:
        plain["output_act"] = module.make_activation(spec.output_activation)
    return all(name in plain and repr(x) == repr(plain[name]) for name, x in layers.items())


class FlatModule:
    """The parameters of one module as views of one flat vector."""

    def __init__(self, module: EvolvableMLP) -> None:
        self.module = module
        self.layers = module.layers
        self.children = tuple(module.layers.values())
        self.hooks, self.gradient_hooks = hooks_of(module), hooks_of(module, "backward")
        self.params: list[nn.Parameter] = list(module.layers.parameters())
        with torch.inference_mode(False):  # else they could not be learnt from afterwards
            self.flat = torch.cat([p.detach().reshape(-1) for p in self.params])
            self.views = self.split(self.flat)
            self.weights = self.flat.numpy()
            for parameter, view in zip(self.params, self.views, strict=True):
                parameter.data = view
        owners = [layer._parameters for layer in self.children]
        self.owners = [owner for owner in owners for _ in owner]
        self.names = [name for owner in owners for name in owner]
        self.pointers = [p.data_ptr() for p in self.params]
        self.trained = list(map(TRAINED, self.params))

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return ``flat`` as one view for each parameter, in their order and shapes."""
        parts = torch.split(flat, [p.numel() for p in self.params])
        return [part.view(p.shape) for part, p in zip(parts, self.params, strict=True)]

    def holds(self) -> bool:
        """Return whether the module's parameters still are the views of ``flat``."""
        layers = self.module._modules.get("layers")
        return (
            layers is self.layers
            and tuple(layers._modules.values()) == self.children
            and not any(self.hooks)
            and all(map(is_, map(dict.get, self.owners, self.names), self.params))
            and list(map(torch.Tensor.data_ptr, self.params)) == self.pointers
            and list(map(TRAINED, self.params)) == self.trained
        )

    def follow(self, other: FlatModule, tau: float) -> None:
        """Move these parameters towards those of another module: ``+= tau * (other - these)``."""
        if compiled.serves(self.weights):
            compiled.learning.move(self.weights, other.weights, tau)
        else:
            self.flat.lerp_(other.flat, tau)

    def gradients_are_watched(self) -> bool:
        """Return whether hooks wait for gradients, which only autograd calls."""
        return any(self.gradient_hooks) or any(
            any(map(hooks, self.params)) for hooks in TENSOR_HOOKS
        )


class FlatAdam:
    """The state of a ``torch.optim.Adam`` over one ``FlatModule``, as views of flat vectors."""

    def __init__(self, optimizer: torch.optim.Adam, net: FlatModule) -> None:
        self.optimizer = optimizer
        self.net = net
        flat = net.flat
        with torch.inference_mode(False):
            self.grad, self.exp_avg, self.exp_avg_sq = (torch.zeros_like(flat) for _ in range(3))
            self.steps = torch.zeros(len(net.params))
        self.first_step = self.steps[0]
        self.counts = self.steps.numpy()
        self.grads = net.split(self.grad)
        self.vectors = self.grad, self.exp_avg, self.exp_avg_sq, self.steps
        self.pointers = [*map(torch.Tensor.data_ptr, self.vectors)]
        self.gradient = self.grad.numpy()
        self.moments = self.exp_avg.numpy(), self.exp_avg_sq.numpy()
        self.bind()

    def bind(self) -> None:
        """Take over what the optimiser remembers, and make its state views of this memory."""
        optimizer, net = self.optimizer, self.net
        moments = zip(net.split(self.exp_avg), net.split(self.exp_avg_sq), strict=True)
        for parameter, step, (mean, square) in zip(net.params, self.steps, moments, strict=True):
            state = optimizer.state[parameter]
            for key, view in (("step", step), ("exp_avg", mean), ("exp_avg_sq", square)):
                view.copy_(torch.as_tensor(state.get(key, 0.0)))
                state[key] = view
        self.state = optimizer.state
        self.entries = self.identities()
        #: whether all have made as many steps; a layer that was frozen for a time has not
        self.even = bool((self.counts == self.counts[0]).all())

    def identities(self) -> list[int]:
        """Return which tensors the optimiser's state holds."""
        return [*map(id, chain.from_iterable(map(dict.values, self.optimizer.state.values())))]

    def in_place(self) -> bool:
        """Return whether this memory still is where it was; sharing a view moves all of it."""
        return [*map(torch.Tensor.data_ptr, self.vectors)] == self.pointers

    def holds(self) -> bool:
        """Return whether the optimiser's state still is the views of this memory."""
        return self.optimizer.state is self.state and self.identities() == self.entries

    def step(self) -> None:
        """Make one step of Adam with the gradients in ``grad``."""
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        group = groups[0]
        plain = not (group["weight_decay"] or group["amsgrad"] or group["maximize"])
        if len(groups) > 1 or not (plain and self.even):
            self.optimizer.step()
            return
        self.counts += 1  # the same memory; a torch operation costs several times as much
        beta1, beta2 = group["betas"]
        lr, eps = float(group["lr"]), group["eps"]
        if compiled.serves(self.gradient):
            vectors = self.net.weights, self.gradient, *self.moments
            compiled.learning.adam(*vectors, self.counts[0], lr, beta1, beta2, eps)
            return
        torch._fused_adam_(
            [self.net.flat],
            [self.grad],
            [self.exp_avg],
            [self.exp_avg_sq],
            [],
            [self.first_step],
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=eps,
            amsgrad=False,
            maximize=False,
        )


class MLPKernel:
    """Forward, backward and optimiser step of one plain MLP, in the memory of its modules."""

    def __init__(self, module: EvolvableMLP, optimizer: torch.optim.Adam | None) -> None:
        self.net = FlatModule(module)
        self.dtype = self.net.weights.dtype
        self.adam = None if optimizer is None else FlatAdam(optimizer, self.net)
        spec, flat = module.spec, self.net.weights
        self.passes: CompiledPass | ArrayPass
        if mlp_compiled.serves(spec, flat):
            gradients = None if self.adam is None else self.adam.gradient
            self.passes = CompiledPass(spec, flat, gradients)
        else:
            names = [name for name, _ in module.layers.named_parameters()]
            grads = None if self.adam is None else dict(zip(names, self.adam.grads, strict=True))
            views = dict(zip(names, self.net.views, strict=True))
            self.passes = ArrayPass(spec, views, grads)

    @staticmethod
    def serves(module: nn.Module | None, trained: bool) -> TypeGuard[EvolvableMLP]:
        """Return whether ``module`` is a plain MLP on the CPU, without hooks or frozen parts."""
        return (
            type(module) is EvolvableMLP
            and not module.spec.layer_norm
            and not any(hooks_of(module))
            and all(
                p.device.type == "cpu" and p.dtype in DTYPES and p.requires_grad == trained
                for p in module.parameters()
            )
            and as_specified(module)
        )

    def holds(self) -> bool:
        """Return whether the module's parameters, and all else, still are in this memory."""
        return self.net.holds() and (self.adam is None or self.adam.in_place())

    def forward(self, x: Array, keep: bool = False) -> Array:
        """Map ``x`` [B, num_inputs] to outputs [B, num_outputs]; ``keep`` what backward needs."""
        return self.passes.forward(x, keep)

    def backward(self, grad: Array) -> None:
        """Write the gradient of the parameters, from that of the last forward's outputs."""
        assert self.adam is not None
        self.passes.backward(grad)
        for parameter, view in zip(self.net.params, self.adam.grads, strict=True):
            parameter.grad = view  # where others look for it, to clip it say

    def input_gradient(self, grad: Array, columns: int) -> Array:
        """Return the gradient of the first ``columns`` inputs; the parameters' stay as they are."""
        return self.passes.input_gradient(grad, columns)

    def check_optimizer(self) -> None:
        """Take over the optimiser's state where it was replaced from outside."""
        if self.adam is not None and not self.adam.holds():
            self.adam.bind()
