"""Games played by a policy that reads and writes tokens, all of them at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from agilerl.wordle.games import Games, IntArray, play
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
