"""Many games of Wordle at once, as arrays.

Rules: a word of ``vocabulary.answers`` is hidden; there are six guesses; every wrong guess has
reward -1 and the right one 0, which ends the game, as the sixth guess does.  A guess that is not
in ``vocabulary.guesses`` is illegal: it is a wrong guess (reward -1, one of the six), and it has
no colours, so it tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agilerl.errors import ConfigError
from agilerl.wordle.vocabulary import (
    ALL_GREEN,
    ILLEGAL,
    MAX_TURNS,
    WORD_LENGTH,
    Letters,
    Vocabulary,
    to_word,
)

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Games:
    """``N`` games, finished or running.

    Attributes:
        hidden: Letters of the hidden words ``[N, 5]``.
        letters: The guesses ``[N, 6, 5]``; 0 after the last.
        patterns: Pattern codes ``[N, 6]``, uint8; ``ILLEGAL`` for illegal guesses, 0 after the
            last.
        turns: Number of guesses ``[N]``.
    """

    hidden: Letters
    letters: Letters
    patterns: npt.NDArray[np.uint8]
    turns: IntArray

    def __len__(self) -> int:
        return len(self.turns)

    def select(self, rows: npt.NDArray[np.generic] | slice) -> Games:
        """Return the games of ``rows`` (indices, a mask or a slice)."""
        return Games(self.hidden[rows], self.letters[rows], self.patterns[rows], self.turns[rows])

    @property
    def won(self) -> BoolArray:
        """Whether the hidden word was found ``[N]``."""
        last = self.patterns[np.arange(len(self)), np.maximum(self.turns - 1, 0)]
        return np.asarray((last == ALL_GREEN) & (self.turns > 0))

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """Sum of rewards ``[N]``: minus the number of wrong guesses, 0 at best and -6 at worst."""
        return -(self.turns - self.won).astype(np.float64)

    @property
    def illegal(self) -> IntArray:
        """Number of illegal guesses ``[N]``."""
        return np.asarray((self.patterns == ILLEGAL).sum(axis=1))

    def turns_of(self, row: int) -> list[tuple[str, int]]:
        """Return game ``row`` as (word, pattern code) of each guess."""
        count = int(self.turns[row])
        words = [to_word(letters) for letters in self.letters[row, :count]]
        return list(zip(words, self.patterns[row, :count].tolist(), strict=True))

    def summary(self) -> str:
        """One line: games, win rate, mean reward with its 95 % interval."""
        return (
            f"{len(self)} games: win rate {self.won.mean():.3f}, "
            f"mean reward {self.returns.mean():.3f} +- {half_width(self.returns):.3f}"
        )


def half_width(returns: npt.NDArray[np.float64]) -> float:
    """Return half the width of the 95 % interval of the mean of ``returns`` [N]."""
    return float(1.96 * returns.std(ddof=1) / len(returns) ** 0.5) if len(returns) > 1 else 0.0


def concatenate(parts: list[Games]) -> Games:
    """Return all games of ``parts`` as one value, in order."""
    return Games(
        np.concatenate([part.hidden for part in parts]),
        np.concatenate([part.letters for part in parts]),
        np.concatenate([part.patterns for part in parts]),
        np.concatenate([part.turns for part in parts]),
    )


class Board:
    """The state of ``N`` games in play; ``guess`` moves the running ones on by a turn.

    Args:
        vocabulary: The words.
        hidden: Answer index of the hidden words ``[N]``.

    Attributes:
        turn: Guesses so far.
        running: Rows of the games that are not over ``[n]``.
    """

    def __init__(self, vocabulary: Vocabulary, hidden: IntArray) -> None:
        hidden = np.asarray(hidden)
        size = len(vocabulary.answers)
        if hidden.ndim != 1 or not np.issubdtype(hidden.dtype, np.integer):
            raise ConfigError(
                f"hidden: expected answer indices [N], got shape {hidden.shape} of {hidden.dtype}."
            )
        if hidden.size and not (hidden.min() >= 0 and hidden.max() < size):
            raise ConfigError(f"hidden: expected answer indices in [0, {size}).")
        count = len(hidden)
        self._vocabulary = vocabulary
        self._hidden = hidden
        self.turn = 0
        self.running: IntArray = np.arange(count)
        self.games = Games(
            vocabulary.letters[hidden],
            np.zeros((count, MAX_TURNS, WORD_LENGTH), dtype=np.uint8),
            np.zeros((count, MAX_TURNS), dtype=np.uint8),
            np.zeros(count, dtype=np.int64),
        )

    def guess(self, letters: Letters) -> npt.NDArray[np.uint8]:
        """Play one word in each running game.

        Args:
            letters: ``[n, 5]``, one row for each of ``running``.

        Returns:
            Pattern codes ``[n]``.
        """
        guesses = self._vocabulary.indices(letters)
        legal = guesses >= 0
        hidden = self._hidden[self.running]
        patterns = np.where(legal, self._vocabulary.matrix[guesses, hidden], np.uint8(ILLEGAL))
        games, rows = self.games, self.running
        games.letters[rows, self.turn] = letters
        games.patterns[rows, self.turn] = patterns
        games.turns[rows] += 1
        self.turn += 1
        over = (patterns == ALL_GREEN) | (self.turn == MAX_TURNS)
        self.running = rows[~over]
        return patterns


LetterPolicy = Callable[[Games], npt.NDArray[np.integer]]
"""From the running games (all at the same turn) to the letters of their guesses ``[n, 5]``."""


def play(policy: LetterPolicy, vocabulary: Vocabulary, hidden: IntArray) -> Games:
    """Play one game for each of ``hidden`` and return them.

    Args:
        policy: Called once a turn, with all running games as one batch.
        vocabulary: The words.
        hidden: Answer index of each hidden word ``[N]``.

    Raises:
        ConfigError: The policy's guesses are not integers ``[n, 5]`` in 0 to 25.
    """
    board = Board(vocabulary, hidden)
    while len(board.running):
        letters = np.asarray(policy(board.games.select(board.running)))
        expected = (len(board.running), WORD_LENGTH)
        if letters.shape != expected or not np.issubdtype(letters.dtype, np.integer):
            raise ConfigError(
                f"policy: expected integer letters of shape {expected}, "
                f"got shape {letters.shape} of {letters.dtype}."
            )
        if letters.min() < 0 or letters.max() > 25:
            raise ConfigError(
                f"policy: expected letters 0 (a) to 25 (z), got {letters.min()} to "
                f"{letters.max()}. Let the policy choose among the letter tokens only."
            )
        board.guess(letters.astype(np.uint8))
    return board.games


def every_hidden_word(vocabulary: Vocabulary, games: int, rng: np.random.Generator) -> IntArray:
    """Return ``games`` answer indices: each answer as often as any other, the rest drawn."""
    size = len(vocabulary.answers)
    rest = rng.choice(size, size=games % size, replace=False)
    return np.concatenate([np.tile(np.arange(size), games // size), rest])
