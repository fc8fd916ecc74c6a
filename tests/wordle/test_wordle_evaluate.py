import numpy as np
import pytest

from agilerl.wordle.evaluate import Score, WordleArena, score_table
from agilerl.wordle.games import Games
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import Vocabulary


def arena(games: int = 250) -> WordleArena:
    return WordleArena(Vocabulary.small(100), WordleTokenizer(), games, seed=0)


def random_games() -> Games:
    return arena().play_by_rule("random", seed=0)


def test_the_same_games_are_played_until_other_words_are_hidden() -> None:
    games = arena()
    first, second = games.play_by_rule("consistent", 1), games.play_by_rule("consistent", 1)
    assert np.array_equal(first.letters, second.letters)
    assert np.bincount(games.hidden, minlength=100).tolist().count(0) == 0  # every word is hidden
    games.reset(1)
    assert not np.array_equal(games.play_by_rule("consistent", 1).hidden, first.hidden)


def test_a_player_who_draws_has_an_interval() -> None:
    games = random_games()
    score = Score.of("random", games)
    deviation = games.returns.std(ddof=1) / 250**0.5
    assert score.half_width == pytest.approx(1.96 * deviation)
    assert score.interval == f"{games.returns.mean():.3f} +- {1.96 * deviation:.3f}"


def test_a_player_without_chance_has_none_since_its_games_repeat() -> None:
    small, large = arena(100), arena(1000)
    scores = [
        Score.of("gain", games.play_by_rule("information-gain"), deterministic=True)
        for games in (small, large)
    ]
    assert scores[0].reward == scores[1].reward  # ten times the games tell nothing more
    assert scores[0].half_width is None
    assert scores[0].interval == f"{scores[0].reward:.3f}"


def test_the_table_shows_the_mean_alone_where_there_is_no_interval() -> None:
    games = random_games()
    table = score_table([Score.of("drawn", games), Score.of("fixed", games, deterministic=True)])
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert " +- " in lines[2]
    assert f"| {games.returns.mean():>17.3f} |" in lines[3]
