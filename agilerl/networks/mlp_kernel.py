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
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import nn

from agilerl.networks.evolvable_mlp import EvolvableMLP

Tensor = torch.Tensor

#: Whether plain MLPs on the CPU use the kernel.
enabled: bool = os.environ.get("AGILERL_MLP_KERNEL", "1") != "0"

_aten = torch.ops.aten


class Activation(NamedTuple):
    """An activation: its value in place, and its gradient from what ``keeps`` says it needs."""

    value: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    keeps_input: bool = False


def _softsign_gradient(grad: Tensor, z: Tensor) -> Tensor:
    return grad / (z.abs() + 1).square()


#: gradient(grad, y) of the output y, or gradient(grad, z) of the input where ``keeps_input``.
#: PReLU has a parameter and is handled in the kernel itself.
KERNEL_ACTIVATIONS: dict[str | None, Activation] = {
    None: Activation(lambda z: z, lambda grad, y: grad),
    "linear": Activation(lambda z: z, lambda grad, y: grad),
    "relu": Activation(torch.relu_, lambda grad, y: _aten.threshold_backward(grad, y, 0)),
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
        slots = [(layer._parameters, n) for layer in self.children for n in layer._parameters]
        self.slots = [
            (owner, name, p, p.data_ptr(), p.requires_grad)
            for (owner, name), p in zip(slots, self.params, strict=True)
        ]

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return ``flat`` as one view for each parameter, in their order and shapes."""
        parts = torch.split(flat, [p.numel() for p in self.params])
        return [part.view(p.shape) for part, p in zip(parts, self.params, strict=True)]

    def holds(self) -> bool:
        """Return whether the module's parameters still are the views of ``flat``."""
        layers = self.module._modules.get("layers")
        if layers is not self.layers or tuple(layers._modules.values()) != self.children:
            return False
        if any(self.hooks):
            return False
        for owner, name, parameter, pointer, trained in self.slots:  # a plain loop: a hot path
            if (
                owner.get(name) is not parameter
                or parameter.data_ptr() != pointer
                or parameter.requires_grad is not trained
            ):
                return False
        return True


class FlatAdam:
    """The state of a ``torch.optim.Adam`` over one ``FlatModule``, as views of flat vectors."""

    def __init__(self, optimizer: torch.optim.Adam, net: FlatModule) -> None:
        self.optimizer = optimizer
        self.net = net
        flat = net.flat
        self.grad, self.exp_avg, self.exp_avg_sq = (torch.zeros_like(flat) for _ in range(3))
        self.steps = torch.zeros(len(net.params))
        self.first_step = self.steps[0]
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
        self.entries = [
            (p, state["step"], state["exp_avg"], state["exp_avg_sq"])
            for p in net.params
            if (state := self.state[p])
        ]

    def holds(self) -> bool:
        """Return whether the optimiser's state still is the views of this memory."""
        if self.optimizer.state is not self.state:
            return False
        for parameter, step, mean, square in self.entries:
            entry = self.state.get(parameter)
            if (
                entry is None
                or entry["step"] is not step
                or entry["exp_avg"] is not mean
                or entry["exp_avg_sq"] is not square
            ):
                return False
        return True

    def step(self) -> None:
        """Make one step of Adam with the gradients in ``grad``."""
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        group = groups[0]
        if len(groups) > 1 or group["weight_decay"] or group["amsgrad"] or group["maximize"]:
            for parameter, grad in zip(self.net.params, self.grads, strict=True):
                parameter.grad = grad
            self.optimizer.step()
            return
        self.steps.add_(1)
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


class MLPKernel:
    """The verbs of one plain MLP; no tensor in here needs a gradient of autograd's."""

    def __init__(self, module: EvolvableMLP, optimizer: torch.optim.Adam | None) -> None:
        self.net = FlatModule(module)
        self.adam = None if optimizer is None else FlatAdam(optimizer, self.net)
        names = [name for name, _ in module.layers.named_parameters()]
        views = dict(zip(names, self.net.views, strict=True))
        grads = dict(zip(names, self.adam.grads, strict=True)) if self.adam else {}
        spec = module.spec
        self.hidden = KERNEL_ACTIVATIONS.get(spec.activation)
        self.last = KERNEL_ACTIVATIONS[spec.output_activation]
        layers = [f"linear_{i}" for i in range(len(spec.hidden_size))] + ["output"]
        self.weights = [views[f"{name}.weight"] for name in layers]
        self.turned = [weight.t() for weight in self.weights]
        self.biases = [views[f"{name}.bias"] for name in layers]
        self.weight_grads = [grads.get(f"{name}.weight") for name in layers]
        self.bias_grads = [grads.get(f"{name}.bias") for name in layers]
        slopes = [f"act_{i}.weight" for i in range(len(spec.hidden_size))]
        self.slopes = [views.get(name) for name in slopes]
        self.slope_grads = [grads.get(name) for name in slopes]
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

    def _activate(self, i: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output of layer ``i`` and what its gradient needs (z or the output)."""
        if i < len(self.slopes) and self.hidden is None:
            slope = self.slopes[i]
            assert slope is not None
            return torch.prelu(z, slope), z
        activation = self.last if i == len(self.slopes) else self.hidden
        assert activation is not None
        y = activation.value(z)
        return y, z if activation.keeps_input else y

    def forward(self, x: Tensor, keep: bool = False) -> Tensor:
        """Map ``x`` [B, num_inputs] to outputs [B, num_outputs]; ``keep`` what backward needs."""
        kept = []
        for i, (weight, bias) in enumerate(zip(self.turned, self.biases, strict=True)):
            inputs = x
            x, memory = self._activate(i, torch.addmm(bias, inputs, weight))
            if keep:
                kept.append((inputs, memory))
        if keep:
            self.kept = kept
        return x

    def _through_activation(self, i: int, grad: Tensor, parameters: bool) -> Tensor:
        """Return the gradient in front of the activation of layer ``i``."""
        memory = self.kept[i][1]
        if i < len(self.slopes) and self.hidden is None:
            grad, slope = _aten._prelu_kernel_backward(grad, memory, self.slopes[i])
            if parameters:
                torch.sum(slope, (0, 1), out=self.slope_grads[i][0])  # type: ignore[index]
            return grad
        activation = self.last if i == len(self.slopes) else self.hidden
        assert activation is not None
        return activation.gradient(grad, memory)

    def backward(self, grad: Tensor) -> None:
        """Write the gradient of the parameters, from that of the last forward's outputs."""
        for i in reversed(range(len(self.weights))):
            grad = self._through_activation(i, grad, True)
            inputs, (fan_out, fan_in) = self.kept[i][0], self.weights[i].shape
            weight_grad = self.weight_grads[i]
            assert weight_grad is not None
            # The product whose rows are long is several times faster on a CPU.
            if fan_in >= fan_out:
                torch.mm(grad.t(), inputs, out=weight_grad)
            else:
                weight_grad.copy_(torch.mm(inputs.t(), grad).t())
            torch.sum(grad, 0, out=self.bias_grads[i])
            if i:
                grad = torch.mm(grad, self.weights[i])

    def step(self) -> None:
        """Make one step of Adam with the gradients that ``backward`` wrote."""
        assert self.adam is not None
        if not self.adam.holds():  # the optimiser's state was replaced from outside: follow it
            self.adam.bind()
        self.adam.step()

    def input_gradient(self, grad: Tensor, columns: int) -> Tensor:
        """Return the gradient of the first ``columns`` inputs; the parameters' stay as they are."""
        for i in reversed(range(len(self.weights))):
            grad = self._through_activation(i, grad, False)
            weight = self.weights[i] if i else self.weights[0][:, :columns]
            grad = torch.mm(grad, weight)
        return grad
