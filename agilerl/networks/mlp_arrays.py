"""Forward and backward pass of plain MLPs in NumPy, for what no compiled pass serves.

Every activation, float32 and float64: a dozen matrix products on arrays that share memory with the
torch modules (see ``mlp_kernel``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from agilerl.networks.evolvable_mlp import MLPSpec

Tensor = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

_aten = torch.ops.aten


class Activation(NamedTuple):
    """An activation of arrays, in place where it can be; None is the identity.

    Its gradient is a function of the gradient above it and of its output, or of its input where
    ``keeps_input``.
    """

    value: Callable[[Array], Array] | None
    gradient: Callable[[Array, Array], Array] | None
    keeps_input: bool = False


def by_torch(value: Any, gradient: Any, keeps_input: bool = False) -> Activation:
    """Return an activation that torch computes, on the arrays' own memory."""
    view = torch.from_numpy
    return Activation(
        lambda z: value(view(z)).numpy(),
        lambda grad, kept: gradient(view(grad), view(kept)).numpy(),
        keeps_input,
    )


class Relu:
    """Rectifies in place: the larger of two arrays, as NumPy is slow where one is a number."""

    def __init__(self) -> None:
        self.zeros = np.zeros(0, np.float32)

    def __call__(self, z: Array) -> Array:
        """Return ``z``, its negative values set to 0."""
        if self.zeros.size < z.size or self.zeros.dtype != z.dtype:
            self.zeros = np.zeros(z.size, z.dtype)
        rectified: Array = np.maximum(z, self.zeros[: z.size].reshape(z.shape), out=z)
        return rectified


def _relu_gradient(grad: Array, y: Array) -> Array:
    gradient: Array = grad * (y > 0)
    return gradient


def _softsign_gradient(grad: Tensor, z: Tensor) -> Tensor:
    return grad / (z.abs() + 1).square()


def prelu(slope: Tensor) -> Activation:
    """Return PReLU with its parameter [1]; the kernel sees to the parameter's gradient."""
    return by_torch(
        lambda z: torch.prelu(z, slope),
        lambda grad, z: _aten._prelu_kernel_backward(grad, z, slope)[0],
        keeps_input=True,
    )


KERNEL_ACTIVATIONS: dict[str | None, Activation] = {
    None: Activation(None, None),
    "linear": Activation(None, None),
    "relu": Activation(Relu(), _relu_gradient),
    "tanh": by_torch(torch.tanh_, _aten.tanh_backward),
    "sigmoid": by_torch(torch.sigmoid_, _aten.sigmoid_backward),
    "elu": by_torch(
        nn.functional.elu_,
        lambda grad, y: _aten.elu_backward(grad, 1.0, 1.0, 1.0, True, y),
    ),
    "lrelu": by_torch(
        lambda z: nn.functional.leaky_relu_(z, 0.01),
        lambda grad, y: _aten.leaky_relu_backward(grad, y, 0.01, True),
    ),
    "gelu": by_torch(nn.functional.gelu, _aten.gelu_backward, keeps_input=True),
    "softplus": by_torch(
        nn.functional.softplus,
        lambda grad, z: _aten.softplus_backward(grad, z, 1.0, 20.0),
        keeps_input=True,
    ),
    "softsign": by_torch(nn.functional.softsign, _softsign_gradient, keeps_input=True),
}


class Layer(NamedTuple):
    """A linear layer and what follows it, as arrays in the flat memory.

    The gradients are None where the network is not trained; ``slope`` is PReLU's parameter.
    """

    weight: Array
    weight_t: Array
    bias: Array
    activation: Activation
    weight_grad: Array | None
    bias_grad: Array | None
    slope: Tensor | None
    slope_grad: Tensor | None


class ArrayPass:
    """Forward and backward pass of one MLP on arrays.

    Args:
        spec: of the network.
        parameters: views of its parameters, by name.
        gradients: where their gradients go, by name; None where it is not trained.
    """

    def __init__(
        self,
        spec: MLPSpec,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor] | None,
    ) -> None:
        grads = gradients or {}
        arrays = {name: view.numpy() for name, view in parameters.items()}
        array_grads = {name: view.numpy() for name, view in grads.items()}
        depth = len(spec.hidden_size)
        self.layers: list[Layer] = []
        for i in range(depth + 1):
            linear, slope = f"linear_{i}" if i < depth else "output", f"act_{i}.weight"
            name = spec.activation if i < depth else spec.output_activation
            known = KERNEL_ACTIVATIONS
            self.layers.append(
                Layer(
                    weight=arrays[f"{linear}.weight"],
                    weight_t=arrays[f"{linear}.weight"].T,
                    bias=arrays[f"{linear}.bias"],
                    activation=prelu(parameters[slope]) if slope in arrays else known[name],
                    weight_grad=array_grads.get(f"{linear}.weight"),
                    bias_grad=array_grads.get(f"{linear}.bias"),
                    slope=parameters.get(slope),
                    slope_grad=grads.get(slope),
                )
            )
        #: what the last forward pass kept for the backward pass: inputs and z or y of each layer
        self.kept: list[tuple[Array, Array]] = []
        self.ones = np.ones(0, self.layers[0].weight.dtype)

    def forward(self, x: Array, keep: bool = False) -> Array:
        """Map ``x`` [B, num_inputs] to outputs [B, num_outputs]; ``keep`` what backward needs."""
        kept = []
        for layer in self.layers:
            value, _, keeps_input = layer.activation
            inputs = x
            z = x = np.dot(inputs, layer.weight_t)
            np.add(z, layer.bias, out=z)
            if value is not None:
                x = value(z)
            kept.append((inputs, z if keeps_input else x))
        if keep:
            self.kept = kept
        return x

    def _through_activation(self, i: int, grad: Array, parameters: bool) -> Array:
        """Return the gradient in front of the activation of layer ``i``."""
        layer, memory = self.layers[i], self.kept[i][1]
        if parameters and layer.slope_grad is not None:
            _, slope = _aten._prelu_kernel_backward(
                torch.from_numpy(grad), torch.from_numpy(memory), layer.slope
            )
            torch.sum(slope, (0, 1), out=layer.slope_grad[0])
        gradient = layer.activation.gradient
        return grad if gradient is None else gradient(grad, memory)

    def backward(self, grad: Array) -> None:
        """Write the gradient of the parameters, from that of the last forward's outputs."""
        if len(self.ones) != len(grad):
            self.ones = np.ones(len(grad), self.ones.dtype)
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            grad = self._through_activation(i, grad, True)
            np.dot(grad.T, self.kept[i][0], out=layer.weight_grad)
            np.dot(self.ones, grad, out=layer.bias_grad)  # a sum over the batch
            if i:
                grad = np.dot(grad, layer.weight)

    def input_gradient(self, grad: Array, columns: int) -> Array:
        """Return the gradient of the first ``columns`` inputs; the parameters' stay as they are."""
        for i in reversed(range(len(self.layers))):
            grad = self._through_activation(i, grad, False)
            weight = self.layers[i].weight if i else self.layers[0].weight[:, :columns]
            grad = np.dot(grad, weight)
        return grad
