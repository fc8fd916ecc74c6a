"""Wordle for people: coloured words in a terminal."""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Sequence
from typing import TextIO

from agilerl.wordle.games import Games
from agilerl.wordle.patterns import COLOURS, ILLEGAL, to_word

_STYLES = ("\033[97;100m", "\033[30;103m", "\033[30;102m")
_RESET = "\033[0m"
_MARKS = ("-", "?", "!")


def use_colour(stream: TextIO | None = None) -> bool:
    """Tell whether ``stream`` (standard output) is a terminal that shows colours."""
    stream = stream or sys.stdout
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _cell(letter: str, colour: int, coloured: bool) -> str:
    if coloured:
        return f"{_STYLES[colour]} {letter.upper()} {_RESET}"
    return f"{letter.upper()}{_MARKS[colour]}"


def show_turn(word: str, pattern: int, coloured: bool) -> str:
    """Return a guess with its colours, or with marks: ``-`` grey, ``?`` yellow, ``!`` green."""
    if pattern == ILLEGAL:
        return " ".join(word.upper()) + "   (not in the word list)"
    cells = (
        _cell(letter, int(colour), coloured)
        for letter, colour in zip(word, COLOURS[pattern], strict=True)
    )
    return ("" if coloured else " ").join(cells)


def show_keyboard(turns: Sequence[tuple[str, int]], coloured: bool) -> str:
    """Return the alphabet, each letter in the best colour it has had, or as it is."""
    best: dict[str, int] = {}
    for word, pattern in turns:
        if pattern != ILLEGAL:
            for letter, colour in zip(word, COLOURS[pattern].tolist(), strict=True):
                best[letter] = max(colour, best.get(letter, 0))
    plain = "{}" if not coloured else " {} "
    return " ".join(
        _cell(letter, best[letter], coloured) if letter in best else plain.format(letter.upper())
        for letter in string.ascii_lowercase
    )


def show_game(games: Games, row: int, coloured: bool | None = None) -> str:
    """Return game ``row`` as lines of text, with its outcome."""
    coloured = use_colour() if coloured is None else coloured
    lines = [show_turn(word, pattern, coloured) for word, pattern in games.turns_of(row)]
    hidden = to_word(games.hidden[row]).upper()
    outcome = f"found in {games.turns[row]}" if games.won[row] else "not found"
    return "\n".join([*lines, f"{hidden}: {outcome}, reward {games.returns[row]:.0f}"])
