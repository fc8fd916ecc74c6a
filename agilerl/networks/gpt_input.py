"""What a GPT may be given: tokens, masks, positions and caches."""

from __future__ import annotations

import torch

from agilerl.errors import ConfigError, check_int
from agilerl.networks.base import Params
from agilerl.networks.gpt_blocks import GPTWeights, gpt_layers
from agilerl.networks.gpt_cache import KVCache
from agilerl.networks.gpt_spec import GPTSpec

Tensor = torch.Tensor


def check_ids(ids: Tensor, weights: GPTWeights) -> Tensor:
    """Return tokens as int64 [B, T] on the network's device.

    Raises:
        ConfigError: if they are no integers, not [B, T], or outside the vocabulary.
    """
    ids = torch.as_tensor(ids, device=weights.wte.device)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ConfigError(f"ids: expected integers, got {ids.dtype}; token ids are whole numbers.")
    if ids.dim() != 2 or not ids.numel():
        raise ConfigError(
            f"ids: expected [B, T] with at least one token, got the shape {tuple(ids.shape)};"
            " add a batch dimension with ids[None], and a begin token to an empty prompt."
        )
    low, high = (int(value) for value in ids.aminmax())
    size = weights.spec.vocab_size
    if low < 0 or high >= size:
        raise ConfigError(
            f"ids: expected tokens in [0, {size}), got {low if low < 0 else high}; was the text"
            " encoded with another tokenizer?"
        )
    return ids.long()


def check_length(weights: GPTWeights, past: int, new: int, what: str) -> None:
    """Raise ``ConfigError`` if ``past + new`` tokens are more than the network can place."""
    limit = weights.spec.block_size
    if past + new > limit:
        raise ConfigError(
            f"{what}: {past + new} tokens (padding included) do not fit block_size={limit}; cut"
            " the prompt, ask for fewer tokens, or build the network with a larger block_size."
        )


def check_mask(mask: Tensor | None, ids: Tensor) -> Tensor | None:
    """Return the mask as booleans [B, T]; None where every token is real.

    Raises:
        ConfigError: if its shape is not that of ``ids``, or a value is neither 0 nor 1.
    """
    if mask is None:
        return None
    mask = torch.as_tensor(mask, device=ids.device)
    if mask.shape != ids.shape:
        raise ConfigError(
            f"attention_mask: expected the shape of ids {tuple(ids.shape)} (with a cache, too: it"
            f" knows the tokens before), got {tuple(mask.shape)}."
        )
    real = mask == 1
    if not bool((real | (mask == 0)).all()):
        raise ConfigError("attention_mask: expected 1 for real tokens and 0 for padding only.")
    return None if bool(real.all()) else real


def check_positions(
    position_ids: Tensor | None, ids: Tensor, time: int, limit: int
) -> Tensor | None:
    """Return positions as int64 [1 or B, time]; None where none are given.

    Raises:
        ConfigError: if they are of another shape, no integers or outside [0, limit).
    """
    if position_ids is None:
        return None
    positions = torch.as_tensor(position_ids, device=ids.device)
    if positions.dim() == 1:
        positions = positions[None]
    if positions.shape not in ((1, time), (len(ids), time)) or positions.is_floating_point():
        raise ConfigError(
            f"position_ids: expected integers of the shape ({time},) or ({len(ids)}, {time}), got"
            f" {positions.dtype} of the shape {tuple(positions.shape)}."
        )
    if int(positions.min()) < 0 or int(positions.max()) >= limit:
        raise ConfigError(
            f"position_ids: expected values in [0, block_size={limit}), got"
            f" {int(positions.min())} to {int(positions.max())}."
        )
    return positions.long()


def check_cache(cache: KVCache, weights: GPTWeights, batch: int, time: int) -> None:
    """Raise ``ConfigError`` unless the cache is this network's and holds ``time`` more tokens."""
    spec, kv = weights.spec, cache.kv
    expected = (spec.n_layer, 2, batch, spec.n_head, cache.capacity, spec.head_dim)
    if tuple(kv.shape) != expected or kv.device != weights.wte.device:
        raise ConfigError(
            f"cache: expected one of the shape {expected} on {weights.wte.device}, got"
            f" {tuple(kv.shape)} on {kv.device}; make it with new_cache({batch}), after any edit."
        )
    if cache.length + time > cache.capacity:
        raise ConfigError(
            f"cache: {cache.length} + {time} tokens do not fit its capacity {cache.capacity};"
            " make a larger one with new_cache(batch_size, capacity)."
        )
    if torch.is_grad_enabled() and weights.wte.requires_grad:
        raise ConfigError("cache: it keeps no gradients; call the network under torch.no_grad().")


def new_cache(weights: GPTWeights, batch_size: int, capacity: int | None) -> KVCache:
    """Return an empty cache; ``capacity`` None is the network's ``block_size``."""
    limit = weights.spec.block_size
    room = limit if capacity is None else check_int("capacity", capacity)
    check_length(weights, 0, room, "capacity")
    return KVCache(weights, check_int("batch_size", batch_size), room)


def check_weights(spec: GPTSpec, weights: Params | None) -> GPTSpec:
    """Return ``spec`` if ``weights`` are None or just its parameters; else ``ConfigError``."""
    if weights is None:
        return spec
    layers = gpt_layers(spec).items()
    expected = {f"{n}.{k}": tuple(p.shape) for n, m in layers for k, p in m.named_parameters()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'nothing')}, got {given.get(name, 'nothing')}"
        for name in sorted(expected.keys() | given.keys())
        if expected.get(name) != given.get(name)
    ]
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise ConfigError(
            "weights: they are not of the network's shape; " + "; ".join(wrong[:5]) + more + "."
        )
    return spec
