"""Whether numbers are finite, as fast as that can be told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def within(values: np.ndarray[Any, Any], largest: float) -> bool:
    """Return whether no value [...] is NaN, or larger in magnitude than ``largest`` (1 or more)."""
    flat = values.reshape(-1)
    return bool(np.dot(flat, flat) <= largest) or bool((np.abs(values) <= largest).all())


def finite(values: np.ndarray[Any, Any]) -> bool:
    """Return whether no value [...] is NaN or infinite; the sum of squares shows most at once."""
    flat = values.reshape(-1)
    return math.isfinite(np.dot(flat, flat)) or bool(np.isfinite(flat).all())
