"""Each command from a shell, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agilerl import cli
from agilerl.data.collect import record
from agilerl.runs.run_folder import SETTINGS, read_rows, read_yaml
from agilerl.runs.run_settings import settings_of

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
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "random.h5"
    record("CartPole-v1", "random", 500, seed=0, verbose=False).save(path)
    return path


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


@pytest.mark.parametrize("name", ["dqn.yaml", "ddpg.yaml", "cqn.yaml"])
def test_the_files_hold_the_defaults(name: str, data: Path) -> None:
    file = Path(__file__).parents[2] / "configs" / "training" / name
    found = cli.configured(str(file), [])
    dataset = data if name == "cqn.yaml" else None
    defaults = settings_of(found["env"], found["algo"], dataset=dataset)
    known = {k: value for k, value in defaults["init_hp"].items() if k in found["init_hp"]}
    assert found["init_hp"] == {**found["init_hp"], **known}
    assert len(known) >= 8
    assert found["net_config"] == defaults["net_config"]
    assert found["mutation_params"] == defaults["mutation_params"]


def test_a_file_that_names_data_trains_on_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(__file__).parents[2] / "configs" / "training" / "cqn.yaml"
    words = [f"DATASET={data}", "BATCH_SIZE=32", "POP_SIZE=2"]
    limits = ["--steps", "800", "--seed", "1", "--workers", "0", "--quiet"]
    assert cli.main(["train", str(file), *words, *limits, "--out", str(tmp_path / "runs")]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    told = capsys.readouterr().out
    assert f"agilerl report {run}" in told
    settings = read_yaml(run, SETTINGS)
    assert settings["algo"] == "CQN"
    assert settings["dataset"] == str(data)
    assert f"--dataset {data}" in settings["command"]
    steps = read_rows(run)[-1]["global_steps"]
    assert cli.main(["resume", str(run), "--steps", str(2 * steps), "--quiet"]) == 0
    assert read_rows(run)[-1]["global_steps"] >= 2 * steps
    assert cli.main(["report", str(run)]) == 0
    capsys.readouterr()
    assert cli.main(["retrain", str(run)]) == 2
    assert "a run on recorded data" in capsys.readouterr().err


def test_data_that_is_not_there_is_told_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset", str(tmp_path / "no.h5"), "--out", str(tmp_path / "runs")]
    assert cli.main(["train", "CartPole-v1", *words]) == 2
    error = capsys.readouterr().err
    assert f"no file {tmp_path / 'no.h5'}; `python -m agilerl.data.collect`" in error
    assert not (tmp_path / "runs").exists()


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
