"""Each command from a shell, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agilerl import cli

SMALL = ["--steps", "3000", "--seed", "3", "--workers", "0"]


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agilerl", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(Path(__file__).parents[2])},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    folder = tmp_path_factory.mktemp("empty")
    found = shell(folder, "train", "CartPole-v1", "POP_SIZE=2", *SMALL)
    assert found.returncode == 0, found.stderr
    (run,) = (folder / "runs").iterdir()
    return folder, run, found.stdout + found.stderr


def test_training_says_what_it_came_to_in_80_columns(trained: tuple[Path, Path, str]) -> None:
    folder, run, text = trained
    assert f"folder     {run.relative_to(folder)}" in text
    assert "\r" not in text  # a pipe stays clean
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if str(run.name) not in line]
    assert max(map(len, lines)) <= 80


def test_what_a_person_does_with_a_run(
    trained: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, run, _ = trained
    for words, expected in (
        (["evaluate", str(run), "--episodes", "5"], "5 episodes"),
        (["report", str(run)], "report.html"),
        (["play", str(run)], "elite.gif"),
        (["runs", "--out", str(run.parent)], run.name),
        (["resume", str(run), "--steps", "6000", "--quiet", "--workers", "0"], "folder"),
        (["retrain", str(run), "--seeds", "1"], "final settings"),
    ):
        assert cli.main(words) == 0
        assert expected in capsys.readouterr().out


def test_a_file_and_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(__file__).parents[2] / "configs" / "training" / "dqn.yaml"
    words = ["ENV_NAME=CartPole-v1", "LR=1e-3", "POP_SIZE=2", "MUTATION_PARAMS.ARCH_MUT=0"]
    limits = ["--steps", "2000", "--seed", "1", "--workers", "0", "--quiet"]
    assert cli.main(["train", str(file), *words, *limits, "--out", str(tmp_path)]) == 0
    assert "lr 0.001" in capsys.readouterr().out
    (run,) = tmp_path.iterdir()
    assert "LR=0.001" in (run / "settings.yaml").read_text()


@pytest.mark.parametrize("name", ["dqn.yaml", "ddpg.yaml"])
def test_the_files_hold_the_defaults(name: str) -> None:
    from agilerl.runs.evolve import INIT_HP, MUTATION_PARAMS, NET_CONFIG

    file = Path(__file__).parents[2] / "configs" / "training" / name
    found = cli.configured(str(file), [])
    known = {key: value for key, value in INIT_HP.items() if key in found["init_hp"]}
    assert {key: found["init_hp"][key] for key in known} == known
    assert found["net_config"] == NET_CONFIG["mlp"]
    assert found["mutation_params"] == MUTATION_PARAMS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "CartPole-v1"], "Did you mean 'train'?"),
        ([], "COMMAND"),
        (["train"], "ENV"),
        (["train", "NoSuchEnv-v0"], "NoSuchEnv"),
        (["train", "CartPole-v1", "LEARNING_RATE=1"], "LEARNING_RATE"),
        (["train", "CartPole-v1", "LR"], "KEY=VALUE"),
        (["train", "CartPole-v1", "LR=[1"], "YAML"),
        (["train", "nothing.yaml"], "nothing.yaml"),
        (["train", "CartPole-v1", "--workers", "many"], "workers"),
        (["train", "CartPole-v1", "--budget", "soon"], "budget"),
        (["resume", "nowhere"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["play", "nowhere"], "nowhere"),
        (["retrain", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exits_with_2(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_environments_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-env", "CartPole-v1"]) == 0
    assert "all is well" in capsys.readouterr().out
    assert cli.main(["check-env", "Blackjack-v1"]) == 2
    assert "FlattenObservation" in capsys.readouterr().out


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "--out", str(tmp_path)]) == 0
    assert "agilerl train" in capsys.readouterr().out


def test_help_has_examples_and_loads_nothing_heavy(tmp_path: Path) -> None:
    found = shell(tmp_path, "--help")
    assert found.returncode == 0
    assert "agilerl train CartPole-v1" in found.stdout
    code = "import sys; from agilerl.cli import parser; parser(); print('torch' in sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert loaded.stdout.strip() == "False"
