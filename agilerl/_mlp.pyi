from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]

class Pass:
    def __init__(
        self,
        sizes: tuple[int, ...],
        activations: tuple[int, ...],
        parameters: Array,
        gradients: Array | None,
    ) -> None: ...
    def forward(self, x: Array, out: Array, keep: bool) -> None: ...
    def backward(self, grad: Array) -> None: ...
    def input_gradient(self, grad: Array, out: Array) -> None: ...
