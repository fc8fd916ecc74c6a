"""The kinds of device that torch may see: tests run on each, and skip those that are not there."""

from __future__ import annotations

import pytest
import torch

HERE = {"cpu": True, "cuda": torch.cuda.is_available()}
DEVICES = [
    pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"torch sees no {name} here"))
    for name, there in HERE.items()
]
each_device = pytest.mark.parametrize("device", DEVICES)

# By default convolutions on a GPU round what they multiply to 10 bits.
torch.backends.cudnn.allow_tf32 = False
