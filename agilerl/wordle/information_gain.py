"""The guess that is expected to tell most about the hidden word."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agilerl.errors import check_int
from agilerl.wordle.games import BoolArray, IntArray
from agilerl.wordle.patterns import N_PATTERNS
from agilerl.wordle.vocabulary import Vocabulary

_BLOCK = 512


class InformationGain:
    """Maximises the entropy of the colours over the possible answers, one turn ahead.

    The entropy of a guess is ``log2 n - sum_p (c_p log2 c_p) / n`` where ``c_p`` of the ``n``
    possible answers give pattern ``p``.  Ties go to a possible answer, then to the earlier word.
    With one or two possible answers the first of them is guessed.

    Results are cached by the set of possible answers.  On word lists longer than ``pool``, only
    the ``pool`` words of the highest gain at the first turn are considered at later turns, and
    the possible answers as well where there are no more than ``pool`` of them: on the full lists
    this is many times faster and costs about 0.1 of mean reward.

    Args:
        vocabulary: The words.
        pool: Number of words to consider besides the possible answers.
        cache_size: Number of positions to remember.
    """

    def __init__(self, vocabulary: Vocabulary, pool: int = 256, cache_size: int = 200_000) -> None:
        self._matrix = vocabulary.matrix
        self._pool = check_int("pool", pool)
        self._cache_size = check_int("cache_size", cache_size, minimum=0)
        self._cache: dict[bytes, int] = {}
        answers = len(vocabulary.answers)
        self._log = np.log2(np.maximum(np.arange(answers + 1), 1))
        everything = np.arange(len(vocabulary.guesses))
        self._opener_order: IntArray = np.argsort(
            self._remaining(self._matrix, np.arange(answers)), kind="stable"
        )
        self._probes = np.sort(self._opener_order[:pool]) if len(everything) > pool else everything
        self._probe_rows = self._matrix[self._probes]

    def openers(self, count: int) -> IntArray:
        """Return the ``count`` guesses of the highest information gain at the first turn."""
        return np.asarray(self._opener_order[:count])

    def best_guesses(self, candidates: BoolArray) -> IntArray:
        """Return the best guess index of each game ``[n]``.

        Args:
            candidates: Possible answers ``[n, A]``, at least one in each row.
        """
        guesses: IntArray = np.argmax(candidates, axis=1)
        undecided = np.flatnonzero(candidates.sum(axis=1) > 2)
        keys = np.packbits(candidates[undecided], axis=1)
        for row, key in zip(undecided, keys, strict=True):
            guesses[row] = self._cached(key.tobytes(), candidates[row])
        return guesses

    def _cached(self, key: bytes, candidates: BoolArray) -> int:
        best = self._cache.get(key)
        if best is None:
            best = self._best(np.flatnonzero(candidates))
            if len(self._cache) < self._cache_size:
                self._cache[key] = best
        return best

    def _best(self, possible: IntArray) -> int:
        """Return the best guess while the answers ``possible`` remain."""
        if len(possible) == self._matrix.shape[1]:
            return int(self._opener_order[0])
        probe_score = self._remaining(self._probe_rows, possible)
        best = int(np.argmin(probe_score))
        score, guess = probe_score[best], int(self._probes[best])
        if len(possible) <= self._pool:
            own_score = self._remaining(self._matrix[possible], possible)
            own = int(np.argmin(own_score))
            if own_score[own] <= score:
                guess = int(possible[own])
        return guess

    def _remaining(
        self, rows: npt.NDArray[np.uint8], possible: IntArray
    ) -> npt.NDArray[np.float64]:
        """Return ``sum_p c_p log2 c_p`` of each row of the pattern matrix: lower is better.

        It is summed as ``log2 c_p`` over the possible answers, which are few, not over patterns.
        """
        scores = np.empty(len(rows))
        cells = (np.arange(_BLOCK) * N_PATTERNS)[:, None]
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK].take(possible, axis=1)
            patterns = (block + cells[: len(block)]).ravel()
            counts = np.bincount(patterns).take(patterns)
            logs = self._log.take(counts).reshape(block.shape)
            scores[start : start + _BLOCK] = logs.sum(axis=1)
        # Sums of the same numbers in another order must tie.
        return scores.round(9)
