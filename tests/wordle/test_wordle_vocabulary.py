import codecs
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agilerl.errors import ConfigError, DatasetError
from agilerl.wordle import vocabulary
from agilerl.wordle.vocabulary import (
    ALL_GREEN,
    COLOURS,
    WORDS_DIRECTORY,
    Vocabulary,
    pattern_matrix,
    to_letters,
    to_word,
)
from agilerl.wordle.words.build import build, is_inflected, main, read_offensive


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_full_lists_have_the_promised_sizes_and_answers_come_first() -> None:
    full = Vocabulary.full()
    assert 2000 <= len(full.answers) <= 2500
    assert 10_500 <= len(full.guesses) <= 11_500
    assert full.guesses[: len(full.answers)] == full.answers
    assert len(set(full.guesses)) == len(full.guesses)


def test_lists_have_no_offensive_word_and_come_with_the_copyright_notice() -> None:
    offensive = read_offensive(WORDS_DIRECTORY / "offensive.rot13")
    assert len(offensive) > 100
    assert not offensive & set(Vocabulary.full().guesses)
    assert "Kevin Atkinson" in (WORDS_DIRECTORY / "COPYRIGHT.scowl").read_text(encoding="utf-8")


def test_small_is_the_same_everywhere_and_nested() -> None:
    hundred = Vocabulary.small(100)
    assert len(hundred.answers) == 100
    assert hundred.guesses == hundred.answers
    assert hundred.answers == tuple(sorted(hundred.answers))
    assert set(Vocabulary.small(30).answers) < set(hundred.answers)
    assert hundred.digest == Vocabulary.small(100).digest != Vocabulary.small(99).digest


def test_a_subset_depends_on_the_words_not_on_their_order() -> None:
    words = Vocabulary.small(50).answers
    assert Vocabulary.of(words[::-1]).subset(10).answers == Vocabulary.of(words).subset(10).answers


@pytest.mark.parametrize("size", [0, 100_000, 2.5])
def test_a_subset_of_an_impossible_size_is_refused(size: object) -> None:
    with pytest.raises(ConfigError, match="words"):
        Vocabulary.small(size)  # type: ignore[arg-type]


def test_own_list_is_read_with_comments_blank_lines_and_capitals(tmp_path: Path) -> None:
    answers = write(tmp_path / "mine.txt", "# fruit\nApple\n\nmango # sweet\n")
    guesses = write(tmp_path / "more.txt", "lemon\napple\n")
    vocabulary = Vocabulary.from_file(answers, guesses)
    assert vocabulary.answers == ("apple", "mango")
    assert vocabulary.guesses == ("apple", "mango", "lemon")
    assert vocabulary.name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apple\nfig\nbanana\n", "'fig', 'banana'"),
        ("apple\nmang0\n", "'mang0'"),
        ("apple\nàpple\n", "'àpple'"),
        ("apple\nmango\napple\nAPPLE\n", "'apple' come more than once"),
        ("# nothing\n", "found none"),
    ],
)
def test_bad_words_of_an_own_list_are_listed(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "mine.txt", text)
    with pytest.raises(DatasetError, match=message) as error:
        Vocabulary.from_file(path)
    assert str(path) in str(error.value)


def test_many_bad_words_are_counted_not_all_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.txt", "\n".join("a" * n for n in range(6, 36)))
    with pytest.raises(DatasetError, match="and 20 more"):
        Vocabulary.from_file(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent\.txt"):
        Vocabulary.from_file(tmp_path / "absent.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="binary"):
        Vocabulary.from_file(tmp_path / "binary")


def test_a_list_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "mine.txt", "apple\nmango\n")
    assert len(Vocabulary.from_file(path).answers) == 2
    monkeypatch.setattr(vocabulary, "MAX_CHARACTERS", 11)
    with pytest.raises(DatasetError, match=r"mine\.txt: expected at most 11 characters"):
        Vocabulary.from_file(path)


def test_a_message_shows_the_beginning_of_a_long_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        Vocabulary.from_file(write(tmp_path / "mine.txt", "a" * 100_000))
    assert len(str(error.value)) < 500


def test_colours_that_would_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Vocabulary.of(["apple", "mango", "peach"])
    monkeypatch.setattr(vocabulary, "MAX_MATRIX", 8)
    with pytest.raises(ConfigError, match=r"3 guesses against 3 answers .*use fewer words"):
        _ = words.matrix
    assert words.subset(2).matrix.shape == (2, 2)


def test_guesses_must_begin_with_the_answers() -> None:
    with pytest.raises(ConfigError, match="begin with the answers"):
        Vocabulary(("apple",), ("mango", "apple"))


def test_indices_find_words_and_only_them() -> None:
    vocabulary = Vocabulary.small(100)
    assert (vocabulary.indices(vocabulary.letters) == np.arange(100)).all()
    assert vocabulary.indices(to_letters(["aaaaa", "zzzzz", "qqqqq"])).tolist() == [-1] * 3
    assert vocabulary.index(vocabulary.answers[7]) == 7
    assert [vocabulary.index(text) for text in ("", "toolong", "ABIDE", "éclat")] == [-1] * 4


@pytest.mark.parametrize(
    ("word", "inflected"),
    [
        *[(word, True) for word in ("boats", "boxes", "flies", "baked", "acted")],
        *[(word, False) for word in ("glass", "chaos", "shred", "apple")],
    ],
)
def test_inflected_forms_are_told_from_words_in_s_and_ed(word: str, inflected: bool) -> None:
    assert is_inflected(word, {"boat", "box", "fly", "bake", "act", "glas"}) == inflected


def fake_scowl(directory: Path) -> Path:
    for size in (10, 20, 35, 40, 50, 55, 60, 70, 80):
        write(directory / f"english-words.{size}", "")
    write(directory / "english-words.10", "boat\nboats\napple\nNames\nit's\nlonger\n")
    write(directory / "american-words.35", "color\nvulgr\n")
    write(directory / "english-words.80", "aahed\n")
    return directory


def test_build_takes_sizes_filters_and_both_dialects(tmp_path: Path) -> None:
    answers, guesses = build(fake_scowl(tmp_path), {"vulgr"})
    assert answers == ["apple", "color"]
    assert guesses == ["aahed", "apple", "boats", "color"]


def test_build_says_how_to_install_the_missing_lists(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="apt-get install scowl"):
        build(tmp_path, set())


def test_build_script_writes_lists_and_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notice = write(tmp_path / "notice", "Copyright\n")
    out = tmp_path / "out"
    out.mkdir()
    flags = ["--scowl", str(fake_scowl(tmp_path)), "--copyright", str(notice), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["build", *flags])
    main()
    assert (out / "guesses.txt").read_text() == "aahed\napple\nboats\ncolor\nvulgr\n"
    assert (out / "COPYRIGHT.scowl").read_text() == "Copyright\n"


def test_offensive_words_are_stored_out_of_sight(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "# comment\n" + codecs.encode("vulgr", "rot13") + "\n")
    assert read_offensive(path) == {"vulgr"}


# --------------------------------------------------------------------------------------- patterns

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
