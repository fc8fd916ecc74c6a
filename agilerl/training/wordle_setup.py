"""What a language run is about: words, tokens, games to learn from and games to be measured by."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from agilerl.data.language_dataset import LanguageDataset, save_games
from agilerl.errors import DatasetError
from agilerl.seeding import derive
from agilerl.training.language_config import DataConfig, RunConfig
from agilerl.wordle.evaluate import WordleArena
from agilerl.wordle.generate import describe, generate
from agilerl.wordle.play import load_vocabulary
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import Vocabulary


@dataclass(frozen=True)
class WordleSetup:
    """Wordle with one vocabulary.

    Attributes:
        vocabulary: the words.
        tokenizer: the format.
        dataset: games to learn from.
        arena: games by which agents are compared in training, and settings chosen.
        final: the games by which the result is measured.
    """

    vocabulary: Vocabulary
    tokenizer: WordleTokenizer
    dataset: LanguageDataset
    arena: WordleArena
    final: WordleArena


def data_path(data: DataConfig, vocabulary: Vocabulary) -> Path:
    """Return where the games are; "auto" is a name that says what made them."""
    if data.path != "auto":
        return Path(data.path)
    policy = re.sub(r"[^a-z0-9.]+", "-", data.policy)
    name = f"{vocabulary.name}_{policy}_{data.games}_{data.seed}_{data.format}.h5"
    return Path("data/wordle") / name


def make_data(
    path: Path, data: DataConfig, vocabulary: Vocabulary, tokenizer: WordleTokenizer
) -> None:
    """Play games and write them to ``path``."""
    print(f"{path}: there is no such file yet, playing {data.games} games", file=sys.stderr)
    games = generate(vocabulary, data.policy, data.games, data.seed)
    about = describe(games, vocabulary, data.policy, data.seed)
    save_games(path, tokenizer.encode_games(games), tokenizer, about)


def wordle_setup(config: RunConfig) -> WordleSetup:
    """Return the task of a run; its data are generated if their file is missing.

    Raises:
        DatasetError: if the file can't be read or is of another vocabulary.
        ConfigError: on settings that can't be used.
    """
    data = config.data
    vocabulary = load_vocabulary(
        data.words,
        None if data.vocabulary is None else Path(data.vocabulary),
        None if data.guesses is None else Path(data.guesses),
    )
    tokenizer = WordleTokenizer(data.format)
    path = data_path(data, vocabulary)
    if not path.exists():
        make_data(path, data, vocabulary, tokenizer)
    dataset = LanguageDataset.from_file(path, tokenizer, derive(config.seed, "data order"))
    digest = dataset.attributes.get("vocabulary_digest", vocabulary.digest)
    if digest != vocabulary.digest:
        raise DatasetError(
            f"{path}: made with the vocabulary {dataset.attributes.get('vocabulary')!r} ({digest}),"
            f" expected {vocabulary.name!r} ({vocabulary.digest}); choose its words under data:, or"
            " another data.path."
        )
    arenas = [
        WordleArena(vocabulary, tokenizer, games, derive(config.seed, purpose))
        for purpose, games in (
            ("evaluation", config.evaluate.games),
            ("final", config.evaluate.final_games),
        )
    ]
    return WordleSetup(vocabulary, tokenizer, dataset, *arenas)
