"""Make a Wordle data set: ``python -m agilerl.wordle.generate --help``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import agilerl
from agilerl.data.language_dataset import save_games
from agilerl.errors import AgileRLError, ConfigError, check_int
from agilerl.seeding import derive, generator
from agilerl.wordle.games import Games
from agilerl.wordle.play import add_vocabulary_arguments, load_vocabulary
from agilerl.wordle.policies import DEFAULT_MIXTURE, POLICIES, make_policy, play_with_rules
from agilerl.wordle.tokenizer import FORMATS, WordleTokenizer
from agilerl.wordle.vocabulary import Vocabulary


def generate(
    vocabulary: Vocabulary, policy: str, games: int, seed: int | None = 0, verbose: bool = False
) -> Games:
    """Play ``games`` games with hidden words drawn at random.

    Args:
        vocabulary: The words.
        policy: See ``make_policy``.
        games: Number of games.
        seed: Of the hidden words and of the policy.
        verbose: Show a progress bar.
    """
    count = check_int("games", games)
    player = make_policy(policy, vocabulary, derive(seed, "policy"))
    hidden = generator(seed, "hidden words").integers(len(vocabulary.answers), size=count)
    with tqdm(total=count, unit=" games", disable=not verbose, unit_scale=True) as bar:
        return play_with_rules(player, vocabulary, hidden, bar.update)


def describe(
    games: Games, vocabulary: Vocabulary, policy: str, seed: int | None
) -> Mapping[str, Any]:
    """Return the attributes of a data set: what made it, and how well that played."""
    return {
        "environment": "wordle",
        "policy": DEFAULT_MIXTURE if policy == "mixture" else policy,
        "seed": -1 if seed is None else seed,
        "vocabulary": vocabulary.name,
        "vocabulary_digest": vocabulary.digest,
        "answers": len(vocabulary.answers),
        "guesses": len(vocabulary.guesses),
        "win_rate": float(games.won.mean()),
        "agilerl_version": agilerl.__version__,
        "numpy_version": np.__version__,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agilerl.wordle.generate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Play many games of Wordle and write them as token-level training data.",
        epilog=(
            f"policies: {', '.join(POLICIES)},\n  mixture (= {DEFAULT_MIXTURE}),\n"
            "  or a mixture of your own, drawn anew at every turn: name:weight,name:weight\n\n"
            "example: python -m agilerl.wordle.generate --words 100 --games 20000 \\\n"
            "           --policy consistent:0.7,random:0.3 --out data/wordle/small.h5"
        ),
    )
    parser.add_argument("--games", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--policy", default="mixture", help="who plays (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("data/wordle/train.h5"), help="(default: %(default)s)"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="of the tokens (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_vocabulary_arguments(parser)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    vocabulary = load_vocabulary(arguments.words, arguments.vocabulary, arguments.guesses)
    games = generate(
        vocabulary, arguments.policy, arguments.games, arguments.seed, not arguments.quiet
    )
    tokenizer = WordleTokenizer(arguments.format)
    attributes = describe(games, vocabulary, arguments.policy, arguments.seed)
    try:
        save_games(arguments.out, tokenizer.encode_games(games), tokenizer, attributes)
    except OSError as error:
        raise ConfigError(f"--out {arguments.out}: can't be written ({error}).") from error
    print(
        f"{arguments.out}: {games.summary()}; {len(vocabulary.answers)} answers, "
        f"{len(vocabulary.guesses)} guesses; {time.perf_counter() - start:.1f} s"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
