"""Wordle for language agents: fixed games to be measured by, and what is told about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agilerl.errors import check_int
from agilerl.seeding import generator
from agilerl.wordle.evaluate import TokenPolicy, play_games
from agilerl.wordle.games import Games, every_hidden_word
from agilerl.wordle.policies import make_policy, play_with_rules
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import Vocabulary


class WordleArena:
    """The same games for everyone: ``play`` hides the same words until ``reset``.

    Args:
        vocabulary: The words.
        tokenizer: The format that agents read.
        games: Number of games; each answer is hidden as often as any other, as far as it goes.
        seed: Of the hidden words.
    """

    def __init__(
        self, vocabulary: Vocabulary, tokenizer: WordleTokenizer, games: int, seed: int | None = 0
    ) -> None:
        self.vocabulary, self.tokenizer = vocabulary, tokenizer
        self.num_games = check_int("games", games)
        #: Guesses made so far, in all games that were played here.
        self.turns = 0
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Hide other words."""
        rng = generator(seed, "arena")
        self.hidden = every_hidden_word(self.vocabulary, self.num_games, rng)

    def play(self, policy: TokenPolicy) -> Games:
        """Play all games with a policy that writes tokens."""
        games = play_games(policy, self.vocabulary, self.hidden, self.tokenizer)
        self.turns += int(games.turns.sum())
        return games

    def play_by_rule(self, policy: str, seed: int | None = 0) -> Games:
        """Play all games with a policy that knows the rules; see ``make_policy``."""
        player = make_policy(policy, self.vocabulary, seed)
        return play_with_rules(player, self.vocabulary, self.hidden)


@dataclass(frozen=True)
class Score:
    """How well somebody played.

    Attributes:
        name: Who.
        games: Number of games.
        win_rate: Share of games won.
        reward: Mean return.
        half_width: Of the 95 % interval of ``reward``.
        illegal: Share of guesses that were no words of the vocabulary.
    """

    name: str
    games: int
    win_rate: float
    reward: float
    half_width: float
    illegal: float

    @classmethod
    def of(cls, name: str, games: Games) -> Score:
        """Return the score of finished games."""
        return cls(
            name,
            len(games),
            float(games.won.mean()),
            float(games.returns.mean()),
            float(1.96 * games.returns.std(ddof=1) / np.sqrt(len(games)))
            if len(games) > 1
            else 0.0,
            float(games.illegal.sum() / games.turns.sum()),
        )


def score_table(scores: list[Score]) -> str:
    """Return scores as a Markdown table."""
    width = max(len(score.name) for score in scores)
    lines = [
        f"| {'policy':<{width}} | games | win rate | mean reward, 95 % | illegal |",
        f"| {'-' * width} | ----: | -------: | ----------------: | ------: |",
    ]
    lines += [
        f"| {s.name:<{width}} | {s.games:>5} | {s.win_rate:>8.3f} |"
        f" {f'{s.reward:.3f} +- {s.half_width:.3f}':>17} | {s.illegal:>7.3f} |"
        for s in scores
    ]
    return "\n".join(lines)
