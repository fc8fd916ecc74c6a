"""The words of a game, as text and as letters, and the colours of each guess.

A *pattern* is the five colours of a guess against a hidden word, as one number.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agilerl.errors import ConfigError, DatasetError, check_int

Letters = npt.NDArray[np.uint8]
"""Words as letters: ``[..., 5]``, 0 for a to 25 for z."""

WORD_LENGTH = 5
MAX_TURNS = 6
GREY, YELLOW, GREEN = 0, 1, 2
ALL_GREEN = 3**WORD_LENGTH - 1
N_PATTERNS = 3**WORD_LENGTH
ILLEGAL = N_PATTERNS
"""The code of a guess that is not in the word list: it has no colours."""

_POWERS = (3 ** np.arange(WORD_LENGTH - 1, -1, -1)).astype(np.uint8)
COLOURS: npt.NDArray[np.uint8] = (
    np.arange(N_PATTERNS, dtype=np.uint16)[:, None] // _POWERS % 3
).astype(np.uint8)
"""``COLOURS[code]`` are the five colours of a pattern code, first letter first: ``[243, 5]``."""

_BLOCK = 64  # guesses whose patterns are computed at once

WORDS_DIRECTORY = Path(__file__).parent / "words"
#: Longest word list that is read, in characters: 10 million words.
MAX_CHARACTERS = 2**26
#: Most memory of a pattern matrix, in bytes; the full lists take 24 MB.
MAX_MATRIX = 2**32
_SHOWN = 10  # words that a message lists, and the letters of each that it shows


def to_letters(words: list[str] | tuple[str, ...]) -> Letters:
    """Return words of five letters a-z as an array ``[len(words), 5]``."""
    flat = np.frombuffer("".join(words).encode("ascii"), dtype=np.uint8)
    return (flat - ord("a")).reshape(len(words), WORD_LENGTH)


def to_word(letters: Letters) -> str:
    """Return the word of five letter numbers."""
    return (np.asarray(letters, dtype=np.uint8) + ord("a")).tobytes().decode("ascii")


def _pattern_block(guesses: Letters, hidden: Letters) -> npt.NDArray[np.uint8]:
    """Return the codes ``[len(guesses), len(hidden)]`` of a small block.

    A hidden letter colours one letter of the guess at most: first the one at its position (green),
    then the leftmost that has no colour yet (yellow).
    """
    green = [guesses[:, i, None] == hidden[None, :, i] for i in range(WORD_LENGTH)]
    spent = [mask.copy() for mask in green]
    codes = np.zeros((len(guesses), len(hidden)), dtype=np.uint8)
    for i in range(WORD_LENGTH):
        codes += green[i] * np.uint8(GREEN * _POWERS[i])
        open_letter = ~green[i]
        for j in range(WORD_LENGTH):
            if i == j:
                continue
            yellow = guesses[:, i, None] == hidden[None, :, j]
            yellow &= open_letter
            yellow &= ~spent[j]
            spent[j] |= yellow
            open_letter &= ~yellow
            codes += yellow * np.uint8(YELLOW * _POWERS[i])
    return codes


def pattern_matrix(guesses: Letters, hidden: Letters) -> npt.NDArray[np.uint8]:
    """Return the pattern code of every guess against every hidden word.

    Args:
        guesses: Letters ``[G, 5]``.
        hidden: Letters ``[H, 5]``.

    Returns:
        ``[G, H]``, uint8: the five colours as the digits of a number in base 3, first letter
        first; 0 is all grey, 242 all green.
    """
    matrix = np.empty((len(guesses), len(hidden)), dtype=np.uint8)
    for start in range(0, len(guesses), _BLOCK):
        block = slice(start, start + _BLOCK)
        matrix[block] = _pattern_block(guesses[block], hidden)
    return matrix


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _is_word(word: str) -> bool:
    return len(word) == WORD_LENGTH and word.isascii() and word.isalpha() and word.islower()


def _check_words(where: str, words: Sequence[str]) -> None:
    """Raise ``DatasetError`` that lists bad words, or words that come twice."""
    bad = [repr(word[:_SHOWN]) for word in words if not _is_word(word)]
    if bad:
        raise DatasetError(
            f"{where}: expected words of {WORD_LENGTH} letters a-z, got {_listed(bad)}. "
            "Remove or correct them."
        )
    twice = [repr(word) for word, count in Counter(words).items() if count > 1]
    if twice:
        raise DatasetError(
            f"{where}: {_listed(twice)} come more than once. Keep one line for each word."
        )
    if not words:
        raise DatasetError(f"{where}: expected at least one word, found none.")


def read_words(path: str | Path) -> list[str]:
    """Return the words of a text file, one a line; ``#`` starts a comment, case is ignored.

    Raises:
        DatasetError: The file can't be read, is empty, or has words that are not five letters
            or come twice; the message lists them.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: expected a text file with one word a line; it can't be read ({error})."
        ) from error
    if len(text) > MAX_CHARACTERS:
        raise DatasetError(
            f"{path}: expected at most {MAX_CHARACTERS:,} characters, it has more; is it a list of"
            " words?"
        )
    lines = (line.partition("#")[0].strip().lower() for line in text.splitlines())
    words = [line for line in lines if line]
    _check_words(str(path), words)
    return words


@dataclass(frozen=True)
class Vocabulary:
    """Hidden words and guesses.

    Attributes:
        answers: Words that may be hidden, ``A`` of them.
        guesses: Words that may be guessed, ``G`` of them.  The answers come first and in their
            order, so answer ``i`` is guess ``i``.
        name: Says where the words are from.
    """

    answers: tuple[str, ...]
    guesses: tuple[str, ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        _check_words(f"{self.name} (answers)", self.answers)
        _check_words(f"{self.name} (guesses)", self.guesses)
        if self.guesses[: len(self.answers)] != self.answers:
            raise ConfigError(
                "Vocabulary: guesses must begin with the answers, in their order. "
                "Vocabulary.of(answers, extra_guesses) puts them so."
            )

    @classmethod
    def of(
        cls, answers: Sequence[str], extra_guesses: Sequence[str] = (), name: str = "custom"
    ) -> Vocabulary:
        """Return the vocabulary of ``answers``, with words that may be guessed but not hidden."""
        known = set(answers)
        extra = tuple(word for word in extra_guesses if word not in known)
        return cls(tuple(answers), tuple(answers) + extra, name)

    @classmethod
    def full(cls) -> Vocabulary:
        """Return the lists that come with agilerl: about 2,200 answers and 11,000 guesses."""
        return cls.from_file(
            WORDS_DIRECTORY / "answers.txt", WORDS_DIRECTORY / "guesses.txt", name="full"
        )

    @classmethod
    def small(cls, size: int = 100) -> Vocabulary:
        """Return ``size`` of the answers, always the same ones; only they may be guessed."""
        return cls.full().subset(size)

    @classmethod
    def from_file(
        cls, answers: str | Path, guesses: str | Path | None = None, name: str | None = None
    ) -> Vocabulary:
        """Return your own word list.

        Args:
            answers: Text file with one word a line: the words that may be hidden.
            guesses: Text file of further words that may be guessed; it may repeat the answers.
            name: Defaults to the file's name.

        Raises:
            DatasetError: See ``read_words``.
        """
        extra = () if guesses is None else read_words(guesses)
        return cls.of(read_words(answers), extra, name or Path(answers).stem)

    def subset(self, size: int) -> Vocabulary:
        """Return ``size`` of the answers as a vocabulary of their own.

        The choice depends on the words alone (it goes by a hash), and smaller subsets are part
        of larger ones.
        """
        size = check_int("words", size)
        if size > len(self.answers):
            raise ConfigError(
                f"words: expected at most {len(self.answers)} (the answers of {self.name!r}), "
                f"got {size}."
            )
        by_hash = sorted(self.answers, key=lambda w: hashlib.sha256(w.encode()).digest())
        return Vocabulary.of(sorted(by_hash[:size]), name=f"{self.name}-{size}")

    @functools.cached_property
    def digest(self) -> str:
        """A fingerprint of the two lists, to tell whether data or a model belong to them."""
        text = " ".join(self.answers) + "|" + " ".join(self.guesses)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @functools.cached_property
    def letters(self) -> Letters:
        """The guesses as letter numbers ``[G, 5]``; the first ``A`` rows are the answers."""
        return to_letters(self.guesses)

    @functools.cached_property
    def matrix(self) -> npt.NDArray[np.uint8]:
        """Pattern code of each guess against each answer ``[G, A]``, computed at first use.

        Raises:
            ConfigError: It would take more than ``MAX_MATRIX`` bytes.
        """
        size = len(self.guesses) * len(self.answers)
        if size > MAX_MATRIX:
            raise ConfigError(
                f"vocabulary: the colours of {len(self.guesses):,} guesses against"
                f" {len(self.answers):,} answers would take {size / 2**30:.0f} GiB, more than"
                f" {MAX_MATRIX / 2**30:.0f} GiB; use fewer words."
            )
        return pattern_matrix(self.letters, self.letters[: len(self.answers)])

    @functools.cached_property
    def _by_code(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        codes = _word_codes(self.letters)
        order = np.argsort(codes)
        return codes[order], order

    def indices(self, letters: Letters) -> npt.NDArray[np.int64]:
        """Return the guess index of words ``[N, 5]``; -1 for words that may not be guessed."""
        codes, order = self._by_code
        wanted = _word_codes(letters)
        at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        return np.where(codes[at] == wanted, order[at], -1)

    def index(self, word: str) -> int:
        """Return the guess index of a word; -1 if it may not be guessed."""
        return int(self.indices(to_letters((word,)))[0]) if _is_word(word) else -1


def _word_codes(letters: Letters) -> npt.NDArray[np.int64]:
    return letters.astype(np.int64) @ (26 ** np.arange(WORD_LENGTH, dtype=np.int64))
