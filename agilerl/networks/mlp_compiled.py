"""The passes of ``_mlp.c``, where they were compiled, for MLPs of float32 and ReLU."""

from __future__ import annotations

from typing import Any

import numpy as np

from agilerl import compiled
from agilerl.networks.evolvable_mlp import MLPSpec

Array = np.ndarray[Any, np.dtype[Any]]

#: The numbers by which ``_mlp.c`` knows the activations of hidden layers, and of the output.
HIDDEN: dict[str | None, int] = {None: 0, "linear": 0, "relu": 1}
OUTPUT: dict[str | None, int] = {**HIDDEN, "tanh": 2}
#: Larger networks are as fast in NumPy, which can use several threads.
MOST_PARAMETERS = 2**18


def serves(spec: MLPSpec, parameters: Array) -> bool:
    """Return whether compiled passes are to be used, and know networks of this kind."""
    return (
        compiled.serves(parameters)
        and parameters.size <= MOST_PARAMETERS
        and spec.activation in HIDDEN
        and spec.output_activation in OUTPUT
    )


class CompiledPass:
    """Forward and backward pass of one MLP, each in one call.

    Args:
        spec: of the network.
        parameters: its parameters in one vector, layer by layer.
        gradients: where their gradients go; None where it is not trained.
    """

    def __init__(self, spec: MLPSpec, parameters: Array, gradients: Array | None) -> None:
        hidden = spec.hidden_size
        self.sizes = (spec.num_inputs, *hidden, spec.num_outputs)
        after = (*[HIDDEN[spec.activation]] * len(hidden), OUTPUT[spec.output_activation])
        self._pass = compiled.Pass(self.sizes, after, parameters, gradients)

    def forward(self, x: Array, keep: bool = False) -> Array:
        """Map ``x`` [B, num_inputs] to outputs [B, num_outputs]; ``keep`` what backward needs."""
        out = np.empty((len(x), self.sizes[-1]), np.float32)
        self._pass.forward(compiled.as_read(x), out, keep)
        return out

    def backward(self, grad: Array) -> None:
        """Write the gradient of the parameters, from that of the last forward's outputs."""
        self._pass.backward(compiled.as_read(grad))

    def input_gradient(self, grad: Array, columns: int) -> Array:
        """Return the gradient of the first ``columns`` inputs; the parameters' stay as they are."""
        out = np.empty((len(grad), columns), np.float32)
        self._pass.input_gradient(compiled.as_read(grad), out)
        return out
