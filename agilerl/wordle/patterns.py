"""Colours of Wordle: one code for each (guess, hidden word), for whole word lists at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Letters = npt.NDArray[np.uint8]
"""Words as letters: ``[..., 5]``, 0 for a to 25 for z."""

WORD_LENGTH = 5
MAX_TURNS = 6
GREY, YELLOW, GREEN = 0, 1, 2
ALL_GREEN = 3**WORD_LENGTH - 1
N_PATTERNS = 3**WORD_LENGTH
ILLEGAL = N_PATTERNS
"""The code of a guess that is not in the word list: it has no colours."""

_PLACES = (3 ** np.arange(WORD_LENGTH - 1, -1, -1)).astype(np.uint8)
COLOURS: npt.NDArray[np.uint8] = (
    np.arange(N_PATTERNS, dtype=np.uint16)[:, None] // _PLACES % 3
).astype(np.uint8)
"""``COLOURS[code]`` are the five colours of a pattern code, first letter first: ``[243, 5]``."""

_BLOCK = 64


def to_letters(words: list[str] | tuple[str, ...]) -> Letters:
    """Return words of five letters a-z as an array ``[len(words), 5]``."""
    flat = np.frombuffer("".join(words).encode("ascii"), dtype=np.uint8)
    return (flat - ord("a")).reshape(len(words), WORD_LENGTH)


def to_word(letters: Letters) -> str:
    """Return the word of five letter numbers."""
    return (np.asarray(letters, dtype=np.uint8) + ord("a")).tobytes().decode("ascii")


def _pattern_block(guesses: Letters, hidden: Letters) -> npt.NDArray[np.uint8]:
    """Return the codes ``[len(guesses), len(hidden)]`` of a small block.

    A hidden letter colours one letter of the guess at most: first the one in its place (green),
    then the leftmost that has no colour yet (yellow).
    """
    green = [guesses[:, i, None] == hidden[None, :, i] for i in range(WORD_LENGTH)]
    spent = [mask.copy() for mask in green]
    codes = np.zeros((len(guesses), len(hidden)), dtype=np.uint8)
    for i in range(WORD_LENGTH):
        codes += green[i] * np.uint8(GREEN * _PLACES[i])
        open_letter = ~green[i]
        for j in range(WORD_LENGTH):
            if i == j:
                continue
            yellow = guesses[:, i, None] == hidden[None, :, j]
            yellow &= open_letter
            yellow &= ~spent[j]
            spent[j] |= yellow
            open_letter &= ~yellow
            codes += yellow * np.uint8(YELLOW * _PLACES[i])
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
