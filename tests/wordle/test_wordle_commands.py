import time
from pathlib import Path

import numpy as np
import pytest

from agilerl.data.language_dataset import LanguageDataset
from agilerl.wordle import generate, play
from agilerl.wordle.environment import WordleEnvironment
from agilerl.wordle.play import show_game, show_keyboard, show_turn
from agilerl.wordle.policies import make_policy, play_with_rules
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import ILLEGAL, Vocabulary, pattern_matrix, to_letters

SMALL = Vocabulary.small(30)


def run(path: Path, *flags: str) -> int:
    return generate.main(["--out", str(path), "--quiet", "--games", "200", *flags])


def test_generate_writes_games_and_says_who_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "train.h5"
    assert run(path, "--words", "30", "--seed", "4", "--policy", "consistent:0.5,random:0.5") == 0
    dataset = LanguageDataset.from_file(path, WordleTokenizer())
    attributes = dataset.attributes
    assert attributes["policy"] == "consistent:0.5,random:0.5"
    assert attributes["seed"] == 4
    assert attributes["vocabulary"] == "full-30"
    assert attributes["vocabulary_digest"] == SMALL.digest
    assert attributes["games"] == len(dataset) == 200
    assert attributes["mean_reward"] == pytest.approx(dataset.games.returns.mean())
    assert 0 < attributes["win_rate"] <= 1
    printed = capsys.readouterr().out
    assert f"mean reward {attributes['mean_reward']:.3f}" in printed
    assert "30 answers, 30 guesses" in printed


def test_generate_repeats_from_one_seed(tmp_path: Path) -> None:
    tokens = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(tmp_path / name, "--words", "30", "--seed", seed) == 0
        tokens.append(LanguageDataset.from_file(tmp_path / name, WordleTokenizer()).games.tokens)
    assert (tokens[0] == tokens[1]).all()
    assert (tokens[0] != tokens[2]).any()


def test_generate_takes_an_own_list_and_a_format(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("apple\nmango\nlemon\n")
    (tmp_path / "more.txt").write_text("berry\n")
    flags = ["--vocabulary", str(tmp_path / "mine.txt"), "--guesses", str(tmp_path / "more.txt")]
    assert run(tmp_path / "t.h5", *flags, "--format", "plain") == 0
    dataset = LanguageDataset.from_file(tmp_path / "t.h5", WordleTokenizer("plain"))
    assert (dataset.attributes["answers"], dataset.attributes["guesses"]) == (3, 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--policy", "randm"], "Did you mean 'random'"),
        (["--words", "0"], "words: expected an integer >= 1"),
        (["--games", "0"], "games: expected an integer >= 1"),
        (["--vocabulary", "absent.txt"], "absent.txt"),
        (["--guesses", "more.txt"], "--vocabulary FILE"),
        (["--seed", "-1"], "seed: expected an integer >= 0"),
    ],
)
def test_generate_explains_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run(tmp_path / "t.h5", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "t.h5").exists()


def test_generate_says_so_when_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "t.h5", "--words", "20") == 2
    assert "can't be written" in capsys.readouterr().err


def test_progress_counts_every_game(capsys: pytest.CaptureFixture[str]) -> None:
    generate.generate(SMALL, "random", 150, seed=0, verbose=True)
    assert "150/150" in capsys.readouterr().err


def scripted(lines: list[str]) -> tuple[play.HumanPolicy, list[str]]:
    shown: list[str] = []
    left = iter(lines)
    return play.HumanPolicy(SMALL, lambda prompt: next(left), shown.append), shown


def test_a_person_wins_and_typing_errors_cost_nothing() -> None:
    hidden = SMALL.answers[3]
    env = WordleEnvironment(SMALL, hidden)
    human, shown = scripted(["abc", "qqqqq", SMALL.answers[0].upper(), "?", f" {hidden} "])
    assert play.play_game(env, human, shown.append)
    assert "3 letters, but 5 are needed" in shown[0]
    assert "QQQQQ is not in the word list" in shown[1]
    assert any("would tell most" in line for line in shown)
    assert shown[-1] == "Right, in 2!"


def test_a_person_who_loses_is_told_the_word() -> None:
    hidden = SMALL.answers[3]
    human, shown = scripted([SMALL.answers[0]] * 6)
    assert not play.play_game(WordleEnvironment(SMALL, hidden), human, shown.append)
    assert shown[-1] == f"Out of guesses. It was {hidden.upper()}."


def test_play_command_ends_politely(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", leave)
    assert play.main(["--words", "30"]) == 0
    printed = capsys.readouterr().out
    assert "30 words may be hidden" in printed
    assert printed.endswith("Goodbye.\n")
    assert play.main(["--words", "-3"]) == 2
    assert "words: expected an integer" in capsys.readouterr().err


def test_turns_are_shown_in_colour_or_with_marks() -> None:
    pattern = int(pattern_matrix(to_letters(["speed"]), to_letters(["erase"]))[0, 0])
    assert show_turn("speed", pattern, coloured=False) == "S? P- E? E? D-"
    coloured = show_turn("speed", pattern, coloured=True)
    assert coloured.count("\033[0m") == 5
    assert [coloured.count(code) for code in ("97;100m", "30;103m", "30;102m")] == [2, 3, 0]
    assert "not in the word list" in show_turn("qqqqq", ILLEGAL, coloured=False)


def test_keyboard_keeps_the_best_colour_of_each_letter() -> None:
    turns = [("speed", 0), ("qqqqq", ILLEGAL)]
    pattern = int(pattern_matrix(to_letters(["eerie"]), to_letters(["erase"]))[0, 0])
    shown = show_keyboard([("eerie", pattern), *turns], coloured=False).split(" ")
    assert shown[:5] == ["A", "B", "C", "D-", "E!"]
    assert "R?" in shown
    assert "Q" in shown
    assert len(shown) == 26


def test_a_whole_game_can_be_shown() -> None:
    games = play_with_rules(make_policy("information-gain", SMALL), SMALL, np.array([3, 4]))
    lines = show_game(games, 0, coloured=False).splitlines()
    assert len(lines) == games.turns[0] + 1
    word, turns = SMALL.answers[3].upper(), games.turns[0]
    assert lines[-1] == f"{word}: found in {turns}, reward {-(turns - 1)}"


@pytest.mark.slow
@pytest.mark.parametrize(("words", "seconds"), [(["--words", "1400"], 20.0), ([], 60.0)])
def test_100k_games_are_made_in_time(tmp_path: Path, words: list[str], seconds: float) -> None:
    start = time.perf_counter()
    flags = ["--out", str(tmp_path / "t.h5"), "--quiet", "--games", "100000"]
    assert generate.main([*flags, *words]) == 0
    assert time.perf_counter() - start < seconds


@pytest.mark.slow
def test_matrix_of_the_full_lists_is_made_in_time() -> None:
    vocabulary = Vocabulary.full()
    start = time.perf_counter()
    assert vocabulary.matrix.shape == (len(vocabulary.guesses), len(vocabulary.answers))
    assert time.perf_counter() - start < 10.0
