from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agilerl.wordle.patterns import ALL_GREEN, COLOURS, pattern_matrix, to_letters, to_word
from agilerl.wordle.vocabulary import Vocabulary

# Few letters, so that words repeat them often.
words = st.lists(st.text("abc", min_size=5, max_size=5), min_size=1, max_size=80)


def slow_pattern(guess: str, hidden: str) -> str:
    """The rule as it is told: greens first, then yellows from left to right while letters last."""
    left = Counter(h for g, h in zip(guess, hidden, strict=True) if g != h)
    marks = []
    for g, h in zip(guess, hidden, strict=True):
        if g == h:
            marks.append("!")
        elif left[g]:
            left[g] -= 1
            marks.append("?")
        else:
            marks.append("-")
    return "".join(marks)


def marks_of(code: int) -> str:
    return "".join("-?!"[colour] for colour in COLOURS[code])


@pytest.mark.parametrize(
    ("guess", "hidden", "marks"),
    [
        ("crane", "crane", "!!!!!"),
        ("speed", "abide", "--?-?"),
        ("speed", "erase", "?-??-"),
        ("speed", "steal", "!-!--"),
        ("speed", "crepe", "-?!?-"),
        ("allow", "hello", "-?!?-"),
        ("geese", "elder", "-??--"),
        ("aabbb", "cccaa", "??---"),
        ("babab", "abbba", "??!??"),
    ],
)
def test_colours_count_duplicate_letters(guess: str, hidden: str, marks: str) -> None:
    matrix = pattern_matrix(to_letters([guess]), to_letters([hidden]))
    assert slow_pattern(guess, hidden) == marks
    assert marks_of(matrix[0, 0]) == marks


@given(words, words)
def test_matrix_equals_the_slow_rule(guesses: list[str], hidden: list[str]) -> None:
    matrix = pattern_matrix(to_letters(guesses), to_letters(hidden))
    expected = [[slow_pattern(g, h) for h in hidden] for g in guesses]
    assert [[marks_of(code) for code in row] for row in matrix] == expected


def test_matrix_of_the_full_lists_equals_the_slow_rule_on_random_pairs() -> None:
    vocabulary = Vocabulary.full()
    rng = np.random.default_rng(0)
    size = 3000
    guesses = rng.integers(len(vocabulary.guesses), size=size)
    answers = rng.integers(len(vocabulary.answers), size=size)
    for g, a in zip(guesses, answers, strict=True):
        expected = slow_pattern(vocabulary.guesses[g], vocabulary.answers[a])
        assert marks_of(vocabulary.matrix[g, a]) == expected
    assert (vocabulary.matrix == ALL_GREEN).sum() == len(vocabulary.answers)


def test_only_the_word_itself_is_all_green() -> None:
    vocabulary = Vocabulary.small(200)
    assert ((vocabulary.matrix == ALL_GREEN) == np.eye(200, dtype=bool)).all()


def test_words_and_letters_are_inverse() -> None:
    assert [to_word(row) for row in to_letters(["crane", "zebra"])] == ["crane", "zebra"]
