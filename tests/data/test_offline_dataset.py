"""Offline data sets: which transitions come out of which columns."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.data import offline_dataset
from agilerl.data.episodes import at_time_limit
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import ConfigError, DatasetError

Array = np.ndarray[Any, np.dtype[Any]]
FIELDS = ["state", "action", "reward", "next_state", "done"]

#: Lengths of the hand-made episodes, and how they end: by themselves, at a time limit, not at all.
EPISODES = ((3, "terminal"), (1, "terminal"), (4, "timeout"), (2, "terminal"), (1, "timeout"))
UNFINISHED = (*EPISODES, (2, "unfinished"))


def scripted(episodes: Any = UNFINISHED, next_observations: bool = False) -> dict[str, Array]:
    """Return columns whose observations say where they are: [episode, time]."""
    columns: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "rewards")}
    following, terminals, timeouts = [], [], []
    for episode, (length, end) in enumerate(episodes):
        for time in range(length):
            last = time == length - 1
            columns["observations"].append((episode, time))
            columns["actions"].append(time % 2)
            columns["rewards"].append(10.0 * episode + time)
            following.append((episode, time + 1))
            terminals.append(last and end == "terminal")
            timeouts.append(last and end == "timeout")
    data = {
        "observations": np.array(columns["observations"], np.float32),
        "actions": np.array(columns["actions"]),
        "rewards": np.array(columns["rewards"], np.float32),
        "terminals": np.array(terminals),
        "timeouts": np.array(timeouts),
    }
    if next_observations:
        data["next_observations"] = np.array(following, np.float32)
    return data


def wrong_rows(dataset: OfflineDataset, episodes: Any = UNFINISHED) -> int:
    """Count the transitions that are not what ``scripted`` says."""
    wrong = 0
    for i in range(len(dataset)):
        episode, time = (int(x) for x in dataset.observations[i])
        length, end = episodes[episode]
        done = end == "terminal" and time == length - 1
        successor = dataset.next_observations[i].tolist()
        expected = (
            dataset.actions[i] == time % 2,
            dataset.rewards[i] == 10 * episode + time,
            dataset.terminated[i] == done,
            successor == [episode, time + 1] or done,
        )
        wrong += not all(expected)
    return wrong


def save(path: Path, data: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file.create_dataset(name, data=values, **options)
    return path


def equal(a: OfflineDataset, b: OfflineDataset) -> bool:
    names = [f.name for f in dataclasses.fields(a) if f.name not in ("report", "attributes")]
    return all(
        getattr(a, n).dtype == getattr(b, n).dtype and np.array_equal(getattr(a, n), getattr(b, n))
        for n in names
    )


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read few rows at once, so that every border between pieces is met."""
    monkeypatch.setattr("agilerl.data.read_columns.PIECE", 16)


# ------------------------------------------------------------------------------- the transitions


def test_a_row_cut_by_a_time_limit_is_dropped_where_its_successor_is_unknown(
    tmp_path: Path, small_pieces: None
) -> None:
    dataset = OfflineDataset.from_hdf5(save(tmp_path / "a.h5", scripted()))
    assert wrong_rows(dataset) == 0
    assert len(dataset) == 13 - 3
    assert dataset.terminated.sum() == 3
    assert list(dataset.report.dropped.values()) == [2, 1]


def test_every_row_is_kept_where_next_observations_are_given(
    tmp_path: Path, small_pieces: None
) -> None:
    path = save(tmp_path / "a.h5", scripted(next_observations=True))
    dataset = OfflineDataset.from_hdf5(path)
    assert wrong_rows(dataset) == 0
    assert len(dataset) == 13
    assert dataset.report.dropped == {}
    cut = [3 + 1 + 3, 3 + 1 + 4 + 2]
    assert dataset.next_observations[cut].tolist() == [[2, 4], [4, 1]]
    assert not dataset.terminated[cut].any()
    assert dataset.ended[cut].all()


def test_a_terminal_row_counts_only_where_episode_terminals_is_set_too() -> None:
    data = scripted()
    data["episode_terminals"] = data["terminals"] | data.pop("timeouts")
    before = np.roll(data["terminals"], -1)
    before[-1] = False
    data["terminals"] = data["terminals"] | before  # public files flag the row before as well
    dataset = OfflineDataset.from_dict(data)
    assert wrong_rows(dataset) == 0
    assert len(dataset) == 10
    assert "terminal flags ignored" in str(dataset.report)
    assert dataset.report.episodes == 5


def test_episodes_that_only_ever_time_out_are_not_joined() -> None:
    episodes = tuple((5, "timeout") for _ in range(500))
    data = scripted(episodes)
    data["episode_terminals"] = data.pop("timeouts")
    dataset = OfflineDataset.from_dict(data)
    assert wrong_rows(dataset, episodes) == 0
    assert len(dataset) == 500 * 4
    assert not dataset.terminated.any()


def test_both_flags_on_a_row_mean_that_it_terminated() -> None:
    data = scripted(EPISODES)
    data["timeouts"] = data["timeouts"] | data["terminals"]
    dataset = OfflineDataset.from_dict(data)
    assert dataset.terminated.sum() == 3
    assert wrong_rows(dataset) == 0


def test_dones_of_the_old_convention_do_not_cut_the_bootstrap_at_a_time_limit() -> None:
    data = scripted(EPISODES)
    data["dones"] = data.pop("terminals") | data["timeouts"]
    dataset = OfflineDataset.from_dict(data)
    assert dataset.terminated.sum() == 3
    assert wrong_rows(dataset) == 0


def test_a_time_limit_that_no_column_marks_is_counted_out() -> None:
    episodes = ((4, "timeout"), (2, "terminal"), (4, "timeout"), (4, "timeout"), (3, "terminal"))
    data = scripted(episodes)
    del data["timeouts"]
    dataset = OfflineDataset.from_dict(data, max_episode_steps=4)
    assert wrong_rows(dataset, episodes) == 0
    assert dataset.report.dropped == {"cut by a time limit, next observation unknown": 3}


@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=8),
    st.integers(6, 6),
)
@settings(max_examples=60, deadline=None)
def test_the_time_limit_is_found_for_any_episodes(
    episodes: list[tuple[int, bool]], limit: int
) -> None:
    lengths = [length if terminates else limit for length, terminates in episodes]
    terminal_rows = np.cumsum(lengths) - 1
    terminated = np.zeros(sum(lengths), bool)
    terminated[terminal_rows[[t for _, t in episodes]]] = True
    cut = at_time_limit(terminated, limit)
    expected = np.zeros_like(terminated)
    expected[terminal_rows[[not t for _, t in episodes]]] = True
    assert (cut & ~terminated == expected).all()


@given(
    st.lists(
        st.tuples(st.integers(1, 7), st.sampled_from(["terminal", "timeout"])),
        min_size=2,
        max_size=12,
    ),
    st.booleans(),
    st.integers(8, 80),
)
@settings(max_examples=80, deadline=None)
def test_no_transition_is_ever_wrong(
    episodes: list[tuple[int, str]], next_observations: bool, piece: int
) -> None:
    data = scripted(episodes, next_observations)
    rows = len(data["rewards"])
    lost = 0 if next_observations else sum(end == "timeout" for _, end in episodes)
    if lost == rows:
        with pytest.raises(DatasetError, match="whole transition"):
            OfflineDataset.from_dict(data)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agilerl.data.read_columns.PIECE", piece)
        dataset = OfflineDataset.from_dict(data)
    assert wrong_rows(dataset, episodes) == 0
    assert len(dataset) == rows - lost
    returns = [sum(10 * e + t for t in range(n)) for e, (n, _) in enumerate(episodes)]
    assert dataset.report.mean_return == pytest.approx(np.mean(returns))


# ------------------------------------------------------------------------------------- the report


def test_the_mean_return_is_that_of_whole_episodes() -> None:
    dataset = OfflineDataset.from_dict(scripted())
    expected = [0 + 1 + 2, 10, 20 + 21 + 22 + 23, 30 + 31, 40]
    assert dataset.report.episodes == 5
    assert dataset.report.mean_return == pytest.approx(np.mean(expected))


def test_unmarked_time_limits_are_found_in_next_observations(small_pieces: None) -> None:
    data = scripted(EPISODES, next_observations=True)
    del data["timeouts"]
    report = OfflineDataset.from_dict(data).report
    assert report.episodes == 4  # what comes last does not end
    assert report.mean_return == pytest.approx(np.mean([3, 10, 86, 61]))
    assert "1 unmarked ends" in str(report)


def test_returns_are_unknown_where_rows_are_shuffled() -> None:
    episodes = tuple((9, "terminal") for _ in range(20))
    data = scripted(episodes, next_observations=True)
    del data["timeouts"]
    order = np.random.default_rng(0).permutation(len(data["rewards"]))
    dataset = OfflineDataset.from_dict({name: rows[order] for name, rows in data.items()})
    assert wrong_rows(dataset, episodes) == 0
    assert dataset.report.mean_return is None
    assert "order of time" in str(dataset.report)


def test_the_report_is_one_line_that_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", scripted())
    line = str(OfflineDataset.from_hdf5(path).report)
    assert "\n" not in line
    assert f"{path}: 10 of 13 rows kept" in line
    assert "2 dropped: cut by a time limit" in line
    assert "1 dropped: last row" in line


# ------------------------------------------------------------------------------------ the sources


@pytest.mark.parametrize("options", [{}, {"chunks": (4,)}, {"compression": "gzip"}])
def test_the_same_data_comes_from_a_path_an_open_file_and_a_dict(
    tmp_path: Path, options: dict[str, Any], small_pieces: None
) -> None:
    data = scripted()
    if "chunks" in options:
        data = {name: rows for name, rows in data.items() if name != "observations"}
    path = save(tmp_path / "a.h5", data, **options)
    if "chunks" in options:
        with h5py.File(path, "a") as file:
            file.create_dataset("observations", data=scripted()["observations"], chunks=(3, 1))
    expected = OfflineDataset.from_dict(scripted())
    assert equal(OfflineDataset.from_hdf5(path), expected)
    assert equal(OfflineDataset.from_hdf5(str(path)), expected)
    with h5py.File(path, "r") as file:
        assert equal(OfflineDataset.from_hdf5(file), expected)
        assert file["rewards"].shape == (13,)  # it is still open


def test_common_names_are_understood() -> None:
    plain = scripted(EPISODES, next_observations=True)
    names = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
    other = dict(zip(names, plain.values(), strict=True))
    assert equal(OfflineDataset.from_dict(other), OfflineDataset.from_dict(plain))


def test_columns_of_one_number_may_have_a_second_axis() -> None:
    data = scripted()
    tall = {k: v[:, None] if v.ndim == 1 else v for k, v in data.items()}
    assert equal(OfflineDataset.from_dict(tall), OfflineDataset.from_dict(data))


def test_images_stay_uint8_and_float64_becomes_float32() -> None:
    data = scripted()
    data["observations"] = np.zeros((13, 4, 5, 3), np.uint8)
    assert OfflineDataset.from_dict(data).observations.dtype == np.uint8
    data["observations"] = np.zeros((13, 2), np.float64)
    assert OfflineDataset.from_dict(data).observations.dtype == np.float32


def test_continuous_actions_of_one_number_are_rows_of_one() -> None:
    data = scripted()
    data["actions"] = np.linspace(-1, 1, 13)
    assert OfflineDataset.from_dict(data).actions.shape == (10, 1)


@pytest.mark.parametrize("next_observations", [True, False])
def test_what_is_saved_comes_back(tmp_path: Path, next_observations: bool) -> None:
    data = scripted(next_observations=next_observations)
    dataset = OfflineDataset.from_dict(data, attributes={"env_id": "Scripted-v0", "seed": 3})
    path = tmp_path / "new" / "a.h5"
    dataset.save(path, policy="script")
    again = OfflineDataset.from_hdf5(path)
    assert equal(again, dataset)
    assert again.attributes == {"env_id": "Scripted-v0", "seed": 3, "policy": "script"}


def test_the_readme_loop_reads_what_is_saved(tmp_path: Path) -> None:
    episodes = tuple((4, "terminal") for _ in range(6))
    OfflineDataset.from_dict(scripted(episodes)).save(tmp_path / "a.h5")
    memory = ReplayBuffer(2, 100, FIELDS)
    with h5py.File(tmp_path / "a.h5", "r") as dataset:
        for i in range(dataset["rewards"].shape[0] - 1):
            memory.save2memory(
                dataset["observations"][i],
                dataset["actions"][i],
                dataset["rewards"][i],
                dataset["observations"][i + 1],
                bool(dataset["terminals"][i]),
            )
    state, action, reward, next_state, done = (x.numpy() for x in memory.sample(23))
    alive = done[:, 0] == 0
    assert (next_state[alive] == state[alive] + [0, 1]).all()
    assert (reward[:, 0] == 10 * state[:, 0] + state[:, 1]).all()
    assert (action[:, 0] == state[:, 1] % 2).all()
    assert done.sum() == 5


def test_a_recorded_replay_buffer_gives_its_transitions_back() -> None:
    dataset = OfflineDataset.from_dict(scripted(next_observations=True))
    memory = ReplayBuffer(2, 8, FIELDS)
    for start in range(0, 13, 2):  # it wraps around: the first five are overwritten
        rows = slice(start, min(start + 2, 13))
        memory.save2memoryVectEnvs(
            dataset.observations[rows],
            dataset.actions[rows],
            dataset.rewards[rows],
            dataset.next_observations[rows],
            dataset.terminated[rows],
        )
    again = OfflineDataset.from_replay_buffer(memory)
    for name in ("observations", "actions", "rewards", "next_observations", "terminated"):
        assert np.array_equal(getattr(again, name), getattr(dataset, name)[5:]), name
    assert again.actions.dtype == np.int64
    with pytest.raises(DatasetError, match="empty"):
        OfflineDataset.from_replay_buffer(ReplayBuffer(2, 8, FIELDS))


# -------------------------------------------------------------------------------- filling a buffer


def stored(memory: ReplayBuffer) -> Array:
    return memory._fields[0][: len(memory)]


def test_a_buffer_is_filled_with_one_call() -> None:
    dataset = OfflineDataset.from_dict(scripted())
    memory = ReplayBuffer(2, 50, FIELDS)
    calls: list[int] = []
    store = memory.save2memoryVectEnvs
    memory.save2memoryVectEnvs = lambda *f: (calls.append(len(f[0])), store(*f))[1]  # type: ignore[method-assign]
    assert dataset.fill(memory) == 10
    assert calls == [10]
    for field, rows in zip(
        memory._fields,
        (
            dataset.observations,
            dataset.actions,
            dataset.rewards,
            dataset.next_observations,
            dataset.terminated,
        ),
        strict=True,
    ):
        assert np.array_equal(field[:10].reshape(rows.shape), rows)


def test_rows_that_do_not_fit_are_counted_and_the_cure_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = OfflineDataset.from_dict(scripted())
    memory = ReplayBuffer(2, 4, FIELDS)
    with caplog.at_level(logging.WARNING, "agilerl"):
        assert dataset.fill(memory) == 4
    assert "6 of 10 transitions left out" in caplog.text
    assert "all_rows=True" in caplog.text
    kept = stored(memory).tolist()
    assert kept == dataset.observations[[0, 3, 6, 9]].tolist()  # from all over the data


def test_all_rows_enlarges_an_empty_buffer_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    dataset = OfflineDataset.from_dict(scripted())
    memory = ReplayBuffer(2, 4, FIELDS)
    assert dataset.fill(memory, all_rows=True) == 10
    assert np.array_equal(stored(memory), dataset.observations)
    assert caplog.text == ""
    with pytest.raises(ConfigError, match=r"all_rows.*empty"):
        dataset.fill(memory=filled(ReplayBuffer(2, 4, FIELDS)), all_rows=True)


def filled(memory: ReplayBuffer) -> ReplayBuffer:
    memory.save2memory(np.zeros(2, np.float32), 0, 0.0, np.zeros(2, np.float32), False)
    return memory


class ImageEnv(gym.Env[Array, np.int64]):
    observation_space = spaces.Box(0, 255, (4, 5, 3), np.uint8)
    action_space = spaces.Discrete(2)


def test_images_are_turned_once_whichever_way_they_come() -> None:
    data = scripted()
    rng = np.random.default_rng(0)
    data["observations"] = rng.integers(0, 255, (13, 4, 5, 3), dtype=np.uint8)
    turned = {**data, "observations": np.moveaxis(data["observations"], -1, 1)}
    memories = []
    for columns in (data, turned):
        dataset = offline_dataset.load(columns, ImageEnv(), swap_channels=True)
        memory = ReplayBuffer(2, 50, FIELDS)
        dataset.fill(memory, ImageEnv(), swap_channels=True)
        memories.append(memory._fields)
    assert memories[0][0].shape == (50, 3, 4, 5)
    assert memories[0][0].dtype == np.uint8
    for a, b in zip(*memories, strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(DatasetError, match="observations"):
        offline_dataset.load(turned, ImageEnv(), swap_channels=False)


def test_whatever_train_takes_is_loaded_alike(tmp_path: Path) -> None:
    expected = OfflineDataset.from_dict(scripted(next_observations=True))
    path = tmp_path / "a.h5"
    expected.save(path)
    memory = ReplayBuffer(2, 50, FIELDS)
    expected.fill(memory)
    with h5py.File(path, "r") as file:
        for source in (path, str(path), file, expected, scripted(next_observations=True)):
            assert equal(offline_dataset.load(source), expected)
    assert np.array_equal(offline_dataset.load(memory).observations, expected.observations)
    with pytest.raises(DatasetError, match="list"):
        offline_dataset.load([1, 2])
