"""Play Wordle at the terminal: ``python -m agilerl.wordle.play``."""

from __future__ import annotations

import argparse
import os
import string
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from agilerl.errors import AgileRLError, ConfigError
from agilerl.wordle.environment import WordleEnvironment
from agilerl.wordle.games import Games
from agilerl.wordle.policies import InformationGain, candidates_after
from agilerl.wordle.tokenizer import MARKS
from agilerl.wordle.vocabulary import (
    COLOURS,
    ILLEGAL,
    MAX_TURNS,
    WORD_LENGTH,
    Vocabulary,
    to_word,
)

_STYLES = ("\033[97;100m", "\033[30;103m", "\033[30;102m")
_RESET = "\033[0m"
_HELP = "Type a word of five letters, ? for a hint, or Ctrl-D to give up."


def load_vocabulary(words: int | None, file: Path | None, guesses: Path | None) -> Vocabulary:
    """Return the vocabulary that the command line asks for."""
    if guesses is not None and file is None:
        raise ConfigError("--guesses: expected together with --vocabulary FILE, the answers.")
    vocabulary = Vocabulary.full() if file is None else Vocabulary.from_file(file, guesses)
    return vocabulary if words is None else vocabulary.subset(words)


def add_vocabulary_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--words``, ``--vocabulary`` and ``--guesses``."""
    parser.add_argument(
        "--words", type=int, metavar="N", help="use N answers only, and no other words"
    )
    parser.add_argument(
        "--vocabulary", type=Path, metavar="FILE", help="your own list of answers, a word a line"
    )
    parser.add_argument(
        "--guesses", type=Path, metavar="FILE", help="with --vocabulary: more words to guess"
    )


def use_colour(stream: TextIO | None = None) -> bool:
    """Tell whether ``stream`` (standard output) is a terminal that shows colours."""
    stream = stream or sys.stdout
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _cell(letter: str, colour: int, coloured: bool) -> str:
    if coloured:
        return f"{_STYLES[colour]} {letter.upper()} {_RESET}"
    return f"{letter.upper()}{MARKS[colour]}"


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


class HumanPolicy:
    """Asks a person for each guess.  Words that are not in the list cost nothing here.

    Args:
        vocabulary: The words.
        read: Asks for a line, with a prompt.
        write: Shows a line.
        coloured: Show colours, not marks.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        read: Callable[[str], str] = input,
        write: Callable[[str], object] = print,
        coloured: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self.coloured = coloured
        self._read, self._write = read, write

    def guess(self, turns: list[tuple[str, int]]) -> str:
        """Return a legal word; ``turns`` are the (word, pattern code) so far."""
        while True:
            word = self._read(f"Guess {len(turns) + 1} of {MAX_TURNS}: ").strip().lower()
            if word == "?":
                self._write(self._hint(turns))
            elif len(word) != WORD_LENGTH:
                self._write(f"{len(word)} letters, but {WORD_LENGTH} are needed. {_HELP}")
            elif self._vocabulary.index(word) < 0:
                self._write(f"{word.upper()} is not in the word list. Try another.")
            else:
                return word

    def _hint(self, turns: list[tuple[str, int]]) -> str:
        possible = candidates_after(self._vocabulary, turns)
        best = InformationGain(self._vocabulary).best_guesses(possible[None])[0]
        word = self._vocabulary.guesses[best].upper()
        return f"{possible.sum()} words are possible. {word} would tell most."


def play_game(env: WordleEnvironment, human: HumanPolicy, write: Callable[[str], object]) -> bool:
    """Play one game with a person; return whether it was won."""
    env.reset()
    turns: list[tuple[str, int]] = []
    while True:
        word = human.guess(turns)
        _, _, terminated, _, info = env.step(word)
        turns.append((word, info["pattern"]))
        write("\n".join(show_turn(w, p, human.coloured) for w, p in turns))
        if terminated:
            hidden = info["hidden"].upper()
            write(
                f"Right, in {len(turns)}!" if info["won"] else f"Out of guesses. It was {hidden}."
            )
            return bool(info["won"])
        write(show_keyboard(turns, human.coloured))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m agilerl.wordle.play",
        description=(
            "Find the hidden word in six guesses. Green: right letter, right position. Yellow: the "
            "letter is elsewhere in the word. Grey: no (more) such letter."
        ),
    )
    add_vocabulary_arguments(parser)
    parser.add_argument("--seed", type=int, help="play the same words again")
    parser.add_argument("--no-colour", action="store_true", help="show marks - ? ! for the colours")
    arguments = parser.parse_args(argv)
    try:
        vocabulary = load_vocabulary(arguments.words, arguments.vocabulary, arguments.guesses)
        env = WordleEnvironment(vocabulary, seed=arguments.seed)
        coloured = use_colour() and not arguments.no_colour
        human = HumanPolicy(vocabulary, input, print, coloured)
        print(f"{len(vocabulary.answers)} words may be hidden. {_HELP}")
        while True:
            play_game(env, human, print)
            if not input("Again? [y/n] ").strip().lower().startswith("y"):
                return 0
    except (EOFError, KeyboardInterrupt):
        print("\nGoodbye.")
        return 0
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
