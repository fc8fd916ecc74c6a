"""From the README's ``NET_CONFIG`` to a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from agilerl.errors import ConfigError, check_choice, check_keys
from agilerl.networks.base import EvolvableNetwork
from agilerl.networks.evolvable_cnn import CNNSpec, EvolvableCNN
from agilerl.networks.evolvable_mlp import EvolvableMLP, MLPSpec

_HEAD = ("arch", "h_size", "activation", "layer_norm", "output_vanish")
_IMAGE = ("c_size", "k_size", "s_size", "normalize")
#: The keys that a net_config may have, by its ``arch``.
NET_CONFIG_KEYS: dict[str, tuple[str, ...]] = {
    "mlp": (*_HEAD, *MLPSpec.limit_names()),
    "cnn": (*_HEAD, *_IMAGE, *CNNSpec.limit_names()),
}


def check_net_config(net_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``net_config`` with lists for sequences, its keys checked.

    Raises:
        ConfigError: on an unknown ``arch`` or key.
    """
    if not isinstance(net_config, Mapping):
        raise ConfigError(
            f"net_config: expected a dict like {{'arch': 'mlp'}}, got {net_config!r}."
        )
    arch = check_choice("net_config['arch']", net_config.get("arch", "mlp"), NET_CONFIG_KEYS)
    check_keys(f"net_config of arch {arch!r}", net_config, NET_CONFIG_KEYS[arch])
    plain = {k: list(v) if isinstance(v, list | tuple) else v for k, v in net_config.items()}
    return {**plain, "arch": arch}


def build_network(
    net_config: Mapping[str, Any],
    input_shape: tuple[int, ...],
    num_outputs: int,
    *,
    extra_inputs: int = 0,
    output_activation: str | None = None,
    device: str | torch.device = "cpu",
    seed: int | None = None,
) -> EvolvableNetwork:
    """Return the network that ``net_config`` describes.

    Args:
        net_config: with the keys of ``NET_CONFIG_KEYS``; a missing size takes its default.
        input_shape: of one observation, channels first.  An MLP flattens it.
        num_outputs: width of the output.
        extra_inputs: width of a vector that joins the observation (a critic's action).
        output_activation: None is linear, as Q values need.
        device: where the parameters live.
        seed: of the initial weights.
    """
    config = check_net_config(net_config)
    arch = config.pop("arch")
    hidden = config.pop("h_size", [64, 64] if arch == "mlp" else [128])
    common: dict[str, Any] = {
        "output_activation": output_activation,
        "device": device,
        "seed": seed,
    }
    if arch == "mlp":
        inputs = extra_inputs + math.prod(input_shape)
        return EvolvableMLP(inputs, num_outputs, hidden, **common, **config)
    return EvolvableCNN(
        input_shape,
        config.pop("c_size", [32, 32]),
        config.pop("k_size", [8, 4]),
        config.pop("s_size", [4, 2]),
        hidden,
        num_outputs,
        extra_inputs=extra_inputs,
        **common,
        **config,
    )
