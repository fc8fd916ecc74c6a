"""Behavioural cloning and ILQL on Wordle: how well, how fast, and what Q has learnt.

    python -m benchmarks.language [--seeds 0 1 2] [--bc key=value ...] [--ilql key=value ...]

Trains the clone of ``configs/wordle/train_bc.yaml`` once and ILQL of ``train_iql.yaml`` from it
once for each seed, and prints Markdown: time, the table of each run on fresh games, and the
ranking test.  A clone that is in ``<out>/bench-bc`` already is taken as it is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from agilerl.algorithms.ilql import ILQL
from agilerl.training.language_config import BCRunConfig, ILQLRunConfig
from agilerl.training.language_task import wordle_task
from agilerl.training.train_bc_lm import train as train_bc
from agilerl.training.train_ilql import train as train_ilql
from agilerl.training.yaml_config import read_config
from agilerl.wordle.arena import score_table
from agilerl.wordle.games import Games
from agilerl.wordle.generate import generate
from agilerl.wordle.policies import candidates_after
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import Vocabulary

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
        numbers = agent.actions.numbers(torch.from_numpy(letters[:, -1]))
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


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description="Measure BC and ILQL on Wordle.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="runs")
    parser.add_argument("--bc", nargs="*", default=[], help="settings of the clone")
    parser.add_argument("--ilql", nargs="*", default=[], help="settings of ILQL")
    arguments = parser.parse_args()
    bc = read_config(
        BCRunConfig,
        "configs/wordle/train_bc.yaml",
        [f"out={arguments.out}", "name=bench-bc", *arguments.bc],
    )
    clone = Path(bc.directory) / "best.pt"
    if not clone.exists():
        wall, cpu = time.perf_counter(), time.process_time()
        outcome = train_bc(bc, verbose=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"## BC: {wall:.0f} s, {cpu:.0f} s of CPU\n\n{score_table(outcome.scores)}\n")
    for seed in arguments.seeds:
        overrides = [f"out={arguments.out}", f"name=bench-ilql-{seed}", f"seed={seed}"]
        settings = [*overrides, f"model.load={clone}", *arguments.ilql]
        config = read_config(ILQLRunConfig, "configs/wordle/train_iql.yaml", settings)
        wall, cpu = time.perf_counter(), time.process_time()
        outcome = train_ilql(config, verbose=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"## ILQL, seed {seed}: {wall:.0f} s, {cpu:.0f} s of CPU\n")
        print(score_table(outcome.scores) + "\n", flush=True)
        task = wordle_task(config)
        agent = outcome.agent
        assert isinstance(agent, ILQL)
        games = generate(task.vocabulary, config.data.policy, 1000, seed + 1000)
        print("| guesses | states | informative over uninformative | possible over ruled out |")
        print("| ---: | ---: | ---: | ---: |")
        for turn in (1, 2):
            count, informative, possible = ranking(
                agent, task.vocabulary, task.tokenizer, games, turn
            )
            print(f"| {turn} | {count} | {informative:.3f} | {possible:.3f} |", flush=True)
        print()


if __name__ == "__main__":
    main()
