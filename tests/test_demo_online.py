"""The demo as a user runs it: from the command line, in a folder of its own."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from agilerl import initialPopulation

ROOT = Path(__file__).parents[1]
SMALL = ["--episodes", "3", "--pop-size", "2", "--seed", "3"]


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "demo_online.py"), "--out", str(folder), *arguments]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *arguments), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("runs")
    result = run(folder, "--env", "CartPole-v1", *SMALL)
    assert result.returncode == 0, result.stderr
    (path,) = folder.iterdir()
    return result, path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    with (folder / "history.csv").open() as file:
        return [{**row, "seconds": None} for row in csv.DictReader(file)]


def test_a_run_leaves_its_settings_history_picture_and_elite(finished: Any) -> None:
    _, path = finished
    names = {"settings.yaml", "history.jsonl", "history.csv", "fitness.png", "elite", "checkpoints"}
    assert {p.name for p in path.iterdir()} >= names
    assert (path / "fitness.png").read_bytes()[:4] == b"\x89PNG"
    assert len(rows_of(path)) == 3 * 2  # an evaluation each episode, at first


def test_the_summary_rebuilds_the_elite_s_settings(finished: Any) -> None:
    _, path = finished
    summary = yaml.safe_load((path / "elite" / "elite.yaml").read_text())
    (agent,) = initialPopulation(**summary["initialPopulation"])
    assert agent.algo == "DQN"
    assert agent.architecture == summary["architecture"]
    assert agent.hyperparameters == summary["hyperparameters"]
    assert summary["run"]["seed"] == 3
    assert summary["evaluation"]["episodes"] == 100


def test_the_command_that_the_run_prints_replays_the_elite(finished: Any) -> None:
    result, path = finished
    (line,) = [row for row in result.stdout.splitlines() if row.startswith("replay")]
    words = line.split()[1:]
    assert words[-1] == str(path)
    replay = subprocess.run(
        [*words, "--episodes", "2"], capture_output=True, text=True, timeout=120, check=False
    )
    assert replay.returncode == 0, replay.stderr
    assert "2 episodes" in replay.stdout


def test_the_same_seed_gives_the_same_history(finished: Any, tmp_path: Path) -> None:
    _, path = finished
    assert run(tmp_path, "--env", "CartPole-v1", *SMALL).returncode == 0
    (again,) = tmp_path.iterdir()
    assert rows_of(again) == rows_of(path)


def test_continuous_actions_get_ddpg_and_discrete_states_one_hot(tmp_path: Path) -> None:
    for env, algo in (("Pendulum-v1", "DDPG"), ("FrozenLake-v1", "DQN")):
        result = run(tmp_path, "--env", env, "--episodes", "1", "--pop-size", "1")
        assert result.returncode == 0, result.stderr
        (path,) = tmp_path.glob(f"{env}*")
        assert yaml.safe_load((path / "settings.yaml").read_text())["algo"] == algo


def test_an_unknown_environment_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "--env", "LunaLander-v3")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "LunarLander" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_ends_the_run_with_what_was_reached_and_it_goes_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        command(tmp_path, "--env", "CartPole-v1", "--pop-size", "2", "--seed", "3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # in a shell's background SIGINT is ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    line = process.stderr.readline()  # the first generation was evaluated
    assert line.startswith("ep 1 "), line
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    (path,) = tmp_path.iterdir()
    assert (path / "elite" / "agent.pt").exists()
    before = rows_of(path)
    episodes = str(int(before[-1]["episode"]) + 2)
    result = run(tmp_path, "--resume", str(path), "--episodes", episodes)
    assert result.returncode == 0, result.stderr
    assert rows_of(path)[: len(before)] == before
    assert len(rows_of(path)) > len(before)
