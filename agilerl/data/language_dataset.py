"""Token-level games: the batch that language agents learn from, and its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agilerl.data import hdf5
from agilerl.data.tokenizer import Tokenizer
from agilerl.errors import ConfigError, DatasetError, check_float, check_int
from agilerl.seeding import generator

#: Each field of a file: its kind of numbers and its dimensions.
FIELDS: Mapping[str, tuple[str, int]] = {
    "tokens": ("integers", 2),
    "lengths": ("integers", 1),
    "action_mask": ("booleans", 2),
    "rewards": ("floating-point numbers", 2),
    "terminals": ("booleans", 2),
}
#: The kinds of dtype that these are.
_KINDS = {"integers": "iu", "booleans": "b", "floating-point numbers": "f"}


@dataclass(frozen=True)
class TokenGames:
    """``B`` games (episodes) as tokens, padded on the right to ``T``.

    The token-level decision process: the state before token ``t`` is ``tokens[:t]``.  Where
    ``action_mask[t]`` is True the agent chose ``tokens[t]``; the environment wrote the others.
    An action of the environment (a word, say) is a run of action tokens; its reward, and the end
    of the episode, are on its last token.

    Attributes:
        tokens: Token ids ``[B, T]``, int64 in a batch; padding after the length.
        lengths: Number of tokens ``[B]``, int64.
        action_mask: ``[B, T]``, bool.
        rewards: ``[B, T]``, float32.
        terminals: ``[B, T]``, bool; at most one in a row.  A row without one was cut short.
    """

    tokens: npt.NDArray[np.integer]
    lengths: npt.NDArray[np.int64]
    action_mask: npt.NDArray[np.bool_]
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """Sum of rewards of each game ``[B]``."""
        return np.asarray(self.rewards.sum(axis=1, dtype=np.float64))

    def select(self, rows: npt.NDArray[np.generic] | slice) -> TokenGames:
        """Return the games of ``rows``, as they are stored."""
        return TokenGames(*(getattr(self, field.name)[rows] for field in fields(self)))

    def batch(self, rows: npt.NDArray[np.generic]) -> TokenGames:
        """Return the games of ``rows``, cut to the longest, with int64 tokens."""
        lengths = self.lengths[rows]
        width = int(lengths.max())
        return TokenGames(
            self.tokens[rows, :width].astype(np.int64),
            lengths,
            self.action_mask[rows, :width],
            self.rewards[rows, :width],
            self.terminals[rows, :width],
        )


def pack_games(
    games: Sequence[tuple[Sequence[int], Sequence[bool], Sequence[float], Sequence[bool]]],
    pad_id: int,
) -> TokenGames:
    """Return games given as (tokens, action_mask, rewards, terminals) lists, padded."""
    if not games:
        raise DatasetError("games: expected at least one game, got none.")
    lengths = np.array([len(game[0]) for game in games], dtype=np.int64)
    shape = (len(games), int(lengths.max()))
    packed = TokenGames(
        np.full(shape, pad_id, dtype=np.int64),
        lengths,
        np.zeros(shape, dtype=np.bool_),
        np.zeros(shape, dtype=np.float32),
        np.zeros(shape, dtype=np.bool_),
    )
    rows = (packed.tokens, packed.action_mask, packed.rewards, packed.terminals)
    for i, game in enumerate(games):
        for array, values in zip(rows, game, strict=True):
            array[i, : lengths[i]] = values
    return packed


def _first(bad: npt.NDArray[np.bool_]) -> str:
    return "[" + ", ".join(map(str, np.argwhere(bad)[0])) + "]"


def check_games(games: TokenGames, tokenizer: Tokenizer, where: str) -> None:
    """Raise ``DatasetError`` that names ``where``, the field and the first bad entry.

    Checks: token ids are known; lengths are 1 to T; padding is padding and carries no action,
    reward or end; every game has an action and at most one end; rewards are finite; rewards and
    ends are on action tokens, and action tokens are tokens an agent may choose.
    """
    tokens, lengths, mask = games.tokens, games.lengths, games.action_mask
    if not len(games):
        raise DatasetError(f"{where}: expected at least one game, found none.")
    width = tokens.shape[1]
    if lengths.min() < 1 or lengths.max() > width:
        raise DatasetError(
            f"{where}: lengths{_first((lengths < 1) | (lengths > width))}: expected 1 to {width}."
        )
    beyond = np.arange(width) >= lengths[:, None]
    checks = [
        ("tokens", (tokens < 0) | (tokens >= tokenizer.vocab_size), _known_ids(tokenizer)),
        ("tokens", beyond & (tokens != tokenizer.pad_id), "padding after the length"),
        ("action_mask", beyond & mask, "False after the length"),
        ("rewards", ~np.isfinite(games.rewards), "a finite number"),
        ("rewards", (games.rewards != 0) & ~mask, "0 where the token is not an action"),
        ("terminals", games.terminals & ~mask, "False where the token is not an action"),
    ]
    for field, bad, expected in checks:
        if bad.any():
            raise DatasetError(f"{where}: {field}{_first(bad)}: expected {expected}.")
    row_checks = [
        ("action_mask", ~mask.any(axis=1), "at least one action in each game"),
        ("terminals", games.terminals.sum(axis=1) > 1, "at most one end in each game"),
    ]
    forbidden = mask & ~tokenizer.action_tokens[tokens]
    row_checks.append(("action_mask", forbidden.any(axis=1), "only tokens an agent may choose"))
    for field, bad, expected in row_checks:
        if bad.any():
            raise DatasetError(f"{where}: {field}{_first(bad)}: expected {expected}.")


def _known_ids(tokenizer: Tokenizer) -> str:
    return f"ids in [0, {tokenizer.vocab_size}) of the tokenizer {tokenizer.name!r}"


def save_games(
    path: str | Path, games: TokenGames, tokenizer: Tokenizer, attributes: Mapping[str, Any]
) -> None:
    """Write games to an HDF5 file, under a temporary name that is renamed at the end.

    The tokenizer's name, the number of games and their mean reward are added to ``attributes``.
    """
    check_games(games, tokenizer, str(path))
    about = {
        **attributes,
        "tokenizer": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "games": len(games),
        "mean_reward": float(games.returns.mean()),
    }
    arrays = {name: getattr(games, name) for name in FIELDS}
    small = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    hdf5.write(path, {**arrays, "tokens": games.tokens.astype(small)}, about)


def _read_fields(path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the attributes of a file, all of it checked before any is read."""
    with hdf5.open_group(path, "agilerl.wordle.generate") as (where, file):
        names = hdf5.field_names(file)
        for name in FIELDS:
            if name not in names:
                found = ", ".join(sorted(names)) or "nothing"
                raise DatasetError(f"{where}: {name}: missing. The file has: {found}.")
        checked = {name: hdf5.checked_field(where, file, name) for name in FIELDS}
        _check_shapes(where, checked)
        attributes = hdf5.attributes(where, file)
        return {name: field[...] for name, field in checked.items()}, attributes


def _check_shapes(where: str, checked: Mapping[str, Any]) -> None:
    """Raise ``DatasetError`` if what the fields declare is not one table of games."""
    for name, field in checked.items():
        kind, dimensions = FIELDS[name]
        if field.dtype.kind not in _KINDS[kind]:
            raise DatasetError(f"{where}: {name}: expected {kind}, got {field.dtype}.")
        if len(field.shape) != dimensions:
            raise DatasetError(
                f"{where}: {name}: expected {dimensions} dimensions, got shape {field.shape}."
            )
    shapes = {name: field.shape for name, field in checked.items()}
    table = "; ".join(f"{name} {shape}" for name, shape in shapes.items())
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise DatasetError(f"{where}: fields have unequal numbers of games: {table}.")
    if len({shape for shape in shapes.values() if len(shape) == 2}) > 1:
        raise DatasetError(f"{where}: fields have unequal numbers of tokens: {table}.")
    if 0 in shapes["tokens"]:
        raise DatasetError(f"{where}: tokens: expected at least one game, got {table}.")
    total = sum(field.nbytes for field in checked.values())
    if total > hdf5.MAX_BYTES:
        raise DatasetError(f"{where}: {total} bytes; at most {hdf5.MAX_BYTES} are read. ({table})")


class LanguageDataset:
    """Games to learn from, in batches.

    Args:
        games: The games.
        tokenizer: The tokenizer they were made with.
        seed: Of the order of the batches and of the split.
        attributes: What is known about the games (seed, policy, vocabulary, ...).

    Raises:
        DatasetError: The games are not what ``TokenGames`` says.
    """

    def __init__(
        self,
        games: TokenGames,
        tokenizer: Tokenizer,
        seed: int | None = 0,
        attributes: Mapping[str, Any] | None = None,
        where: str = "games",
    ) -> None:
        check_games(games, tokenizer, where)
        self.games = games
        self.tokenizer = tokenizer
        self.attributes = dict(attributes or {})
        self._seed = seed
        self._where = where

    @classmethod
    def from_file(
        cls, path: str | Path, tokenizer: Tokenizer, seed: int | None = 0
    ) -> LanguageDataset:
        """Read a file that ``save_games`` wrote.

        Raises:
            DatasetError: The file can't be read, a field is missing or not what it should be, or
                the file was made with another tokenizer.
        """
        arrays, attributes = _read_fields(path)
        if attributes.get("tokenizer", tokenizer.name) != tokenizer.name:
            raise DatasetError(
                f"{path}: attribute 'tokenizer': expected {tokenizer.name!r}, "
                f"got {attributes['tokenizer']!r}. Choose that tokenizer or make the file again."
            )
        games = TokenGames(
            arrays["tokens"],
            arrays["lengths"].astype(np.int64),
            arrays["action_mask"].astype(np.bool_),
            arrays["rewards"].astype(np.float32),
            arrays["terminals"].astype(np.bool_),
        )
        return cls(games, tokenizer, seed, attributes, str(path))

    def __len__(self) -> int:
        return len(self.games)

    def split(self, eval_fraction: float = 0.05) -> tuple[LanguageDataset, LanguageDataset]:
        """Return (train, eval): a random split of the games, the same for the same seed."""
        fraction = check_float("eval_fraction", eval_fraction, 0.0, 1.0)
        count = round(len(self) * fraction)
        if not 0 < count < len(self):
            raise ConfigError(
                f"eval_fraction: {eval_fraction} leaves {len(self) - count} games to train on and "
                f"{count} to evaluate; both need at least one of the {len(self)}."
            )
        order = generator(self._seed, "split").permutation(len(self))
        train, held_out = np.sort(order[count:]), np.sort(order[:count])
        return self._part(train), self._part(held_out)

    def _part(self, rows: npt.NDArray[np.int64]) -> LanguageDataset:
        games = self.games.select(rows)
        return LanguageDataset(games, self.tokenizer, self._seed, self.attributes, self._where)

    def batches(
        self, batch_size: int, epoch: int = 0, skip: int = 0, reader: int = 0
    ) -> Iterator[TokenGames]:
        """Yield every game once, in random order; those of a batch are sorted by length.

        What is in a batch is left to chance.  To batch games by length would save padding, but
        where a game ends when it is won, games of one length have one return, and each step
        would pull all values towards that of its batch.  Sorted rows give the saving to an agent
        that splits a batch into micro-batches (``accumulate``).

        The order depends on the seed, on ``epoch`` and on ``reader`` alone, so a run that was
        stopped goes on where it was with ``skip``.

        Args:
            batch_size: Games in a batch; the last batch of an epoch may have fewer.
            epoch: Which order.
            skip: Number of batches to leave out at the beginning.
            reader: Who reads; each reader has orders of its own.
        """
        batch_size = check_int("batch_size", batch_size)
        check_int("epoch", epoch, minimum=0)
        others = (reader,) if check_int("reader", reader, minimum=0) else ()
        shuffled = generator(self._seed, "epoch", epoch, *others).permutation(len(self))
        for start in range(skip * batch_size, len(self), batch_size):
            rows = shuffled[start : start + batch_size]
            yield self.games.batch(rows[np.argsort(self.games.lengths[rows], kind="stable")])
