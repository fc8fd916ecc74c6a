"""Wordle as tokens.

A game is a fixed grid, so the position of a token says which turn and which letter it is::

    begin | 5 letters  5 clues | 5 letters  5 clues | ... | end      at most 62 tokens

The agent chooses the letters; the environment writes the clues, one for each letter of the
guess.  What a clue token stands for is the format:

- ``"slots"`` (default): letter, colour and position in the word, 26 x 3 x 5 clue tokens.  One
  token is one whole fact ("a is in the word, but not third"), so all that a model must do to know
  which words are left is to add up facts.
- ``"clues"``: letter and colour, 26 x 3 clue tokens; the position in the word is known from that
  of the token only.
- ``"plain"``: colour, 3 clue tokens; the letter stands five tokens before.

The formats are equally long and tell the same; they differ in how much a network must work out
before it can use a clue, and with it in how fast it learns.  In every format an illegal guess is
answered by five tokens of its own, which say nothing about the hidden word.

As text, a turn is a line: the guess, then each letter with its mark, ``-`` grey, ``?`` yellow,
``!`` green, and five ``*`` for an illegal guess: ``crane c- r? a! n- e-``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

import numpy as np
import numpy.typing as npt

from agilerl.data.language_dataset import TokenGames
from agilerl.data.tokenizer import check_ids
from agilerl.errors import DatasetError, check_choice
from agilerl.wordle.games import Games
from agilerl.wordle.vocabulary import (
    COLOURS,
    ILLEGAL,
    MAX_TURNS,
    N_PATTERNS,
    WORD_LENGTH,
    Letters,
)

FORMATS = ("slots", "clues", "plain")
MARKS = "-?!"
_TURN_LENGTH = 2 * WORD_LENGTH
BLOCK_SIZE = 1 + MAX_TURNS * _TURN_LENGTH + 1
"""The longest game in tokens, the begin and the end token included."""

_PIECE = re.compile(r"(?P<letter>[a-z])(?P<mark>[-?!])?|(?P<illegal>\*)|\s+")


def reply_text(word: str, pattern: int) -> str:
    """Return what the environment answers to a guess, to the end of the line."""
    if pattern == ILLEGAL:
        clues = ["*"] * WORD_LENGTH
    else:
        clues = [c + MARKS[colour] for c, colour in zip(word, COLOURS[pattern], strict=True)]
    return " " + " ".join(clues) + "\n"


class WordleTokenizer:
    """Tokens of Wordle: 0 pad, 1 begin, 2 end, 3 to 28 the letters, 29 illegal, then the clues.

    Args:
        format: ``"slots"``, ``"clues"`` or ``"plain"``; see the module's text.

    Attributes:
        block_size: The longest game, 62 tokens.
    """

    pad_id, bos_id, eos_id = 0, 1, 2
    first_letter = 3
    illegal_id = first_letter + 26
    _FIRST_CLUE = illegal_id + 1
    block_size = BLOCK_SIZE

    def __init__(self, format: str = "slots") -> None:
        self.format = check_choice("format", format, FORMATS)
        self.name = f"wordle:{self.format}"
        slot, letter, colour = np.meshgrid(
            np.arange(WORD_LENGTH), np.arange(26), np.arange(3), indexing="ij"
        )
        self._clues: npt.NDArray[np.int64] = {
            "slots": (slot * 26 + letter) * 3 + colour,
            "clues": letter * 3 + colour,
            "plain": colour,
        }[self.format] + self._FIRST_CLUE
        self.vocab_size = int(self._clues.max()) + 1
        self.action_tokens = np.zeros(self.vocab_size, dtype=np.bool_)
        self.action_tokens[self.first_letter : self.illegal_id] = True
        self._clue_of = {
            int(self._clues[s, i, c]): (i, c)
            for s, i, c in product(range(WORD_LENGTH), range(26), range(3))
        }

    def _grid(self, letters: Letters, patterns: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return the tokens ``[N, turns, 10]`` of guesses ``[N, turns, 5]``."""
        grid = np.empty((*patterns.shape, _TURN_LENGTH), dtype=np.int64)
        grid[..., :WORD_LENGTH] = letters + np.int64(self.first_letter)
        colours = COLOURS[np.minimum(patterns, N_PATTERNS - 1)]
        clues = self._clues[np.arange(WORD_LENGTH), letters, colours]
        clues[patterns == ILLEGAL] = self.illegal_id
        grid[..., WORD_LENGTH:] = clues
        return grid

    def prefixes(self, games: Games) -> npt.NDArray[np.int64]:
        """Return the tokens of running games that are all at the same turn ``[N, 1 + 10 t]``."""
        turn = int(games.turns[0])
        count = len(games)
        grid = self._grid(games.letters[:, :turn], games.patterns[:, :turn])
        begin = np.full((count, 1), self.bos_id)
        return np.concatenate([begin, grid.reshape(count, turn * _TURN_LENGTH)], axis=1)

    def encode_games(self, games: Games) -> TokenGames:
        """Return finished games as token-level games.

        The reward of a guess (-1 wrong, 0 right) is on its fifth letter, and so is the end of
        the game.
        """
        count, turns = len(games), games.turns
        lengths = 1 + _TURN_LENGTH * turns + 1
        tokens = np.full((count, BLOCK_SIZE), self.pad_id, dtype=np.int64)
        played = np.arange(MAX_TURNS) < turns[:, None]
        grid = np.where(played[..., None], self._grid(games.letters, games.patterns), self.pad_id)
        tokens[:, 0] = self.bos_id
        tokens[:, 1:-1] = grid.reshape(count, -1)
        tokens[np.arange(count), lengths - 1] = self.eos_id
        mask = np.zeros((count, BLOCK_SIZE), dtype=np.bool_)
        by_turn = mask[:, 1:-1].reshape(count, MAX_TURNS, _TURN_LENGTH)
        by_turn[..., :WORD_LENGTH] = played[..., None]
        mask[:, 1:-1] = by_turn.reshape(count, -1)
        last_letters = 1 + _TURN_LENGTH * np.arange(MAX_TURNS) + WORD_LENGTH - 1
        wrong = played.copy()
        wrong[np.flatnonzero(games.won), turns[games.won] - 1] = False
        rewards = np.zeros((count, BLOCK_SIZE), dtype=np.float32)
        rewards[:, last_letters] = -wrong.astype(np.float32)
        terminals = np.zeros((count, BLOCK_SIZE), dtype=np.bool_)
        terminals[np.arange(count), last_letters[turns - 1]] = True
        return TokenGames(tokens, lengths, mask, rewards, terminals)

    def letters_of(self, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return letter numbers of action tokens; outside 0 to 25 for all other tokens."""
        return np.asarray(tokens, dtype=np.int64) - self.first_letter

    def encode(self, text: str) -> list[int]:
        """Return the tokens of lines such as ``crane c- r? a! n- e-``, or of parts of them."""
        ids: list[int] = []
        clues = at = 0
        while at < len(text):
            piece = _PIECE.match(text, at)
            if piece is None:
                raise DatasetError(
                    f"text: expected letters a-z, clues such as 'a?' or '*', got {text[at]!r} at "
                    f"position {at} of {text[:60]!r}."
                )
            at = piece.end()
            if piece["illegal"]:
                ids.append(self.illegal_id)
            elif piece["letter"]:
                letter = ord(piece["letter"]) - ord("a")
                if piece["mark"]:
                    slot = clues % WORD_LENGTH
                    ids.append(int(self._clues[slot, letter, MARKS.index(piece["mark"])]))
                    clues += 1
                else:
                    ids.append(letter + self.first_letter)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the lines of ``ids``; the last one may be unfinished."""
        text, word, clues = "", "", 0
        for i in check_ids(ids, self.vocab_size):
            if i < self.first_letter:
                continue
            if i < self.illegal_id:
                word = (word + chr(ord("a") + i - self.first_letter))[-WORD_LENGTH:]
                text += word[-1]
                continue
            if i == self.illegal_id:
                text += " *"
            else:
                letter, colour = self._clue_of[i]
                if self.format == "plain":
                    shown = word[clues % WORD_LENGTH] if len(word) == WORD_LENGTH else "_"
                else:
                    shown = chr(ord("a") + letter)
                text += f" {shown}{MARKS[colour]}"
            clues += 1
            if clues % WORD_LENGTH == 0:
                text += "\n"
        return text
