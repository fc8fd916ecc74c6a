"""Where tensors live."""

from __future__ import annotations

import torch

from agilerl.errors import ConfigError


def check_device(device: str | torch.device | None) -> torch.device:
    """Return ``device`` as a ``torch.device`` (None is the CPU) if this machine has it.

    Raises:
        ConfigError: if the name is malformed or no such device can be reached.
    """
    try:
        chosen = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device: {device!r} is no device; expected 'cpu', 'cuda' or 'cuda:0'."
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device: {str(chosen)!r} was asked for, but torch sees no GPU on this machine;"
            " pass device='cpu', or install a CUDA build of torch."
        )
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device: torch can't reach {str(chosen)!r} on this machine; pass device='cpu'."
        ) from error
    return chosen
