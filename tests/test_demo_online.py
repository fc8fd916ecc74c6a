"""The demo as a user runs it: from the command line, in a folder of its own."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SMALL = ["--episodes", "7", "--pop-size", "2", "--seed", "3"]


def command(folder, *arguments):
    return [sys.executable, str(ROOT / "demo_online.py"), "--out", str(folder), *arguments]


def run(folder, *arguments):
    return subprocess.run(
        command(folder, *arguments), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    result = run(folder, "--env", "CartPole-v1", *SMALL)
    assert result.returncode == 0, result.stderr
    (path,) = folder.iterdir()
    return result, path


def test_a_run_leaves_its_curve_history_elite_and_summary(finished):
    _, path = finished
    assert {p.name for p in path.iterdir()} == {
        "fitness.png",
        "history.csv",
        "elite.pt",
        "elite.yaml",
    }
    assert (path / "fitness.png").read_bytes()[:4] == b"\x89PNG"
    with (path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2  # generations x agents
    assert {row["mutation"] for row in rows if row["generation"] == "1"} >= {"elite"}


def test_the_summary_is_the_elite(finished):
    _, path = finished
    summary = yaml.safe_load((path / "elite.yaml").read_text())
    assert summary["algo"] == "DQN"
    assert summary["env"] == "CartPole-v1"
    assert set(summary["hyperparameters"]) >= {"lr", "batch_size", "learn_step"}
    assert summary["network"]["hidden_size"]
    assert summary["run"]["seed"] == 3


def test_the_command_that_the_run_prints_replays_the_elite(finished):
    result, path = finished
    (line,) = [row for row in result.stdout.splitlines() if row.startswith("replay")]
    arguments = line.split()[2:]
    assert arguments[-1] == str(path)
    replay = subprocess.run(
        [sys.executable, *arguments, "--episodes", "2", "--seed", "0"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert replay.returncode == 0, replay.stderr
    assert "mean of 2" in replay.stdout


def test_the_same_seed_gives_the_same_history(finished, tmp_path):
    _, path = finished
    assert run(tmp_path, "--env", "CartPole-v1", *SMALL).returncode == 0
    (again,) = tmp_path.iterdir()

    def rows(folder):
        with (folder / "history.csv").open() as file:
            return [{**row, "seconds": None} for row in csv.DictReader(file)]

    assert rows(again) == rows(path)


def test_continuous_actions_get_ddpg_and_discrete_states_one_hot(tmp_path):
    result = run(tmp_path, "--env", "Pendulum-v1", "--episodes", "1", "--pop-size", "1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("DDPG on Pendulum-v1")
    result = run(tmp_path, "--env", "FrozenLake-v1", "--episodes", "1", "--pop-size", "1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("DQN on FrozenLake-v1")


def test_an_unknown_environment_is_one_line(tmp_path):
    result = run(tmp_path, "--env", "LunaLander-v3")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "LunarLander" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_ends_the_run_with_what_was_reached(tmp_path):
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
    assert line.startswith("ep 6/"), line
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert "replay" in output
    (path,) = tmp_path.iterdir()
    assert (path / "elite.pt").exists()
