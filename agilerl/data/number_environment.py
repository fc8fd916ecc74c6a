"""A language environment of 40 lines: guess a number from the replies "higher" and "lower"."""

from __future__ import annotations

from agilerl.data.language_environment import StepResult
from agilerl.errors import EnvError
from agilerl.seeding import generator


class NumberEnvironment:
    """Find a number from 00 to 99 in eight guesses of two digits.

    The reply is ``>`` (the number is higher), ``<`` (it is lower), ``=`` (found) or ``?`` (not two
    digits).  The reward is -1 for each wrong guess, 0 for the right one.  Halving the range each
    time always wins.  A transcript: ``50>75<62<56=``.

    Args:
        seed: Of the numbers.
    """

    alphabet = "0123456789<>=?"
    max_text = 1
    max_action = 2
    max_guesses = 8

    def __init__(self, seed: int | None = None) -> None:
        self._rng = generator(seed, "number environment")
        self._number: int | None = None
        self._guesses = 0

    def reset(self, seed: int | None = None) -> str:
        """Draw a number; the first text is empty."""
        if seed is not None:
            self._rng = generator(seed, "number environment")
        self._number, self._guesses = int(self._rng.integers(100)), 0
        return ""

    def step(self, text: str) -> StepResult:
        """Compare a guess with the number."""
        if self._number is None:
            raise EnvError("step: no episode is running. Call reset() first.")
        self._guesses += 1
        reply, number = "?", self._number
        if len(text) == 2 and text.isascii() and text.isdigit():
            reply = "=" if int(text) == number else "<" if number < int(text) else ">"
        won = reply == "="
        over = won or self._guesses == self.max_guesses
        if over:
            self._number = None
        return reply, 0.0 if won else -1.0, over, False, {"won": won}


def bisect(transcript: str) -> str:
    """Play well: guess the middle of the numbers that are left."""
    low, high = 0, 99
    for at in range(0, len(transcript), 3):
        guess, reply = int(transcript[at : at + 2]), transcript[at + 2]
        low, high = (guess + 1, high) if reply == ">" else (low, guess - 1)
    return f"{(low + high) // 2:02d}"
