"""The shape of a GPT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from agilerl.errors import ConfigError, check_choice, check_float, check_int, check_keys

#: Above this many elements torch's own tanh-GELU, which has no vector code on many CPUs, is slower
#: than the four operations below that are the same function.
_FEW = 4096
_TWICE_ROOT = 2 * (2 / torch.pi) ** 0.5


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """Return GPT-2's GELU, ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))``."""
    if x.numel() < _FEW or torch.is_grad_enabled() or x.device.type != "cpu":
        return F.gelu(x, approximate="tanh")
    # (1 + tanh(u)) / 2 == sigmoid(2 u)
    inner = torch.square(x).mul_(_TWICE_ROOT * 0.044715).add_(_TWICE_ROOT)
    return inner.mul_(x).sigmoid_().mul_(x)


def identity(x: torch.Tensor) -> torch.Tensor:
    """Return ``x``."""
    return x


#: ``"gelu"`` is GPT-2's, by tanh; ``"gelu_exact"`` is the one by the error function.
GPT_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": gelu_tanh,
    "gelu_exact": F.gelu,
    "relu": F.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "lrelu": F.leaky_relu,
    "linear": identity,
}


@dataclass(frozen=True)
class GPTSpec:
    """The shape of a GPT; fields as the arguments of ``EvolvableGPT``."""

    n_layer: int
    vocab_size: int
    n_embd: int
    n_head: int
    dim_feedfwd: int
    block_size: int
    dropout: float
    activation: str
    layer_norm_eps: float
    min_layers: int
    max_layers: int
    bias: bool
    head_dim: int
    min_heads: int = 1
    max_heads: int = 32
    min_feedfwd: int = 32
    max_feedfwd: int = 8192

    @property
    def inner(self) -> int:
        """Width of the queries, of the keys and of the values, all heads together."""
        return self.n_head * self.head_dim


def check_head_dim(n_embd: int, n_head: int, head_dim: int | None) -> int:
    """Return the width of one head: as given, else ``n_embd / n_head``."""
    if head_dim is not None:
        return check_int("head_dim", head_dim)
    if check_int("n_embd", n_embd) % check_int("n_head", n_head):
        raise ConfigError(
            f"n_head: {n_head} heads do not divide n_embd={n_embd}; choose numbers that do, or"
            " give the width of a head as head_dim."
        )
    return n_embd // n_head


def check_limits(limits: Mapping[str, int]) -> Mapping[str, int]:
    """Return further limits; raise ``ConfigError`` on a name that is none of theirs."""
    check_keys("EvolvableGPT", limits, ("min_heads", "max_heads", "min_feedfwd", "max_feedfwd"))
    return limits


def check_gpt(spec: GPTSpec) -> GPTSpec:
    """Return a checked spec, its limits widened to include its own sizes.

    Raises:
        ConfigError: on sizes that are no positive integers, an activation that is not known, or
            a minimum above its maximum.
    """
    sizes = ("n_layer", "vocab_size", "n_embd", "n_head", "dim_feedfwd", "block_size", "head_dim")
    checked: dict[str, Any] = {name: check_int(name, getattr(spec, name)) for name in sizes}
    limits: dict[str, Any] = {}
    for name, size in (("layers", "n_layer"), ("heads", "n_head"), ("feedfwd", "dim_feedfwd")):
        low = check_int(f"min_{name}", getattr(spec, f"min_{name}"))
        high = check_int(f"max_{name}", getattr(spec, f"max_{name}"))
        if low > high:
            raise ConfigError(f"min_{name}: {low} is above max_{name}={high}; swap them.")
        limits[f"min_{name}"] = min(low, checked[size])
        limits[f"max_{name}"] = max(high, checked[size])
    check_choice("activation", spec.activation, GPT_ACTIVATIONS)
    dropout = check_float("dropout", spec.dropout, 0.0, 1.0)
    if dropout == 1.0:
        raise ConfigError("dropout: 1.0 would drop everything; expected a number in [0, 1).")
    return replace(
        spec,
        **checked,
        **limits,
        dropout=dropout,
        layer_norm_eps=check_float("layer_norm_eps", spec.layer_norm_eps, 0.0, 1.0),
        bias=bool(spec.bias),
    )
