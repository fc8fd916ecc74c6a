"""Policies that know the rules: they play thousands of games at once.

A policy sees a ``Position``: which answers are still possible in each of ``n`` games.  It
returns one guess index for each game.  ``make_policy`` builds one from a text such as
``"information-gain"`` or ``"information-gain:0.6,random:0.4"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agilerl.errors import ConfigError, check_choice, check_float, check_int
from agilerl.seeding import derive, generator
from agilerl.wordle.games import Board, BoolArray, Games, IntArray, concatenate
from agilerl.wordle.vocabulary import ILLEGAL, N_PATTERNS, Vocabulary

_CHUNK = 4096  # games that are played at once
_BLOCK = 512  # guesses whose information gain is computed at once


@dataclass(frozen=True)
class Position:
    """What a player knows in ``n`` games that are all at the same turn.

    Attributes:
        turn: Guesses so far, 0 to 5.
        candidates: Answers that agree with all colours so far ``[n, A]``.
    """

    turn: int
    candidates: BoolArray

    def select(self, rows: IntArray) -> Position:
        """Return the games of ``rows``."""
        return Position(self.turn, self.candidates[rows])


class Policy(Protocol):
    """Chooses guesses."""

    def choose(self, position: Position) -> IntArray:
        """Return a guess index for each game ``[n]``."""
        ...


def nth_true(mask: BoolArray, n: IntArray) -> IntArray:
    """Return the column of the ``n[i]``-th True (from 0) of each row of ``mask``."""
    counts = mask.sum(axis=1)
    columns: IntArray = np.nonzero(mask)[1]
    return np.asarray(columns[np.cumsum(counts) - counts + n])


class RandomPolicy:
    """Any word that may be guessed, whatever is known."""

    def __init__(self, vocabulary: Vocabulary, seed: int | None = None) -> None:
        self._size = len(vocabulary.guesses)
        self._rng = generator(seed, "random policy")

    def choose(self, position: Position) -> IntArray:
        """Return a guess index for each game ``[n]``."""
        return self._rng.integers(self._size, size=len(position.candidates))


class ConsistentPolicy:
    """A random word among the answers that are still possible."""

    def __init__(self, vocabulary: Vocabulary, seed: int | None = None) -> None:
        self._rng = generator(seed, "consistent policy")

    def choose(self, position: Position) -> IntArray:
        """Return a guess index for each game ``[n]``."""
        counts = position.candidates.sum(axis=1)
        return nth_true(position.candidates, self._rng.integers(counts))


class WrongPolicy:
    """A word that can't be the hidden one; any word if there is none such."""

    def __init__(self, vocabulary: Vocabulary, seed: int | None = None) -> None:
        self._answers = len(vocabulary.answers)
        self._guesses = len(vocabulary.guesses)
        self._rng = generator(seed, "wrong policy")

    def choose(self, position: Position) -> IntArray:
        """Return a guess index for each game ``[n]``."""
        ruled_out = ~position.candidates
        count = ruled_out.sum(axis=1)
        wrong = count + self._guesses - self._answers
        choice = self._rng.integers(np.where(wrong > 0, wrong, self._guesses))
        # The wrong words are the answers that are ruled out, then the words never hidden.
        is_answer = (choice < count) & (wrong > 0)
        shifted = np.where(wrong > 0, self._answers + choice - count, choice)
        shifted[is_answer] = nth_true(ruled_out[is_answer], choice[is_answer])
        return shifted


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


class StartWordPolicy:
    """One of some good words to begin with, then another policy.

    Args:
        vocabulary: The words.
        words: Words to begin with; the ten of the highest information gain if not given.
        then: The policy of all later turns; ``ConsistentPolicy`` if not given.
        seed: Of the choice among ``words``.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        words: Sequence[str] | None = None,
        then: Policy | None = None,
        seed: int | None = None,
    ) -> None:
        if words is None:
            openers = InformationGain(vocabulary).openers(10)
        else:
            openers = np.array([vocabulary.index(word) for word in words], dtype=np.int64)
            if not len(openers) or openers.min() < 0:
                unknown = [w for w, at in zip(words, openers, strict=True) if at < 0]
                raise ConfigError(
                    f"words: expected words of the vocabulary {vocabulary.name!r}, got "
                    f"{unknown or list(words)}."
                )
        self._openers = openers
        self._then = then or ConsistentPolicy(vocabulary, derive(seed, "then"))
        self._rng = generator(seed, "start-word policy")

    def choose(self, position: Position) -> IntArray:
        """Return a guess index for each game ``[n]``."""
        if position.turn:
            return self._then.choose(position)
        return self._rng.choice(self._openers, size=len(position.candidates))


def poor_openers(vocabulary: Vocabulary, count: int = 10) -> list[str]:
    """Return the words that tell least at the first turn."""
    order = InformationGain(vocabulary).openers(len(vocabulary.guesses))
    return [vocabulary.guesses[word] for word in order[-count:]]


class InformationGainPolicy:
    """The word that tells most about the hidden one (see ``InformationGain``)."""

    def __init__(self, vocabulary: Vocabulary, seed: int | None = None) -> None:
        self._gain = InformationGain(vocabulary)

    def choose(self, position: Position) -> IntArray:
        """Return a guess index for each game ``[n]``."""
        return self._gain.best_guesses(position.candidates)


class MixturePolicy:
    """Another policy at every turn of every game, drawn with fixed probabilities.

    Args:
        policies: The policies and their weights; weights are normalised.
        seed: Of the draw.
    """

    def __init__(self, policies: Sequence[tuple[Policy, float]], seed: int | None = None) -> None:
        weights = np.array([check_float("weight", w, 0.0) for _, w in policies])
        if not weights.sum() > 0:
            raise ConfigError("mixture: expected at least one weight above 0.")
        self._policies = [policy for policy, _ in policies]
        self._probabilities = weights / weights.sum()
        self._rng = generator(seed, "mixture policy")

    def choose(self, position: Position) -> IntArray:
        """Return a guess index for each game ``[n]``."""
        size = len(position.candidates)
        which = self._rng.choice(len(self._policies), size=size, p=self._probabilities)
        guesses = np.empty(size, dtype=np.int64)
        for i, policy in enumerate(self._policies):
            rows = np.flatnonzero(which == i)
            if len(rows):
                guesses[rows] = policy.choose(position.select(rows))
        return guesses


POLICIES: Mapping[str, Callable[[Vocabulary, int | None], Policy]] = {
    "random": RandomPolicy,
    "wrong": WrongPolicy,
    "consistent": ConsistentPolicy,
    "start-word": lambda vocabulary, seed: StartWordPolicy(vocabulary, seed=seed),
    "poor-start": lambda vocabulary, seed: StartWordPolicy(
        vocabulary, poor_openers(vocabulary), seed=seed
    ),
    "information-gain": InformationGainPolicy,
}
DEFAULT_MIXTURE = "information-gain:0.5,start-word:0.2,random:0.2,wrong:0.1"


def make_policy(text: str, vocabulary: Vocabulary, seed: int | None = None) -> Policy:
    """Return the policy that ``text`` describes.

    Args:
        text: A name of ``POLICIES``; ``"mixture"`` for ``DEFAULT_MIXTURE``; or a mixture of your
            own as ``name:weight`` pairs, for example ``"information-gain:0.6,random:0.4"``.
        vocabulary: The words.
        seed: Of all draws.

    Raises:
        ConfigError: An unknown name or a weight that is not a number >= 0.
    """
    spec = DEFAULT_MIXTURE if text == "mixture" else text
    if ":" not in spec:
        return POLICIES[check_choice("policy", spec, [*POLICIES, "mixture"])](vocabulary, seed)
    members = []
    for i, part in enumerate(spec.split(",")):
        name, _, weight_text = part.partition(":")
        name = check_choice("policy", name.strip(), POLICIES)
        try:
            weight = float(weight_text)
        except ValueError:
            raise ConfigError(
                f"policy: expected a number after {name + ':'!r}, got {weight_text!r}."
            ) from None
        members.append((POLICIES[name](vocabulary, derive(seed, i)), weight))
    return MixturePolicy(members, seed)


def _play_chunk(policy: Policy, vocabulary: Vocabulary, hidden: IntArray) -> Games:
    board = Board(vocabulary, hidden)
    candidates = np.ones((len(hidden), len(vocabulary.answers)), dtype=np.bool_)
    while len(board.running):
        guesses = policy.choose(Position(board.turn, candidates))
        rows = board.running
        patterns = board.guess(vocabulary.letters[guesses])
        still = np.isin(rows, board.running, assume_unique=True)
        candidates = candidates[still]
        candidates &= vocabulary.matrix[guesses[still]] == patterns[still, None]
    return board.games


def play_with_rules(
    policy: Policy,
    vocabulary: Vocabulary,
    hidden: IntArray,
    progress: Callable[[int], object] = lambda games: None,
) -> Games:
    """Play one game for each of ``hidden`` with a policy that sees the possible answers.

    Args:
        policy: One policy for all games.
        vocabulary: The words.
        hidden: Answer index of each hidden word ``[N]``.
        progress: Called with the number of games that have just ended.
    """
    parts = []
    for start in range(0, max(len(hidden), 1), _CHUNK):
        parts.append(_play_chunk(policy, vocabulary, hidden[start : start + _CHUNK]))
        progress(len(parts[-1]))
    return concatenate(parts)


def candidates_after(vocabulary: Vocabulary, turns: Sequence[tuple[str, int]]) -> BoolArray:
    """Return which answers ``[A]`` agree with the (word, pattern code) of past guesses."""
    possible = np.ones(len(vocabulary.answers), dtype=np.bool_)
    for word, pattern in turns:
        if pattern != ILLEGAL:
            possible &= vocabulary.matrix[vocabulary.index(word)] == pattern
    return possible
