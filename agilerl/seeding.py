"""One integer seed, many independent random streams.

Whatever draws in agilerl owns a generator; the global generators of ``random``, ``numpy`` and
``torch`` are neither read nor written.  Streams are told apart by *keys*: the same seed and the
same keys give the same stream in every process, and any other key gives an independent one.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from agilerl.errors import check_int

if TYPE_CHECKING:
    import torch

Generator = np.random.Generator
#: A random stream of either library; whatever draws keeps its own as ``rng``.
Stream: TypeAlias = "np.random.Generator | torch.Generator"


def _sequence(seed: int | None, keys: tuple[int | str, ...]) -> np.random.SeedSequence:
    if seed is not None:
        seed = check_int("seed", seed, minimum=0)
    words = [(1, zlib.crc32(k.encode())) if isinstance(k, str) else (0, int(k)) for k in keys]
    return np.random.SeedSequence(seed, spawn_key=tuple(itertools.chain(*words)))


def generator(seed: int | None = None, *keys: int | str) -> Generator:
    """Return the stream of ``seed`` and ``keys``; with ``seed=None`` a fresh one every time."""
    return np.random.default_rng(_sequence(seed, keys))


def derive(seed: int | None, *keys: int | str) -> int:
    """Return a 31-bit seed made from ``seed`` and ``keys``, for objects that take an integer."""
    return int(_sequence(seed, keys).generate_state(1)[0] >> 1)


def branch(parent: Generator) -> Generator:
    """Return a new stream, drawn from ``parent``: later draws of the two are independent."""
    return np.random.default_rng(parent.integers(2**63, size=4, dtype=np.int64))


def stream_state(rng: Stream) -> str:
    """Return the state of a random stream as text."""
    if isinstance(rng, np.random.Generator):
        return json.dumps(rng.bit_generator.state)
    return base64.b64encode(rng.get_state().numpy().tobytes()).decode()


def load_stream_state(rng: Stream, state: str) -> None:
    """Put a stream where ``stream_state`` saw it; raise ``ValueError`` if the text is malformed."""
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = json.loads(state)
        return
    import torch  # where only NumPy draws, it need not be loaded

    rng.set_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))


@dataclass(frozen=True)
class Streams:
    """The random streams of one episode, or one evaluation, of one agent.

    Attributes:
        seed: of the run.
        number: of the episode or the generation.
        slot: of the agent.
        attempt: how often it was redone.
        round: of an evaluation that is continued with other episodes.
    """

    seed: int
    number: int
    slot: int
    attempt: int = 0
    round: int = 0

    @property
    def _last_keys(self) -> tuple[int, ...]:
        return (self.attempt, self.round) if self.round else (self.attempt,)

    def derive(self, purpose: str) -> int:
        """Return a seed for an object that takes an integer."""
        return derive(self.seed, purpose, self.number, self.slot, *self._last_keys)

    def derive_shared(self, purpose: str) -> int:
        """Return a seed that is the same for all agents."""
        return derive(self.seed, purpose, self.number, *self._last_keys)

    def lend(self, purpose: str, owners: Sequence[Any]) -> AbstractContextManager[None]:
        """Let owners draw from these streams for a while; see ``lent_streams``."""
        keys = self.number, self.slot, *self._last_keys
        return lent_streams(owners, self.seed, purpose, *keys)


@contextmanager
def lent_streams(owners: Sequence[Any], seed: int, *keys: int | str) -> Iterator[None]:
    """Let each owner draw from a stream of ``seed``, ``keys`` and its position in ``owners``.

    Afterwards every owner has its own stream back, where it was.

    Args:
        owners: objects that draw from their attribute ``rng``, a NumPy or a torch generator.
        seed: of the streams lent.
        keys: likewise.
    """
    own = [owner.rng for owner in owners]
    for position, owner in enumerate(owners):
        if isinstance(owner.rng, np.random.Generator):
            owner.rng = generator(seed, *keys, position)
        else:
            lent = type(owner.rng)(owner.rng.device)
            owner.rng = lent.manual_seed(derive(seed, *keys, position))
    try:
        yield
    finally:
        for owner, rng in zip(owners, own, strict=True):
            owner.rng = rng
