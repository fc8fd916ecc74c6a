import os
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import pytest

from agilerl.data import hdf5
from agilerl.data.language_dataset import (
    LanguageDataset,
    TokenGames,
    check_games,
    pack_games,
    save_games,
)
from agilerl.data.tokenizer import CharTokenizer
from agilerl.errors import ConfigError, DatasetError

TOKENIZER = CharTokenizer("abcdefghij<", "abcdefghij")
LETTERS = TOKENIZER.encode("abcdefghij")
REPLY = TOKENIZER.encode("<")[0]


def make_games(count: int = 50, seed: int = 0) -> TokenGames:
    """Game ``i`` spells ``i`` in its first tokens, so that games can be told apart."""
    rng = np.random.default_rng(seed)
    games = []
    for i in range(count):
        digits = [LETTERS[int(d)] for d in f"{i:03d}"]
        turns = int(rng.integers(1, 6))
        body = [*digits, REPLY] * turns
        size = len(body)
        tokens = [TOKENIZER.bos_id, *body, TOKENIZER.eos_id]
        mask = [False, *[True, True, True, False] * turns, False]
        rewards = [0.0, *[0.0, 0.0, -1.0, 0.0] * turns, 0.0]
        terminals = [False] * (size - 1) + [True] + [False, False]
        games.append((tokens, mask, rewards, terminals))
    return pack_games(games, TOKENIZER.pad_id)


def name_of(tokens: np.ndarray) -> int:
    return int("".join(str(LETTERS.index(t)) for t in tokens[1:4].tolist()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "games.h5"
    save_games(file, make_games(), TOKENIZER, {"seed": 3, "policy": "some"})
    return file


def test_a_file_gives_back_what_was_saved(path: Path) -> None:
    dataset, games = LanguageDataset.from_file(path, TOKENIZER), make_games()
    for field in ("tokens", "lengths", "action_mask", "rewards", "terminals"):
        assert (getattr(dataset.games, field) == getattr(games, field)).all()
    assert next(dataset.batches(4)).tokens.dtype == np.int64
    assert dataset.attributes == {
        "seed": 3,
        "policy": "some",
        "tokenizer": TOKENIZER.name,
        "vocab_size": TOKENIZER.vocab_size,
        "games": 50,
        "mean_reward": pytest.approx(games.returns.mean()),
    }


def test_an_epoch_has_every_game_once_and_batches_of_the_right_types() -> None:
    dataset = LanguageDataset(make_games(), TOKENIZER, seed=1)
    seen = []
    for batch in dataset.batches(8):
        assert batch.tokens.dtype == np.int64
        assert batch.rewards.dtype == np.float32
        assert batch.tokens.shape == batch.rewards.shape == (len(batch), batch.lengths.max())
        check_games(batch, TOKENIZER, "batch")
        seen += [name_of(row) for row in batch.tokens]
    assert sorted(seen) == list(range(50))


def test_what_is_in_a_batch_is_left_to_chance_and_its_rows_are_sorted_by_length() -> None:
    games = make_games(1000)
    means = []
    for batch in LanguageDataset(games, TOKENIZER, seed=1).batches(20):
        assert (np.diff(batch.lengths) >= 0).all()
        means.append(batch.returns.mean())
    expected = games.returns.std() / 20**0.5  # batches by length would have about the games' own
    assert np.std(means) == pytest.approx(expected, rel=0.25)


def test_parts_of_a_batch_need_little_padding() -> None:
    games = make_games(400)
    parts = plain = 0
    for batch in LanguageDataset(games, TOKENIZER, seed=1).batches(100):
        plain += batch.tokens.size - int(batch.lengths.sum())
        for rows in np.array_split(np.arange(len(batch)), 4):
            part = batch.batch(rows)
            parts += part.tokens.size - int(part.lengths.sum())
    assert parts < 0.4 * plain


def order(dataset: LanguageDataset, **kwargs: int) -> list[list[int]]:
    return [[name_of(row) for row in batch.tokens] for batch in dataset.batches(8, **kwargs)]


def test_order_depends_on_seed_epoch_and_reader_alone() -> None:
    first = LanguageDataset(make_games(), TOKENIZER, seed=1)
    second = LanguageDataset(make_games(), TOKENIZER, seed=1)
    other = LanguageDataset(make_games(), TOKENIZER, seed=2)
    assert order(first, epoch=3) == order(second, epoch=3)
    assert order(first, epoch=3) == order(first, epoch=3)
    assert order(first, epoch=0) != order(first, epoch=1)
    assert order(first) != order(other)
    assert order(first, reader=4) == order(second, reader=4)
    assert order(first, reader=4) != order(first)
    assert sorted(chain(*order(first, reader=4))) == sorted(chain(*order(first)))


def test_a_stopped_epoch_goes_on_where_it_was() -> None:
    dataset = LanguageDataset(make_games(), TOKENIZER, seed=1)
    assert order(dataset, epoch=2, skip=3) == order(dataset, epoch=2)[3:]


def test_split_deals_every_game_to_one_side_and_repeats() -> None:
    dataset = LanguageDataset(make_games(), TOKENIZER, seed=1)
    train, held_out = dataset.split(0.2)
    sides = [{name_of(row) for row in part.games.tokens} for part in (train, held_out)]
    assert (len(train), len(held_out)) == (40, 10)
    assert sides[0] | sides[1] == set(range(50))
    again = LanguageDataset(make_games(), TOKENIZER, seed=1).split(0.2)[1]
    assert (again.games.tokens == held_out.games.tokens).all()
    with pytest.raises(ConfigError, match="eval_fraction"):
        dataset.split(0.001)
    with pytest.raises(ConfigError, match="batch_size"):
        next(dataset.batches(0))


Change = tuple[str, tuple[int, ...], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tokens", (2, 1), TOKENIZER.vocab_size), r"tokens\[2, 1\]: expected ids in \[0, 14\)"),
        (("tokens", (2, 1), -1), r"tokens\[2, 1\]: expected ids"),
        (("tokens", (2, -1), 5), r"tokens\[2, 21\]: expected padding"),
        (("tokens", (2, 1), REPLY), r"action_mask\[2\]: expected only tokens an agent may choose"),
        (("lengths", (4,), 0), r"lengths\[4\]: expected 1 to 22"),
        (("lengths", (4,), 23), r"lengths\[4\]: expected 1 to 22"),
        (("action_mask", (2, -1), True), r"action_mask\[2, 21\]: expected False"),
        (("rewards", (1, 3), np.nan), r"rewards\[1, 3\]: expected a finite"),
        (("rewards", (1, 4), 1.0), r"rewards\[1, 4\]: expected 0"),
        (("terminals", (1, 4), True), r"terminals\[1, 4\]: expected False"),
        (("terminals", (1, 1), True), r"terminals\[1\]: expected at most one"),
    ],
)
def test_bad_entries_are_named(change: Change, message: str) -> None:
    games = make_games()
    short = int(np.argmin(games.lengths))
    order = np.argsort(np.arange(50) != short)  # a game with padding comes third
    order[[0, 2]] = order[[2, 0]]
    games = games.select(order)
    field, at, value = change
    getattr(games, field)[at] = value
    with pytest.raises(DatasetError, match=message) as error:
        LanguageDataset(games, TOKENIZER, where="here.h5")
    assert "here.h5" in str(error.value)


def test_a_game_without_actions_and_no_games_are_refused() -> None:
    games = make_games()
    games.action_mask[3] = False
    games.rewards[3] = 0
    games.terminals[3] = False
    with pytest.raises(DatasetError, match=r"action_mask\[3\]: expected at least one action"):
        LanguageDataset(games, TOKENIZER)
    with pytest.raises(DatasetError, match="at least one game"):
        LanguageDataset(make_games().select(slice(0, 0)), TOKENIZER)
    with pytest.raises(DatasetError, match="at least one game"):
        pack_games([], 0)


def replace(file: h5py.File, field: str, **kwargs: object) -> None:
    del file[field]
    file.create_dataset(field, **kwargs)


def link_out(file: h5py.File) -> None:
    del file["rewards"]
    file["rewards"] = h5py.ExternalLink("other.h5", "rewards")


def link_soft(file: h5py.File) -> None:
    file["copy"] = file["rewards"]
    del file["rewards"]
    file["rewards"] = h5py.SoftLink("/copy")


def make_virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((50, 22), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "rewards", (50, 22))
    del file["rewards"]
    file.create_virtual_dataset("rewards", layout)


def make_group(file: h5py.File) -> None:
    del file["rewards"]
    file.create_group("rewards")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.__delitem__("rewards"), "rewards: missing. The file has: action_mask, len"),
        (link_out, "rewards: it links elsewhere"),
        (link_soft, "rewards: it links elsewhere"),
        (make_virtual, "rewards: its values are in other files"),
        (make_group, "rewards: expected an array, got Group"),
        (
            lambda f: replace(f, "rewards", shape=(50, 22), dtype="f4", external="raw.bin"),
            "rewards: its values are in other files",
        ),
        (
            lambda f: replace(f, "tokens", data=[["a"] * 22] * 50, dtype=h5py.string_dtype()),
            "tokens: expected integers, got object",
        ),
        (lambda f: replace(f, "tokens", data=np.ones((50, 22))), "tokens: expected integers"),
        (lambda f: replace(f, "rewards", data=np.ones((50, 22), int)), "rewards: expected float"),
        (lambda f: replace(f, "lengths", data=np.ones((50, 1), int)), "lengths: expected 1 dim"),
        (lambda f: replace(f, "lengths", data=np.ones(49, int)), r"unequal.*lengths \(49,\)"),
        (
            lambda f: replace(f, "rewards", data=np.ones((50, 21))),
            r"unequal numbers of tokens.*rewards \(50, 21\)",
        ),
        (
            lambda f: replace(f, "rewards", shape=(10**9, 22), dtype="f4", chunks=(1, 22)),
            "rewards: declares 88,000,000,000 bytes",
        ),
    ],
)
def test_a_damaged_or_forged_file_is_refused_before_it_is_read(
    path: Path, damage: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(DatasetError, match=message) as error:
        LanguageDataset.from_file(path, TOKENIZER)
    assert str(path) in str(error.value)


def test_a_file_larger_than_the_limit_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "MAX_BYTES", 1000)
    with pytest.raises(DatasetError, match="at most 1000"):
        LanguageDataset.from_file(path, TOKENIZER)


def test_files_that_are_not_hdf5_are_refused(tmp_path: Path, path: Path) -> None:
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:2000])
    messages = {"text": "expected an HDF5 file", "empty": "is empty", "cut": "can't be read"}
    for name, message in messages.items():
        with pytest.raises(DatasetError, match=rf"{name}\.h5: .*{message}"):
            LanguageDataset.from_file(tmp_path / f"{name}.h5", TOKENIZER)
    with pytest.raises(DatasetError, match=r"absent\.h5: there is no such file.*wordle\.generate"):
        LanguageDataset.from_file(tmp_path / "absent.h5", TOKENIZER)


def test_a_file_that_another_process_writes_is_refused(path: Path) -> None:
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print('open', flush=True); input()"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == b"open"
        with pytest.raises(DatasetError, match="another process holds the file"):
            LanguageDataset.from_file(path, TOKENIZER)
    finally:
        writer.communicate(b"\n")
    assert len(LanguageDataset.from_file(path, TOKENIZER)) == 50


def test_a_file_of_another_tokenizer_is_refused(path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected 'char:xyz', got 'char:abcdefghij<'"):
        LanguageDataset.from_file(path, CharTokenizer("xyz"))


def test_a_failed_write_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_games(path, make_games(10), TOKENIZER, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_bad_games_are_not_written(tmp_path: Path) -> None:
    games = make_games()
    games.rewards[0, 3] = np.inf
    with pytest.raises(DatasetError, match="rewards"):
        save_games(tmp_path / "bad.h5", games, TOKENIZER, {})
    assert not list(tmp_path.iterdir())
