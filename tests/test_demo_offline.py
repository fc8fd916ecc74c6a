"""The offline demo, made small."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import yaml

import demo_offline
from agilerl import cli
from agilerl.data.collect import record
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.runs import run_settings


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_offline, "DATA_STEPS", 600)
    monkeypatch.setitem(run_settings.OFFLINE_SCHEDULE, "max_steps", 5)
    monkeypatch.setattr(demo_offline, "record", functools.partial(record, episodes=16))


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["demo_offline.py", *arguments])
    return demo_offline.main()


def test_it_records_data_trains_and_leaves_a_run_folder(
    small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--episodes", "2", "--pop-size", "3", "--seed", "1")
    assert run(*flags, monkeypatch=monkeypatch) == 0
    data = Path("data/cartpole/cartpole_random_v1.1.0.h5")
    assert len(OfflineDataset.from_hdf5(data)) == 600
    (folder,) = Path("runs").iterdir()
    assert {p.name for p in folder.iterdir()} >= {
        "fitness.png",
        "history.csv",
        "history.jsonl",
        "settings.yaml",
        "elite",
        "checkpoints",
    }
    told = capsys.readouterr().out
    about = yaml.safe_load((folder / "elite" / "elite.yaml").read_text())
    assert f"elite      {about['evaluation']['mean']:.1f} (" in told
    assert re.search(r"to beat: data set [12]\d\.\d, the random policy that made it [12]\d", told)
    assert about["run"]["dataset"] == str(data.absolute())
    assert cli.main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert cli.main(["report", str(folder)]) == 0

    recorded = data.stat().st_mtime_ns
    assert run(*flags, "--out", "again", monkeypatch=monkeypatch) == 0
    assert data.stat().st_mtime_ns == recorded  # it was found, and not recorded again
    (again,) = Path("again").iterdir()
    histories = [(f / "history.csv").read_text().splitlines() for f in (folder, again)]
    without_time = [[line.split(",")[:5] + line.split(",")[6:] for line in h] for h in histories]
    assert without_time[0] == without_time[1]


def test_continuous_actions_are_learnt_with_ddpg(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--env", "Pendulum-v1", "--episodes", "1", "--pop-size", "2", "--seed", "1")
    assert run(*flags, monkeypatch=monkeypatch) == 0
    (folder,) = Path("runs").iterdir()
    assert yaml.safe_load((folder / "settings.yaml").read_text())["algo"] == "DDPG"


def test_a_mistake_is_one_line(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.h5").write_text("no data")
    assert run("--dataset", "bad.h5", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: {tmp_path / 'bad.h5'}: expected an HDF5 file")
    assert "\n" not in error
