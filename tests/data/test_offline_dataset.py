"""Offline data sets: which transitions come out of which columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.data.episodes import at_time_limit
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import DatasetError
from tests.data.offline_cases import (
    EPISODES,
    save,
    scripted,
    wrong_rows,
)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read few rows at once, so that every border between blocks is met."""
    monkeypatch.setattr("agilerl.data.columns.BLOCK_BYTES", 16)


# ------------------------------------------------------------------------------- the transitions


def test_a_row_cut_by_a_time_limit_is_dropped_where_its_successor_is_unknown(
    tmp_path: Path, small_blocks: None
) -> None:
    dataset = OfflineDataset.from_hdf5(save(tmp_path / "a.h5", scripted()))
    assert wrong_rows(dataset) == 0
    assert len(dataset) == 13 - 3
    assert dataset.terminated.sum() == 3
    assert list(dataset.report.dropped.values()) == [2, 1]


def test_every_row_is_kept_where_next_observations_are_given(
    tmp_path: Path, small_blocks: None
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


@pytest.mark.parametrize("next_observations", [False, True])
def test_dones_alone_are_the_time_limits_doing_where_they_fall_on_it(
    next_observations: bool,
) -> None:
    episodes = ((4, "timeout"), (2, "terminal"), (4, "timeout"), (4, "timeout"), (3, "terminal"))
    data = scripted(episodes, next_observations)
    data["dones"] = data.pop("terminals") | data.pop("timeouts")
    dataset = OfflineDataset.from_dict(data, max_episode_steps=4)
    assert wrong_rows(dataset, episodes) == 0
    assert dataset.terminated.sum() == 2
    assert "3 dones on the time limit" in str(dataset.report)


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
        patch.setattr("agilerl.data.columns.BLOCK_BYTES", piece)
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


def test_unmarked_time_limits_are_found_in_next_observations(small_blocks: None) -> None:
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
