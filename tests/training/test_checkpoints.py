"""Checkpoints of a population: when they come, which is the latest, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from agilerl.algorithms.dqn import DQN
from agilerl.errors import CheckpointError, ConfigError
from agilerl.training import observers
from agilerl.training.observers import load_population, save_population
from agilerl.utils.utils import makeVectEnvs
from tests.agents import OwnAgent
from tests.runs import run, small_population


def test_checkpoints_come_every_few_episodes_and_load(tmp_path: Path) -> None:
    run(
        small_population(BATCH_SIZE=4, LEARN_STEP=1),
        makeVectEnvs("CartPole-v1", seed=1),
        n_episodes=5,
        checkpoint=2,
        checkpoint_path=tmp_path / "kept",
    )
    folders = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert folders == ["episode_000002", "episode_000004"]
    loaded = load_population(DQN, tmp_path / "kept")
    assert [agent.index for agent in loaded] == [0, 1, 2]
    assert all(agent.learn_count > 0 for agent in loaded)
    assert len(load_population(DQN, tmp_path / "kept" / "episode_000002")) == 3


def test_checkpoint_path_has_a_default_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run([OwnAgent(0), OwnAgent(0)], checkpoint=4)
    saved = sorted(path.name for path in (tmp_path / "checkpoints/episode_000004").iterdir())
    assert len(saved) == 2, "agents of one index do not overwrite each other"


def test_an_agent_that_cannot_be_saved_is_named_before_training() -> None:
    class Unsaved(OwnAgent):
        saveCheckpoint = property()  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="Unsaved has no saveCheckpoint"):
        run([Unsaved(0)], checkpoint=1)


def test_the_latest_checkpoint_is_the_one_written_last(tmp_path: Path) -> None:
    for episode, lr in ((900, 1e-3), (100, 2e-3)):  # the second run is shorter
        save_population(small_population(1, LR=lr), tmp_path / f"episode_{episode:06d}")
        os.utime(tmp_path / f"episode_{episode:06d}", (2e9 - episode, 2e9 - episode))
    assert load_population(DQN, tmp_path)[0].lr == 2e-3


def test_a_directory_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no agent_"):
        load_population(DQN, tmp_path)
    with pytest.raises(CheckpointError, match="no agent_"):
        load_population(DQN, tmp_path / "absent")


class HalfFile:
    """A file that dies in the middle of what it is to write."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> HalfFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        os._exit(9)


def die(moment: str) -> None:
    """Arrange that this process is gone at the n-th call of a function, before or after it."""
    name, number, *when = moment.split()
    owner: Any = {"fsync": os, "rmtree": shutil}.get(name, Path)
    calls = 0
    if name == "open":
        real_open = Path.open
        Path.open = lambda path, *args: HalfFile(real_open(path, *args))  # type: ignore
        return
    real = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(number) and when == ["before"]:
            os._exit(9)
        result = real(*args, **kwargs)
        if calls == int(number):
            os._exit(9)
        return result

    setattr(owner, name, call)


def save_and_die(pop: list[Any], directory: Path, moment: str) -> int:
    """Save in a process of its own that is killed at ``moment``; return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            die(moment)
            save_population(pop, directory)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "moment",
    [
        "open 1",
        "fsync 1 before",
        "fsync 2 before",
        "replace 1 before",
        "replace 2 after",
        "rename 1 before",
        "rename 1 after",
        "rename 2 before",
        "rename 2 after",
        "rmtree 3 before",
    ],
)
def test_a_kill_at_any_moment_leaves_the_previous_checkpoint_loadable(
    tmp_path: Path, moment: str
) -> None:
    directory = tmp_path / "population"
    save_population(small_population(2, LR=1e-3), directory)
    assert save_and_die(small_population(2, LR=2e-3), directory, moment) == 9
    loaded = load_population(DQN, directory)
    assert [agent.index for agent in loaded] == [0, 1]
    assert len({agent.lr for agent in loaded}) == 1, "either the old ones or the new ones"
    assert loaded[0].lr in ({2e-3} if moment in ("rename 2 after", "rmtree 3 before") else {1e-3})
    save_population(small_population(2, LR=5e-3), directory)  # and the next one can be written
    assert load_population(DQN, directory)[0].lr == 5e-3


def test_an_error_while_writing_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = small_population(1)[0]
    agent.saveCheckpoint(tmp_path / "a.pt")
    agent.lr = 0.5

    def full(*args: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(observers.Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        agent.saveCheckpoint(tmp_path / "a.pt")
    assert DQN.load(tmp_path / "a.pt").lr != 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"], "nothing is left lying about"
