"""The compiled parts of learning, where ``pip`` found a C compiler; NumPy serves where it did not.

They are passes of small MLPs (``_mlp.c``), and what else a learn step takes
(``_learning.c``).  The environment variable ``AGILERL_MLP_KERNEL=numpy`` turns them off.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

try:
    from agilerl import _learning as learning
    from agilerl._mlp import Pass
except ImportError:  # no C compiler at the installation, or an x86 processor without AVX2
    AVAILABLE = False
else:
    AVAILABLE = True

__all__ = ["AVAILABLE", "Pass", "as_read", "enabled", "in_use", "learning", "serves"]

Array = np.ndarray[Any, np.dtype[Any]]

#: Whether what is compiled is used.
enabled: bool = os.environ.get("AGILERL_MLP_KERNEL", "1") != "numpy"


def in_use() -> bool:
    """Return whether compiled code is used."""
    return enabled and AVAILABLE


def serves(x: Any) -> bool:
    """Return whether compiled code is used, and for numbers like these: NumPy's of float32."""
    return in_use() and isinstance(x, np.ndarray) and x.dtype == np.float32


def as_read(x: Array, dtype: Any = np.float32) -> Array:
    """Return an array as C reads it; it is copied only where it is another."""
    return x if x.dtype == dtype and x.flags.carray else np.array(x, dtype, order="C")
