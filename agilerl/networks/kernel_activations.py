"""Values and gradients of the activations, on the arrays of the MLP kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

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
