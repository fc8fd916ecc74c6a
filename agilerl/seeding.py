"""One integer seed, many independent random streams.

Whatever draws in agilerl owns a generator; the global generators of ``random``, ``numpy`` and
``torch`` are neither read nor written.  Streams are told apart by *keys*: the same seed and the
same keys give the same stream in every process, and any other key gives an independent one.
"""

from __future__ import annotations

import zlib

import numpy as np

from agilerl.errors import check_int

Generator = np.random.Generator


def _sequence(seed: int | None, keys: tuple[int | str, ...]) -> np.random.SeedSequence:
    if seed is not None:
        seed = check_int("seed", seed, minimum=0)
    words = tuple(zlib.crc32(k.encode()) if isinstance(k, str) else int(k) for k in keys)
    return np.random.SeedSequence(seed, spawn_key=words)


def generator(seed: int | None = None, *keys: int | str) -> Generator:
    """Return the stream of ``seed`` and ``keys``; with ``seed=None`` a fresh one every time."""
    return np.random.default_rng(_sequence(seed, keys))


def derive(seed: int | None, *keys: int | str) -> int:
    """Return a 31-bit seed made from ``seed`` and ``keys``, for objects that take an integer."""
    return int(_sequence(seed, keys).generate_state(1)[0] >> 1)


def branch(parent: Generator) -> Generator:
    """Return a new stream, drawn from ``parent``: later draws of the two are independent."""
    return np.random.default_rng(parent.integers(2**63, size=4, dtype=np.int64))
