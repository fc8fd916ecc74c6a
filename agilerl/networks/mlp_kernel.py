"""Forward, backward, Adam and soft update of plain MLPs in a few large operations on a CPU.

For networks of this size autograd's bookkeeping costs more than the arithmetic.  The kernel lays
all parameters of a network into one flat vector, its target's into another, and Adam's moments
into two more.  The torch modules and the optimiser keep their per-layer tensors as *views* of
that memory, so there is one truth.  Before each use the kernel checks that they still are:
after a deep copy, ``load_state_dict(assign=True)``, ``.to(...)`` or an edit they are not, and
the kernel is bound anew, or steps aside for autograd.

``enabled`` (or the environment variable ``AGILERL_MLP_KERNEL=0``) turns the kernel off.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import chain
from operator import attrgetter, is_
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import nn

from agilerl.networks.evolvable_mlp import EvolvableMLP

Tensor = torch.Tensor

#: Whether plain MLPs on the CPU use the kernel.
enabled: bool = os.environ.get("AGILERL_MLP_KERNEL", "1") != "0"

_aten = torch.ops.aten
_threshold_backward = _aten.threshold_backward.default
TRAINED = attrgetter("requires_grad")


class Activation(NamedTuple):
    """An activation, in place where it can be; None is the identity.

    Its gradient is a function of the gradient above it and of its output, or of its input where
    ``keeps_input``.
    """

    value: Callable[[Tensor], Tensor] | None
    gradient: Callable[[Tensor, Tensor], Tensor] | None
    keeps_input: bool = False


def _softsign_gradient(grad: Tensor, z: Tensor) -> Tensor:
    return grad / (z.abs() + 1).square()


def prelu(slope: Tensor) -> Activation:
    """Return PReLU with its parameter [1]; the kernel sees to the parameter's gradient."""
    return Activation(
        lambda z: torch.prelu(z, slope),
        lambda grad, z: _aten._prelu_kernel_backward(grad, z, slope)[0],
        keeps_input=True,
    )


KERNEL_ACTIVATIONS: dict[str | None, Activation] = {
    None: Activation(None, None),
    "linear": Activation(None, None),
    "relu": Activation(torch.relu_, lambda grad, y: _threshold_backward(grad, y, 0)),
    "tanh": Activation(torch.tanh_, lambda grad, y: _aten.tanh_backward(grad, y)),
    "sigmoid": Activation(torch.sigmoid_, lambda grad, y: _aten.sigmoid_backward(grad, y)),
    "elu": Activation(
        lambda z: nn.functional.elu_(z),
        lambda grad, y: _aten.elu_backward(grad, 1.0, 1.0, 1.0, True, y),
    ),
    "lrelu": Activation(
        lambda z: nn.functional.leaky_relu_(z, 0.01),
        lambda grad, y: _aten.leaky_relu_backward(grad, y, 0.01, True),
    ),
    "gelu": Activation(
        nn.functional.gelu, lambda grad, z: _aten.gelu_backward(grad, z), keeps_input=True
    ),
    "softplus": Activation(
        nn.functional.softplus,
        lambda grad, z: _aten.softplus_backward(grad, z, 1.0, 20.0),
        keeps_input=True,
    ),
    "softsign": Activation(nn.functional.softsign, _softsign_gradient, keeps_input=True),
}


def hooks_of(module: nn.Module) -> list[dict[int, Any]]:
    """Return where the forward hooks of a module and its parts are kept."""
    parts = module.modules()
    return [hooks for m in parts for hooks in (m._forward_hooks, m._forward_pre_hooks)]


class FlatModule:
    """The parameters of one module as views of one flat vector."""

    def __init__(self, module: EvolvableMLP) -> None:
        self.module = module
        self.layers = module.layers
        self.children = tuple(module.layers.values())
        self.hooks = hooks_of(module)
        self.params: list[nn.Parameter] = list(module.layers.parameters())
        self.flat = torch.cat([p.detach().reshape(-1) for p in self.params])
        self.views = self.split(self.flat)
        for parameter, view in zip(self.params, self.views, strict=True):
            parameter.data = view
        owners = [layer._parameters for layer in self.children]
        self.owners = [owner for owner in owners for _ in owner]
        self.names = [name for owner in owners for name in owner]
        self.pointers = [p.data_ptr() for p in self.params]
        self.trained = [p.requires_grad for p in self.params]

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


class FlatAdam:
    """The state of a ``torch.optim.Adam`` over one ``FlatModule``, as views of flat vectors."""

    def __init__(self, optimizer: torch.optim.Adam, net: FlatModule) -> None:
        self.optimizer = optimizer
        self.net = net
        flat = net.flat
        self.grad, self.exp_avg, self.exp_avg_sq = (torch.zeros_like(flat) for _ in range(3))
        self.steps = torch.zeros(len(net.params))
        self.first_step = self.steps[0]
        self.counts = self.steps.numpy()
        self.grads = net.split(self.grad)
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

    def identities(self) -> list[int]:
        """Return which tensors the optimiser's state holds."""
        return [*map(id, chain.from_iterable(map(dict.values, self.optimizer.state.values())))]

    def holds(self) -> bool:
        """Return whether the optimiser's state still is the views of this memory."""
        return self.optimizer.state is self.state and self.identities() == self.entries

    def step(self) -> None:
        """Make one step of Adam with the gradients in ``grad``."""
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        group = groups[0]
        if len(groups) > 1 or group["weight_decay"] or group["amsgrad"] or group["maximize"]:
            for parameter, grad in zip(self.net.params, self.grads, strict=True):
                parameter.grad = grad
            self.optimizer.step()
            return
        self.counts += 1  # the same memory; a torch operation costs several times as much
        beta1, beta2 = group["betas"]
        torch._fused_adam_(
            [self.net.flat],
            [self.grad],
            [self.exp_avg],
            [self.exp_avg_sq],
            [],
            [self.first_step],
            lr=float(group["lr"]),
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


class Layer(NamedTuple):
    """A linear layer and what follows it, as views of the flat memory.

    The gradients are None where the network is not trained; ``slope`` is PReLU's parameter.
    """

    weight: Tensor
    turned: Tensor
    bias: Tensor
    activation: Activation
    weight_grad: Tensor | None
    bias_grad: Tensor | None
    slope: Tensor | None
    slope_grad: Tensor | None


class MLPKernel:
    """The verbs of one plain MLP; no tensor in here needs a gradient of autograd's."""

    def __init__(self, module: EvolvableMLP, optimizer: torch.optim.Adam | None) -> None:
        self.net = FlatModule(module)
        self.dtype = self.net.flat.dtype
        self.adam = None if optimizer is None else FlatAdam(optimizer, self.net)
        names = [name for name, _ in module.layers.named_parameters()]
        views = dict(zip(names, self.net.views, strict=True))
        grads = dict(zip(names, self.adam.grads, strict=True)) if self.adam else {}
        depth = len(module.spec.hidden_size)
        self.layers: list[Layer] = []
        for i in range(depth + 1):
            linear, slope = f"linear_{i}" if i < depth else "output", f"act_{i}.weight"
            name = module.spec.activation if i < depth else module.spec.output_activation
            self.layers.append(
                Layer(
                    weight=views[f"{linear}.weight"],
                    turned=views[f"{linear}.weight"].t(),
                    bias=views[f"{linear}.bias"],
                    activation=prelu(views[slope]) if slope in views else KERNEL_ACTIVATIONS[name],
                    weight_grad=grads.get(f"{linear}.weight"),
                    bias_grad=grads.get(f"{linear}.bias"),
                    slope=views.get(slope),
                    slope_grad=grads.get(slope),
                )
            )
        #: what the last forward pass kept for the backward pass: inputs and z or y of each layer
        self.kept: list[tuple[Tensor, Tensor]] = []

    @staticmethod
    def serves(module: nn.Module | None, trained: bool) -> TypeGuard[EvolvableMLP]:
        """Return whether ``module`` is a plain MLP on the CPU, without hooks or frozen parts."""
        return (
            type(module) is EvolvableMLP
            and not module.spec.layer_norm
            and not any(hooks_of(module))
            and all(
                p.device.type == "cpu" and p.dtype.is_floating_point and p.requires_grad == trained
                for p in module.parameters()
            )
        )

    def forward(self, x: Tensor, keep: bool = False) -> Tensor:
        """Map ``x`` [B, num_inputs] to outputs [B, num_outputs]; ``keep`` what backward needs."""
        kept = []
        for layer in self.layers:
            value, _, keeps_input = layer.activation
            inputs = x
            z = x = torch.addmm(layer.bias, inputs, layer.turned)
            if value is not None:
                x = value(z)
            kept.append((inputs, z if keeps_input else x))
        if keep:
            self.kept = kept
        return x

    def _through_activation(self, i: int, grad: Tensor, parameters: bool) -> Tensor:
        """Return the gradient in front of the activation of layer ``i``."""
        layer, memory = self.layers[i], self.kept[i][1]
        if parameters and layer.slope_grad is not None:
            _, slope = _aten._prelu_kernel_backward(grad, memory, layer.slope)
            torch.sum(slope, (0, 1), out=layer.slope_grad[0])
        gradient = layer.activation.gradient
        return grad if gradient is None else gradient(grad, memory)

    def backward(self, grad: Tensor) -> None:
        """Write the gradient of the parameters, from that of the last forward's outputs."""
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            grad = self._through_activation(i, grad, True)
            inputs, weight_grad = self.kept[i][0], layer.weight_grad
            assert weight_grad is not None
            # The product whose rows are long is several times faster on a CPU.
            if inputs.shape[1] >= grad.shape[1]:
                torch.mm(grad.t(), inputs, out=weight_grad)
            else:
                weight_grad.copy_(torch.mm(inputs.t(), grad).t())
            torch.sum(grad, 0, out=layer.bias_grad)
            if i:
                grad = torch.mm(grad, layer.weight)

    def step(self) -> None:
        """Make one step of Adam with the gradients that ``backward`` wrote."""
        assert self.adam is not None
        if not self.adam.holds():  # the optimiser's state was replaced from outside: follow it
            self.adam.bind()
        self.adam.step()

    def input_gradient(self, grad: Tensor, columns: int) -> Tensor:
        """Return the gradient of the first ``columns`` inputs; the parameters' stay as they are."""
        for i in reversed(range(len(self.layers))):
            grad = self._through_activation(i, grad, False)
            weight = self.layers[i].weight if i else self.layers[0].weight[:, :columns]
            grad = torch.mm(grad, weight)
        return grad
