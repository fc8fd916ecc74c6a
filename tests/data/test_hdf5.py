"""HDF5 files that deceive or are damaged: refused, without memory taken or an endless loop."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from agilerl.data import hdf5
from agilerl.data.language_dataset import LanguageDataset, TokenGames, pack_games, save_games
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.data.tokenizer import CharTokenizer
from agilerl.errors import DatasetError
from tests.data.offline_cases import ROWS, equal, good, without, write

TOKENIZER = CharTokenizer("ab")
SEED = 0x1234567


def external_link(file: h5py.File, tmp_path: Path) -> None:
    write(tmp_path / "other.h5", good())
    file["observations"] = h5py.ExternalLink("other.h5", "/observations")


def soft_link(file: h5py.File, tmp_path: Path) -> None:
    write(tmp_path / "other.h5", good())
    file["elsewhere"] = h5py.ExternalLink("other.h5", "/")
    file["observations"] = h5py.SoftLink("/elsewhere/observations")


def external_storage(file: h5py.File, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(ROWS * 16))
    outside = [(str(secret), 0, ROWS * 16)]
    file.create_dataset("observations", (ROWS, 4), "f4", external=outside)


def virtual(file: h5py.File, tmp_path: Path) -> None:
    write(tmp_path / "other.h5", good())
    layout = h5py.VirtualLayout((ROWS, 4), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "observations", (ROWS, 4), "f4")
    file.create_virtual_dataset("observations", layout)


def group(file: h5py.File, tmp_path: Path) -> None:
    file.create_group("observations")


def python_objects(file: h5py.File, tmp_path: Path) -> None:
    file.create_dataset("observations", data=["text"] * ROWS, dtype=h5py.string_dtype())


def ragged(file: h5py.File, tmp_path: Path) -> None:
    rows = file.create_dataset("observations", (ROWS,), h5py.vlen_dtype(np.float32))
    rows[0] = [1.0, 2.0]


def no_values(file: h5py.File, tmp_path: Path) -> None:
    file.create_dataset("observations", data=h5py.Empty("f4"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "links elsewhere"),
        (soft_link, "links elsewhere"),
        (external_storage, "in other files"),
        (virtual, "in other files"),
        (group, "expected an array, got Group"),
        (python_objects, "expected numbers"),
        (ragged, "expected numbers"),
        (no_values, "no values"),
    ],
)
def test_a_column_that_is_not_numbers_in_the_file_is_refused(
    make: Callable[[h5py.File, Path], None], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "bad.h5", without("observations"))
    with h5py.File(path, "a") as file:
        make(file, tmp_path)
    with pytest.raises(DatasetError, match=f"observations: .*{message}") as error:
        OfflineDataset.from_hdf5(path)
    assert str(path) in str(error.value)


def declared(path: Path, rows: int, **options: Any) -> Path:
    """Write a file whose columns declare ``rows`` rows and store next to nothing."""
    with h5py.File(path, "w") as file:
        for name, width in (("observations", (8,)), ("actions", ()), ("rewards", ())):
            file.create_dataset(name, (rows, *width), "f4", **options)
        file.create_dataset("terminals", (rows,), "?", **options)
    return path


@pytest.mark.parametrize("options", [{}, {"chunks": True}, {"compression": "gzip"}])
def test_sizes_that_are_not_stored_are_refused_before_memory_is_taken(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = declared(tmp_path / "bad.h5", 10**11, **options)
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"observations: declares .* bytes"):
        OfflineDataset.from_hdf5(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_few_unstored_rows_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="declares"):
        OfflineDataset.from_hdf5(declared(tmp_path / "bad.h5", 20))


@pytest.mark.parametrize("options", [{}, {"chunks": True}])
def test_flags_that_were_never_written_are_never_set(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "good.h5", without("timeouts"))
    expected = OfflineDataset.from_hdf5(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("timeouts", (len(file["rewards"]),), bool, **options)
    dataset = OfflineDataset.from_hdf5(path)
    assert np.array_equal(dataset.terminated, expected.terminated)
    assert len(dataset) == len(expected)


def test_chunks_far_larger_than_the_data_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.h5", without("rewards"))
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "rewards", (ROWS,), "f4", maxshape=(None,), chunks=(2**28,), compression="gzip"
        )
        file["rewards"].id.write_direct_chunk((0,), b"\0" * 1000)
    with pytest.raises(DatasetError, match="rewards: declares chunks"):
        OfflineDataset.from_hdf5(path)


def test_more_than_the_limit_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.h5", good())
    with pytest.raises(DatasetError, match=r"observations: 12 rows would take.*max_bytes"):
        OfflineDataset.from_hdf5(path, max_bytes=500)
    assert len(OfflineDataset.from_hdf5(path, max_bytes=1000)) == ROWS
    assert hdf5.MAX_BYTES == 8 * 2**30


def test_only_plain_attributes_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", good())
    with h5py.File(path, "a") as file:
        file.attrs["env_id"] = "CartPole-v1"
        file.attrs["bytes"] = np.bytes_(b"text")
        file.attrs["seed"] = 5
        file.attrs["array"] = np.arange(3)
        file.attrs["file"] = file.ref
    expected = {"env_id": "CartPole-v1", "bytes": "text", "seed": 5}
    assert OfflineDataset.from_hdf5(path).attributes == expected


# ------------------------------------------------------------------------------------------ bombs


def games() -> TokenGames:
    rng = np.random.default_rng(0)
    rows = []
    for length in rng.integers(2, 9, 40).tolist():
        letters = [0, *rng.integers(3, 5, length).tolist()]
        rewards = [0.0, *rng.normal(size=length).tolist()]
        mask = [False] + [True] * length
        rows.append((letters, mask, rewards, [False] * length + [True]))
    return pack_games(rows, 0)


def language_file(path: Path) -> Path:
    save_games(path, games(), TOKENIZER, {"seed": SEED, "policy": "some"})
    return path


def offline_file(path: Path) -> Path:
    OfflineDataset.from_dict(good(), attributes={"env_id": "Some-v0", "seed": SEED}).save(path)
    return path


def read_offline(path: Path) -> OfflineDataset:
    return OfflineDataset.from_hdf5(path)


def read_language(path: Path) -> LanguageDataset:
    return LanguageDataset.from_file(path, TOKENIZER)


BOTH = pytest.mark.parametrize(
    ("make", "read"), [(offline_file, read_offline), (language_file, read_language)]
)


def replace_rewards(path: Path, rows: int, **options: Any) -> float:
    """Store ``rows`` rows of ones as the rewards, of the shape that they had."""
    with h5py.File(path, "a") as file:
        values = np.ones((rows, *file["rewards"].shape[1:]), np.float32)
        del file["rewards"]
        rewards = file.create_dataset("rewards", data=values, **options)
        return rewards.nbytes / rewards.id.get_storage_size()


@BOTH
def test_constants_that_pack_beyond_the_ratio_are_refused_if_they_are_large(
    make: Callable[[Path], Path],
    read: Callable[[Path], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make(tmp_path / "a.h5")
    assert replace_rewards(path, 2**20, compression="gzip") > hdf5.MAX_RATIO
    lengths = r"same number of rows|unequal numbers of games"
    with pytest.raises(DatasetError, match=lengths):
        read(path)  # it is not large
    monkeypatch.setattr(hdf5, "LARGE", 2**21)
    message = r"rewards: declares .* less than one in 500.*without compression"
    with pytest.raises(DatasetError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    replace_rewards(path, 2**20)  # as the message says
    with pytest.raises(DatasetError, match=lengths):
        read(path)


def test_what_packs_well_and_is_honest_is_read(tmp_path: Path) -> None:
    rows = 2**20
    data = {
        "observations": np.zeros((rows, 1), np.float32),
        "actions": np.zeros(rows, np.int64),
        "rewards": np.ones(rows, np.float32),
        "terminals": np.arange(rows) % 500 == 499,
    }
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file.create_dataset(name, data=values, compression="gzip", shuffle=True)
    assert len(OfflineDataset.from_hdf5(path)) == rows - 1


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which no field may be read, nor much memory taken."""
    monkeypatch.setattr(hdf5, "UNCHECKED_CHUNK", 2**10)

    @contextmanager
    def watch() -> Iterator[None]:
        monkeypatch.setattr(h5py.Dataset, "__getitem__", None)
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()

    return watch


@BOTH
def test_a_chunk_that_unpacks_to_more_than_it_declares_is_refused(
    make: Callable[[Path], Path],
    read: Callable[[Path], Any],
    tmp_path: Path,
    little_memory: Callable[[], AbstractContextManager[None]],
) -> None:
    path = make(tmp_path / "a.h5")
    replace_rewards(path, 64, compression="gzip", fletcher32=True)
    with h5py.File(path, "a") as file:
        rewards = file["rewards"].id
        rewards.write_direct_chunk((0,) * rewards.rank, zlib.compress(bytes(2**23), 9) + b"sums")
    message = r"rewards: the chunk at .* is not of the"
    with little_memory(), pytest.raises(DatasetError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


@BOTH
def test_a_chunk_too_short_for_its_checksum_is_refused(
    make: Callable[[Path], Path],
    read: Callable[[Path], Any],
    tmp_path: Path,
    little_memory: Callable[[], AbstractContextManager[None]],
) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        rewards = file["rewards"].id
        rewards.write_direct_chunk((0,) * rewards.rank, b"sum")
    message = r"rewards: the chunk at .* is not of the"
    with little_memory(), pytest.raises(DatasetError, match=message):
        read(path)


def test_large_packed_chunks_that_are_honest_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "UNCHECKED_CHUNK", 2**10)
    data = good()
    data["observations"] = np.random.default_rng(0).random((ROWS, 2000)).astype(np.float32)
    expected = OfflineDataset.from_dict(data)
    for options in ({}, {"shuffle": True}, {"fletcher32": True}):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            for name, values in data.items():
                file.create_dataset(name, data=values, compression="gzip", **options)
        assert equal(OfflineDataset.from_hdf5(path), expected)


def test_a_field_that_is_packed_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", without("rewards"))
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((ROWS,))
    settings.set_deflate(9)
    settings.set_filter(h5py.h5z.FILTER_LZF)
    with h5py.File(path, "a") as file:
        space = h5py.h5s.create_simple((ROWS,))
        h5py.h5d.create(file.id, b"rewards", h5py.h5t.NATIVE_FLOAT, space, settings)
        file["rewards"][...] = 1.0
    with pytest.raises(DatasetError, match="rewards: packed more than once"):
        OfflineDataset.from_hdf5(path)


# ----------------------------------------------------------------------------------------- damage


@BOTH
def test_no_flipped_bit_in_a_file_of_ours_goes_unnoticed(
    make: Callable[[Path], Path], read: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = make(tmp_path / "a.h5")
    content, expected = path.read_bytes(), read(path)
    names = list(expected.games.__dict__ if read is read_language else good())
    with h5py.File(path, "r") as file:
        fields = [file[name] for name in names if name in file]
        chunks = [field.id.get_chunk_info(0) for field in fields]
    for chunk in chunks:
        for at in range(0, chunk.size, max(1, chunk.size // 8)):
            damaged = bytearray(content)
            damaged[chunk.byte_offset + at] ^= 1 << at % 8
            path.write_bytes(damaged)
            with pytest.raises(DatasetError, match="can't be read"):
                read(path)
    rng = np.random.default_rng(0)
    for at in rng.integers(len(content), size=60):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            got = read(path)
        except DatasetError:
            continue
        if read is read_offline:
            assert equal(got, expected)
        else:
            for name in names:
                assert np.array_equal(getattr(got.games, name), getattr(expected.games, name))


@BOTH
def test_a_flipped_bit_in_an_attribute_of_a_file_of_ours_is_noticed(
    make: Callable[[Path], Path], read: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = make(tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    content[content.index(SEED.to_bytes(8, "little"))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="can't be read"):
        read(path)


def test_a_damaged_file_of_others_is_a_data_set_error_or_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", good())
    with h5py.File(path, "a") as file:
        file.attrs["env_id"] = "Some-v0"
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        for at in rng.integers(len(content), size=4):
            damaged[at] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            OfflineDataset.from_hdf5(path)
        except DatasetError:
            refused += 1
    assert refused > 5


def test_names_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", good())
    path.write_bytes(path.read_bytes().replace(b"rewards", b"rew\xffrds"))
    with pytest.raises(
        DatasetError, match=r"rewards: missing.*There are: 'actions', 'observations'"
    ):
        OfflineDataset.from_hdf5(path)


@pytest.mark.parametrize(
    "forged",
    [
        (0, 0),  # free space of no size: HDF5 would go round forever
        (1, 2**64 - 16),  # the sum of header and size is 0
        (1, 2**20),  # beyond the end
    ],
)
@BOTH
def test_a_heap_that_hdf5_would_never_leave_is_refused(
    make: Callable[[Path], Path],
    read: Callable[[Path], Any],
    forged: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make(tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    first = content.index(b"GCOL") + 16
    index, size = forged
    content[first : first + 2] = index.to_bytes(2, "little")
    content[first + 8 : first + 16] = size.to_bytes(8, "little")
    path.write_bytes(content)
    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", lambda *_: 0)  # HDF5 would not end
    with pytest.raises(DatasetError, match=r"attributes: the heap at byte .* is damaged") as error:
        read(path)
    assert str(path) in str(error.value)
