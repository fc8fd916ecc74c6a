"""What ILQL's Q has learnt of Wordle: does it rank words rightly, and foretell returns?"""

from __future__ import annotations

import numpy as np
import torch

from agilerl.algorithms.ilql import ILQL
from agilerl.algorithms.language_agent import steps_of
from agilerl.wordle.games import Games
from agilerl.wordle.policies import candidates_after
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import WORD_LENGTH, Vocabulary

Words = tuple[int, int]


def word_values(
    agent: ILQL, prefixes: np.ndarray, words: np.ndarray, tokenizer: WordleTokenizer
) -> np.ndarray:
    """Return Q of the last letter of each word [N], behind prefixes [N, t] and its own letters."""
    letters = words.astype(np.int64) + tokenizer.first_letter
    texts = np.concatenate([prefixes, letters[:, :-1]], axis=1)
    with torch.no_grad():
        hidden = agent.lm.hidden(torch.from_numpy(texts))[:, -1]
        q, _ = agent.values(hidden)
        numbers = agent.action_tokens.numbers(torch.from_numpy(letters[:, -1].copy()))
        return q.gather(1, numbers[:, None])[:, 0].numpy()


def pairs_of(vocabulary: Vocabulary, possible: np.ndarray) -> tuple[Words, Words] | None:
    """Return (good, bad) words of two kinds in a state, None where there is nothing to tell apart.

    The first pair are the possible answers that leave the fewest and the most words on average;
    the second the good one and the first word that can't be the answer.
    """
    answers = np.flatnonzero(possible)
    ruled_out = np.flatnonzero(~possible)
    left = np.array(
        [(np.bincount(vocabulary.matrix[w, answers]) ** 2).sum() for w in answers], float
    )
    if len(answers) < 4 or not len(ruled_out) or left.max() - left.min() < len(answers):
        return None
    good = int(answers[left.argmin()])
    return (good, int(answers[left.argmax()])), (
        good,
        int(ruled_out[len(answers) % len(ruled_out)]),
    )


def ranking(
    agent: ILQL, vocabulary: Vocabulary, tokenizer: WordleTokenizer, games: Games, turn: int
) -> tuple[int, float, float]:
    """Return the number of states after ``turn`` guesses, and the shares ranked rightly."""
    states, pairs = [], []
    for row in np.flatnonzero(games.turns > turn):
        found = pairs_of(vocabulary, candidates_after(vocabulary, games.turns_of(row)[:turn]))
        if found is not None:
            states.append(row)
            pairs.append(found)
    chosen = games.select(np.array(states))
    cut = Games(
        chosen.hidden, chosen.letters, chosen.patterns, np.full(len(chosen), turn, dtype=np.int64)
    )
    prefixes = tokenizer.prefixes(cut)
    table = np.array(pairs)  # [N, kind, good or bad]
    shares = []
    for kind in (0, 1):
        good, bad = (
            word_values(agent, prefixes, vocabulary.letters[table[:, kind, i]], tokenizer)
            for i in (0, 1)
        )
        shares.append(float((good > bad).mean()))
    return len(states), shares[0], shares[1]


def correlation(agent: ILQL, tokenizer: WordleTokenizer, games: Games, turn: int) -> float:
    """Return the correlation of Q of whole words after ``turn`` guesses with what games got."""
    encoded = tokenizer.encode_games(games)
    steps = steps_of(encoded, agent.gamma)
    with torch.no_grad():
        hidden = agent.lm.hidden(steps.ids).flatten(0, 1).index_select(0, steps.positions)
        q, _ = agent.values(hidden)
        taken = q.gather(1, agent.action_tokens.numbers(steps.actions)[:, None])[:, 0].numpy()
    columns = np.nonzero(encoded.action_mask)[1]
    own = columns == 2 * WORD_LENGTH * turn + WORD_LENGTH  # the last letter of that guess
    return float(np.corrcoef(taken[own], steps.returns.numpy()[own])[0, 1])
