"""How fast Wordle data is made, and how well each policy plays: ``python -m benchmarks.wordle``.

Prints a Markdown table for the 100-word list, a 1,400-word list and the full lists.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from agilerl.data.language_dataset import save_games
from agilerl.wordle.games import half_width
from agilerl.wordle.generate import describe, generate
from agilerl.wordle.policies import POLICIES
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import Vocabulary


def measure(vocabulary: Vocabulary, policy: str, count: int, seed: int) -> str:
    """Return one row: play ``count`` games and write them."""
    start = time.perf_counter()
    games = generate(vocabulary, policy, count, seed)
    played = time.perf_counter()
    tokenizer = WordleTokenizer()
    with tempfile.TemporaryDirectory() as directory:
        attributes = describe(games, vocabulary, policy, seed)
        path = Path(directory) / "games.h5"
        save_games(path, tokenizer.encode_games(games), tokenizer, attributes)
        size = path.stat().st_size / 2**20
    written = time.perf_counter()
    return (
        f"| {vocabulary.name} | {policy} | {games.won.mean():.4f} | "
        f"{games.returns.mean():.3f} +- {half_width(games.returns):.3f} | {played - start:.1f} | "
        f"{written - played:.1f} | {size:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Wordle policies and data generation.")
    parser.add_argument("--games", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lists = [Vocabulary.small(100), Vocabulary.small(1400), Vocabulary.full()]
    for vocabulary in lists:
        start = time.perf_counter()
        shape = vocabulary.matrix.shape
        print(f"pattern matrix {shape[0]} x {shape[1]}: {time.perf_counter() - start:.2f} s")
    print(f"\n{arguments.games} games, seed {arguments.seed}, one process\n")
    print("| words | policy | win rate | mean reward | play, s | write, s | file, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for vocabulary in lists:
        for policy in [*POLICIES, "mixture"]:
            print(measure(vocabulary, policy, arguments.games, arguments.seed), flush=True)


if __name__ == "__main__":
    main()
