import numpy as np
import pytest

from agilerl.errors import ConfigError
from agilerl.wordle.environment import WordleEnvironment
from agilerl.wordle.games import Board, Games, concatenate, every_hidden_word, play
from agilerl.wordle.vocabulary import ALL_GREEN, ILLEGAL, Vocabulary, to_letters

WORDS = Vocabulary.of(["crane", "slate", "abide", "erase"], ["speed", "zebra"])


def play_words(script: list[str], hidden: list[int]) -> Games:
    """Every game plays the words of ``script`` in order."""
    lines = iter(script)
    return play(
        lambda games: np.repeat(to_letters([next(lines)]), len(games), 0), WORDS, np.array(hidden)
    )


def test_each_wrong_guess_costs_one_and_the_right_one_nothing() -> None:
    games = play_words(["crane", "slate", "abide", "erase"], [0, 1, 2, 3])
    assert games.returns.tolist() == [0, -1, -2, -3]
    assert games.turns.tolist() == [1, 2, 3, 4]
    assert games.won.all()


def test_the_sixth_guess_ends_the_game() -> None:
    games = play_words(["speed"] * 6, [0, 1])
    assert games.turns.tolist() == [6, 6]
    assert games.returns.tolist() == [-6, -6]
    assert not games.won.any()


def test_a_sixth_guess_that_is_right_wins() -> None:
    games = play_words(["speed"] * 5 + ["crane"], [0])
    assert games.won.tolist() == [True]
    assert games.returns.tolist() == [-5]


def test_an_illegal_guess_is_a_wrong_guess_without_colours() -> None:
    games = play_words(["qqqqq", "crane"], [0])
    assert games.patterns[0, :2].tolist() == [ILLEGAL, ALL_GREEN]
    assert games.illegal.tolist() == [1]
    assert games.returns.tolist() == [-1]
    assert games.turns_of(0) == [("qqqqq", ILLEGAL), ("crane", ALL_GREEN)]


def test_the_policy_sees_only_running_games_and_what_was_played() -> None:
    seen = []

    def policy(games: Games) -> np.ndarray:
        seen.append([games.turns_of(i) for i in range(len(games))])
        return np.repeat(to_letters([["crane", "slate"][len(seen) - 1]]), len(games), 0)

    play(policy, WORDS, np.array([0, 1]))
    slate_after_crane = int(WORDS.matrix[0, 1])
    assert seen == [[[], []], [[("crane", slate_after_crane)]]]


def test_games_and_text_environment_play_by_the_same_rules() -> None:
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary.small(60)
    for _ in range(30):
        hidden = int(rng.integers(60))
        words = [vocabulary.guesses[i] for i in rng.integers(60, size=6)]
        words[int(rng.integers(6))] = "qqqqq"
        lines = iter(words)
        games = play(lambda _, left=lines: to_letters([next(left)]), vocabulary, np.array([hidden]))
        env = WordleEnvironment(vocabulary, hidden=vocabulary.answers[hidden])
        env.reset()
        total, over, turns = 0.0, False, []
        while not over:
            word = words[len(turns)]
            _, reward, over, truncated, info = env.step(word)
            assert not truncated
            total += reward
            turns.append((word, info["pattern"]))
        assert turns == games.turns_of(0)
        assert total == games.returns[0]
        assert info["won"] == games.won[0]


@pytest.mark.parametrize(
    ("letters", "message"),
    [
        (np.zeros((2, 4), dtype=int), r"shape \(2, 5\)"),
        (np.zeros((1, 5), dtype=int), r"shape \(2, 5\)"),
        (np.zeros((2, 5)), "float64"),
        (np.full((2, 5), 26), "25"),
        (np.full((2, 5), -1), "25"),
    ],
)
def test_guesses_that_are_not_letters_are_refused(letters: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        play(lambda games: letters, WORDS, np.array([0, 1]))


@pytest.mark.parametrize("hidden", [[4], [-1], [[0]], [0.0]])
def test_hidden_words_outside_the_vocabulary_are_refused(hidden: list[object]) -> None:
    with pytest.raises(ConfigError, match="hidden"):
        Board(WORDS, np.array(hidden))


def test_every_hidden_word_comes_equally_often() -> None:
    hidden = every_hidden_word(WORDS, 11, np.random.default_rng(0))
    counts = np.bincount(hidden, minlength=4)
    assert len(hidden) == 11
    assert sorted(counts.tolist()) == [2, 3, 3, 3]


def test_select_and_concatenate_keep_games_whole() -> None:
    games = play_words(["crane", "slate", "abide", "erase"], [0, 1, 2, 3])
    again = concatenate([games.select(slice(0, 1)), games.select(np.array([1, 2, 3]))])
    assert [again.turns_of(i) for i in range(4)] == [games.turns_of(i) for i in range(4)]
    assert (again.hidden == games.hidden).all()


def test_summary_gives_rate_and_reward() -> None:
    text = play_words(["crane", "slate", "abide", "erase"], [0, 1, 2, 3]).summary()
    assert text == "4 games: win rate 1.000, mean reward -1.500 +- 1.265"
