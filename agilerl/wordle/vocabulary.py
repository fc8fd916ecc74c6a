"""The words of a game: what may be hidden, and what may be guessed."""

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
from agilerl.wordle.patterns import WORD_LENGTH, Letters, pattern_matrix, to_letters

WORDS_DIRECTORY = Path(__file__).parent / "words"
_SHOWN = 10


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _is_word(word: str) -> bool:
    return len(word) == WORD_LENGTH and word.isascii() and word.isalpha() and word.islower()


def _check_words(where: str, words: Sequence[str]) -> None:
    """Raise ``DatasetError`` that lists bad words, or words that come twice."""
    bad = [repr(word) for word in words if not _is_word(word)]
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
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: expected a text file with one word a line; it can't be read ({error})."
        ) from error
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
        """Pattern code of each guess against each answer ``[G, A]``, computed at first use."""
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
