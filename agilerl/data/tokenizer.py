"""What a tokenizer is, and a plain one for your own language environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from agilerl.errors import ConfigError, DatasetError


@runtime_checkable
class Tokenizer(Protocol):
    """Turns the text of an environment into token ids and back.

    ``decode(encode(text)) == text`` holds for every text of the environment.  ``encode`` adds
    neither the begin nor the end token, and ``decode`` leaves special tokens out.

    Attributes:
        name: Tells data and models of one format from those of another.
        vocab_size: Number of tokens; ids are 0 to ``vocab_size - 1``.
        pad_id: Fills the rows of a batch up to a common length.
        bos_id: Begins every game.
        eos_id: Ends every game that is over.
        action_tokens: ``[vocab_size]``, True for the tokens an agent may choose.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def vocab_size(self) -> int: ...  # noqa: D102

    @property
    def pad_id(self) -> int: ...  # noqa: D102

    @property
    def bos_id(self) -> int: ...  # noqa: D102

    @property
    def eos_id(self) -> int: ...  # noqa: D102

    @property
    def action_tokens(self) -> npt.NDArray[np.bool_]: ...  # noqa: D102

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; ``DatasetError`` if it has what no token stands for."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; ``DatasetError`` for ids outside the vocabulary."""
        ...


def check_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """Return ``ids`` as a list of ints; raise ``DatasetError`` for one outside the vocabulary."""
    numbers = [int(i) for i in ids]
    for position, i in enumerate(numbers):
        if not 0 <= i < vocab_size:
            raise DatasetError(
                f"tokens[{position}]: expected an id in [0, {vocab_size}), got {i}. "
                "Was it made with another tokenizer?"
            )
    return numbers


class CharTokenizer:
    """One token for each character.

    Ids: 0 pad, 1 begin, 2 end, then the characters in the order of ``alphabet``.

    Args:
        alphabet: Every character that the environment or the agent may write.
        action_alphabet: The characters an agent may write; all of them if not given.
    """

    pad_id, bos_id, eos_id = 0, 1, 2
    _SPECIAL = 3

    def __init__(self, alphabet: str, action_alphabet: str | None = None) -> None:
        if not alphabet or len(set(alphabet)) != len(alphabet):
            raise ConfigError(
                f"alphabet: expected different characters, at least one, got {alphabet!r}."
            )
        chosen = alphabet if action_alphabet is None else action_alphabet
        unknown = sorted(set(chosen) - set(alphabet))
        if unknown or not chosen:
            raise ConfigError(
                f"action_alphabet: expected characters of {alphabet!r}, got {chosen!r}."
            )
        self._characters: Sequence[str] = alphabet
        self._ids = {c: i + self._SPECIAL for i, c in enumerate(alphabet)}
        self.name = f"char:{alphabet}"
        self.vocab_size = len(alphabet) + self._SPECIAL
        self.action_tokens = np.zeros(self.vocab_size, dtype=np.bool_)
        self.action_tokens[[self._ids[c] for c in chosen]] = True

    def encode(self, text: str) -> list[int]:
        """Return one id for each character; ``DatasetError`` for one not in the alphabet."""
        unknown = sorted(set(text) - set(self._ids))
        if unknown:
            raise DatasetError(
                f"text: expected characters of {''.join(self._characters)!r}, "
                f"got {''.join(unknown)!r} in {text[:60]!r}."
            )
        return [self._ids[c] for c in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids`` without special tokens."""
        known = check_ids(ids, self.vocab_size)
        return "".join(self._characters[i - self._SPECIAL] for i in known if i >= self._SPECIAL)
