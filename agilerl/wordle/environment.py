"""Wordle as a language environment."""

from __future__ import annotations

import string

from agilerl.data.language_environment import StepResult
from agilerl.errors import ConfigError, EnvError
from agilerl.seeding import generator
from agilerl.wordle.tokenizer import MARKS, reply_text
from agilerl.wordle.vocabulary import ALL_GREEN, ILLEGAL, MAX_TURNS, WORD_LENGTH, Vocabulary


class WordleEnvironment:
    r"""Find the hidden word in six guesses.

    The reward is -1 for each wrong guess and 0 for the right one, so a game's return is minus the
    number of wrong guesses.  The sixth guess ends the game, won or not; that is a rule of the
    game, so the end is ``terminated``, never ``truncated``.  A text that is not a word of the
    vocabulary is a wrong guess, answered by ``*`` in place of colours.

    The reply repeats the letters with their marks: after ``crane`` it may be
    ``" c- r? a! n- e-\n"`` (``-`` grey, ``?`` yellow, ``!`` green).

    Args:
        vocabulary: The words.
        hidden: Always hide this word; if not given, one is drawn at each reset.
        seed: Of the hidden words.

    Raises:
        ConfigError: ``hidden`` is not one of the answers.
    """

    alphabet = string.ascii_lowercase + MARKS + "* \n"
    max_text = 3 * WORD_LENGTH + 1
    max_action = WORD_LENGTH

    def __init__(
        self, vocabulary: Vocabulary, hidden: str | None = None, seed: int | None = None
    ) -> None:
        if hidden is not None and hidden not in vocabulary.answers:
            raise ConfigError(
                f"hidden: expected one of the {len(vocabulary.answers)} answers of the vocabulary "
                f"{vocabulary.name!r}, got {hidden!r}."
            )
        self.vocabulary = vocabulary
        self._fixed = hidden
        self._rng = generator(seed, "wordle environment")
        self._hidden = ""
        self._turn = 0

    def reset(self, seed: int | None = None) -> str:
        """Hide a word; the first text is empty."""
        if seed is not None:
            self._rng = generator(seed, "wordle environment")
        drawn = self.vocabulary.answers[self._rng.integers(len(self.vocabulary.answers))]
        self._hidden, self._turn = self._fixed or drawn, 0
        return ""

    def step(self, text: str) -> StepResult:
        """Guess a word.

        Returns:
            The reply, the reward, terminated, False, and an info with ``won``, ``turn`` (guesses
            so far), ``pattern`` (the colours as a code) and, at the end, ``hidden``.

        Raises:
            EnvError: No game is running.
        """
        if not self._hidden:
            raise EnvError("step: no game is running. Call reset() first.")
        self._turn += 1
        guess = self.vocabulary.index(text)
        answer = self.vocabulary.index(self._hidden)
        pattern = ILLEGAL if guess < 0 else int(self.vocabulary.matrix[guess, answer])
        won = pattern == ALL_GREEN
        over = won or self._turn == MAX_TURNS
        info = {"won": won, "turn": self._turn, "pattern": pattern}
        if over:
            info["hidden"] = self._hidden
            self._hidden = ""
        return reply_text(text, pattern), 0.0 if won else -1.0, over, False, info
