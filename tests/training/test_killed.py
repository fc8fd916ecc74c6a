"""Runs that are killed again and again: the end is that of a run which nobody disturbed.

Each life of a run is a fork of this process, so that hundreds of them take minutes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.training import checkpoints
from tests.training.test_checkpoints import digest, start
from tests.training.test_language_training import config, evolving, population, trained

BEFORE, BETWEEN, WRITING = "before the first checkpoint", "between checkpoints", "during a write"


def noted(log: Path) -> Callable[[Any], None]:
    """Return a callback that notes which episodes this process has spent."""

    def note(generation: Any) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {generation.episode}\n")

    return note


def transitions(algo: str) -> Callable[[Path, int], str]:
    """Return a run of a trainer on transitions: its folder and its episodes to its hash."""

    def life(path: Path, episodes: int) -> str:
        settings: dict[str, Any] = {"n_episodes": episodes, "max_steps": 30, "evo_epochs": 1}
        log = path.with_suffix(".log")
        return digest(start(algo, path, resume="auto", callbacks=[noted(log)], **settings))

    return life


def language(cls: type[Any]) -> Callable[[Path, int], str]:
    """Return a run of a language trainer, likewise."""

    def life(path: Path, episodes: int) -> str:
        train = {"updates": episodes, "eval_every": 1}
        settings = config(path, train=train, population=evolving(3), resume="auto")
        state, _ = trained(settings, population(3, cls), noted(path.with_suffix(".log")))
        found = hashlib.sha256()
        for agent in state.population:
            plain, tensors = checkpoints.packed(agent.state_dict())
            found.update(json.dumps(plain, sort_keys=True).encode())
            for tensor in tensors.values():
                found.update(tensor.numpy().tobytes())
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in state.history]
        found.update(json.dumps(rows, sort_keys=True).encode())
        return found.hexdigest()

    return life


LIVES: dict[str, Callable[[Path, int], str]] = {
    "DQN": transitions("DQN"),
    "DDPG": transitions("DDPG"),
    "CQN": transitions("CQN"),
    "BC": language(BC_LM),
    "ILQL": language(ILQL),
}


def born(life: Callable[[Path, int], str], path: Path, episodes: int) -> int:
    """Begin a life of the run in a process of its own, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        with Path(f"{path}.hash.tmp").open("w") as file:
            file.write(life(path, episodes))
        Path(f"{path}.hash.tmp").rename(f"{path}.hash")
    finally:
        os._exit(0)


def names_in(path: Path) -> list[str]:
    """Return what is among the checkpoints of a run; those of a language run are a floor deeper."""
    for folder in (path / "checkpoints", *path.glob("*/checkpoints")):
        if folder.is_dir():
            return [entry.name for entry in os.scandir(folder)]
    return []


def wait_for(pid: int, when: Callable[[], bool], longest: float) -> bool:
    """Wait until something is so, and return whether it is before the process ends."""
    deadline = time.monotonic() + longest
    while time.monotonic() < deadline:
        if when():
            return True
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
    return False


def killed(path: Path, pid: int, rng: np.random.Generator) -> str | None:
    """Kill a life at a random moment, one of four in the middle of a write; say when it was."""
    aim = rng.random()
    if aim > 0.1:  # these wait until the run has a checkpoint to go on from
        wait_for(pid, lambda: any(x.startswith("episode") for x in names_in(path)), 20)
    if aim > 0.75:
        wait_for(pid, lambda: any(x.endswith(".tmp") for x in names_in(path)), 5)
    else:
        wait_for(pid, lambda: False, rng.uniform(0, 0.08))
    os.kill(pid, signal.SIGSTOP)  # what it is doing is looked at before it is killed
    names = names_in(path)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        return None
    if any(name.endswith(".tmp") for name in names):
        return WRITING
    return BETWEEN if any(name.startswith("episode") for name in names) else BEFORE


def newest(path: Path) -> int:
    """Return the episode of the newest checkpoint that is whole."""
    names = [x for x in names_in(path) if x.startswith("episode")]
    return max((int(name.split("_")[1]) for name in names), default=0)


def killed_often(name: str, path: Path, kills: int, episodes: int) -> Counter[str]:
    """Kill a run so many times, let it end, compare, and return when it was killed."""
    life, rng = LIVES[name], np.random.default_rng(len(name))
    moments: Counter[str] = Counter()
    saved: dict[int, int] = {}
    while moments.total() < kills and not Path(f"{path}.hash").exists():
        before = newest(path)
        pid = born(life, path, episodes)
        saved[pid] = before
        moment = killed(path, pid, rng)
        if moment is not None:
            moments[moment] += 1
    pid = born(life, path, episodes)
    saved[pid] = newest(path)
    os.waitpid(pid, 0)
    assert Path(f"{path}.hash").read_text() == life(path.parent / "whole" / path.name, episodes)
    spent: dict[int, list[int]] = {}
    for line in path.with_suffix(".log").read_text().splitlines():
        process, episode = map(int, line.split())
        spent.setdefault(process, []).append(episode)
    for process, numbers in spent.items():  # nothing before the last checkpoint is repeated
        assert numbers == list(range(saved[process] + 1, saved[process] + 1 + len(numbers)))
    assert not [left for left in path.rglob("*.tmp") if left.parent.name != "whole"]
    return moments


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LIVES)
def test_killed_twice_it_ends_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    assert killed_often(name, tmp_path / "x", 2, 12).total() == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_killed_200_times_at_random_moments(tmp_path: Path) -> None:
    moments: Counter[str] = Counter()
    for name in LIVES:
        (tmp_path / name / "whole").mkdir(parents=True)
        own = killed_often(name, tmp_path / name / "x", 40, 160)
        print(name, dict(own))
        moments += own
    print(dict(moments))
    assert moments.total() == 200
    assert moments[BETWEEN] + moments[WRITING] >= 150
    assert moments[WRITING] >= 20
