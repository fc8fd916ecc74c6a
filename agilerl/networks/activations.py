"""The activations that networks know by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "lrelu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "linear": nn.Identity,
}

#: The activations that a mutation may choose.
MUTABLE = ("relu", "elu", "gelu")


@dataclass(frozen=True)
class Linearised:
    """How a layer of this activation f is made to pass its input x on.

    With ``f(gain * x + shift) = slope * gain * x + offset`` over the values that x takes, the
    layer after it recovers x as ``(f(...) - offset) / (slope * gain)``.
    """

    gain: float = 1.0
    shift: float = 0.0
    slope: float = 1.0
    offset: float = 0.0


#: x is itself an output of the same activation.  ReLU and linear pass it on exactly.  Shifted
#: into their linear part, ELU, leaky ReLU, PReLU (x > -1), GELU (x > -0.17) and softplus (x > 0) do
#: so to the rounding of float32.  Those that saturate are linear near zero only: x in (-1, 1) is
#: bent by about 0.3 % (tanh), 1 % (sigmoid, x in (0, 1)) and 2 % (softsign).  In a stack of such
#: layers the next ones see values that are small or shifted already, so errors hardly add up: five
#: change the outputs by at most 5e-6 of their size (ELU, leaky ReLU, PReLU), 1e-5 (GELU), 3e-5
#: (softplus), 0.5 % (tanh, sigmoid) and 1 % (softsign).
PASS_ON: dict[str, Linearised] = {
    "relu": Linearised(),
    "linear": Linearised(),
    "elu": Linearised(shift=1.0, offset=1.0),
    "gelu": Linearised(shift=6.0, offset=6.0),
    "softplus": Linearised(shift=16.0, offset=16.0),
    "lrelu": Linearised(shift=1.0, offset=1.0),
    "prelu": Linearised(shift=1.0, offset=1.0),
    "tanh": Linearised(gain=0.1),
    "sigmoid": Linearised(shift=-0.5, slope=0.25, offset=0.375),
    "softsign": Linearised(gain=0.02),
}
