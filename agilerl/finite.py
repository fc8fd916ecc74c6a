"""Whether numbers are finite, as fast as that can be told."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from agilerl import compiled

Array = np.ndarray[Any, np.dtype[Any]]

LARGEST = sys.float_info.max


def within(values: Array, largest: float) -> bool:
    """Return whether no value [...] is NaN, or larger in magnitude than ``largest``."""
    if _read(values):
        return compiled.learning.within(compiled.as_read(values, values.dtype), largest)
    return bool((np.abs(values) <= largest).all())


def finite(values: Array) -> bool:
    """Return whether no value [...] is NaN or infinite."""
    return within(values, LARGEST) if _read(values) else bool(np.isfinite(values).all())


def _read(values: Array) -> bool:
    return compiled.in_use() and values.dtype in (np.float32, np.float64)
