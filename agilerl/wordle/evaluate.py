"""Games by which language agents are measured: played all at once, and scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agilerl.errors import check_int
from agilerl.seeding import generator
from agilerl.wordle.games import Games, IntArray, every_hidden_word, half_width, play
from agilerl.wordle.policies import make_policy, play_with_rules
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import Vocabulary

TokenPolicy = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.integer]]
"""From the tokens of all running games ``[n, t]`` to those of their next guess ``[n, 5]``."""


def play_games(
    policy: TokenPolicy, vocabulary: Vocabulary, hidden: IntArray, tokenizer: WordleTokenizer
) -> Games:
    """Play one game for each of ``hidden`` and return them.

    Running games are at the same turn, so their tokens are one rectangle without padding: the
    policy is called at most six times, with ``t`` = 1, 11, 21, 31, 41 and 51.  A guess that is
    not in the vocabulary is a wrong guess, answered by the illegal token; see ``games``.

    Args:
        policy: For example a language model that samples five tokens, among
            ``tokenizer.action_tokens`` only.
        vocabulary: The words.
        hidden: Answer index of each hidden word ``[N]``; ``every_hidden_word`` draws them evenly.
        tokenizer: The format that the policy reads.

    Returns:
        The games: ``returns``, ``won``, ``illegal``, and ``turns_of(i)`` for the transcript.

    Raises:
        ConfigError: The policy's tokens are not letter tokens ``[n, 5]``.
    """

    def letters(games: Games) -> npt.NDArray[np.int64]:
        return tokenizer.letters_of(policy(tokenizer.prefixes(games)))

    return play(letters, vocabulary, hidden)


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
        half_width: Of the 95 % interval of ``reward``; None for a player without chance, who plays
            every hidden word in one way: more games are the same games again.
        illegal: Share of guesses that were no words of the vocabulary.
    """

    name: str
    games: int
    win_rate: float
    reward: float
    half_width: float | None
    illegal: float

    @classmethod
    def of(cls, name: str, games: Games, deterministic: bool = False) -> Score:
        """Return the score of finished games.

        Args:
            name: Who played.
            games: What was played.
            deterministic: The player draws nothing, so that there is no interval.
        """
        return cls(
            name,
            len(games),
            float(games.won.mean()),
            float(games.returns.mean()),
            None if deterministic else half_width(games.returns),
            float(games.illegal.sum() / games.turns.sum()),
        )

    @property
    def interval(self) -> str:
        """The mean reward, with its 95 % interval if it has one."""
        spread = "" if self.half_width is None else f" +- {self.half_width:.3f}"
        return f"{self.reward:.3f}{spread}"


def score_table(scores: list[Score]) -> str:
    """Return scores as a Markdown table."""
    width = max(len(name) for name in ("policy", *(score.name for score in scores)))
    lines = [
        f"| {'policy':<{width}} | games | win rate | mean reward, 95 % | illegal |",
        f"| {'-' * width} | ----: | -------: | ----------------: | ------: |",
    ]
    lines += [
        f"| {s.name:<{width}} | {s.games:>5} | {s.win_rate:>8.3f} |"
        f" {s.interval:>17} | {s.illegal:>7.3f} |"
        for s in scores
    ]
    return "\n".join(lines)
