"""What it costs to save a run: ``python -m benchmarks.saving --write``.

A population of 6 with a full buffer: the time of the first checkpoint (all rows) and of the next
ones (new rows only), and their bytes against those of the arrays in memory.  Then the share of
training on LunarLander that goes into a checkpoint at every generation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.threads import one_thread
from agilerl.training import settings as settings_module
from agilerl.training.checkpoints import CheckpointStore
from agilerl.training.run_state import RunState
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks import timing

FIELDS = ["state", "action", "reward", "next_state", "done"]
#: Transitions between two checkpoints: 6 agents, 10 episodes of 100 vector steps, 16 environments.
NEW = 96_000


def population() -> list[Any]:
    """Return six DQN agents for LunarLander that have learnt once, so that moments are there."""
    net = {"arch": "mlp", "h_size": [64, 64]}
    pop = initialPopulation("DQN", (8,), 4, False, net, {"BATCH_SIZE": 64}, 6, seed=1)
    memory = filled(100)
    for agent in pop:
        agent.learn(memory.sample(64))
    return pop


def rows(count: int) -> Iterator[Any]:
    """Return the fields of random transitions of LunarLander."""
    rng = np.random.default_rng(0)
    yield rng.standard_normal((count, 8)).astype(np.float32)
    yield rng.integers(4, size=count)
    yield rng.standard_normal(count).astype(np.float32)
    yield rng.standard_normal((count, 8)).astype(np.float32)
    yield rng.random(count) < 0.01


def filled(count: int) -> ReplayBuffer:
    """Return a buffer that is full."""
    memory = ReplayBuffer(4, count, FIELDS, seed=0)
    memory.save2memoryVectEnvs(*rows(count))
    return memory


def bytes_in(folder: Path) -> int:
    """Return how many bytes the files in a folder have."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bytes_of(value: Any) -> int:
    """Return how many bytes the tensors of a state have."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(map(bytes_of, value.values()))
    return sum(map(bytes_of, value)) if isinstance(value, list) else 0


def saved(size: int, repeats: int = 5) -> list[object]:
    """Return a line of the table: how a run with a full buffer of this size is saved."""
    state = RunState(population(), filled(size), seed=1)
    arrays = bytes_of(state.state_dict())
    first, later = [], []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            store = CheckpointStore(Path(folder) / str(repeat))
            store.open()
            start = time.perf_counter()
            store.write(state, {})
            first.append(time.perf_counter() - start)
            size_on_disk = bytes_in(store.path)
            state.memory.save2memoryVectEnvs(*rows(min(NEW, size // 2)))
            state.episode += 10
            start = time.perf_counter()
            store.write(state, {})
            later.append(time.perf_counter() - start)
            store.close()
    return [
        f"{size:,} rows",
        f"{arrays / 1e6:.1f} MB",
        f"{size_on_disk / arrays:.2f}",
        f"{statistics.median(first):.2f} s",
        f"{min(NEW, size // 2):,}",
        f"{statistics.median(later):.2f} s",
    ]


class TimedStore(CheckpointStore):
    """Keeps the seconds that writing takes."""

    spent = 0.0

    def write(self, state: RunState, settings: Any) -> None:
        """Write a checkpoint, and keep the time."""
        start = time.perf_counter()
        super().write(state, settings)
        TimedStore.spent += time.perf_counter() - start


def share() -> str:
    """Return which share of a training on LunarLander goes into saving it every generation."""
    settings_module.CheckpointStore = TimedStore  # type: ignore[misc]
    env = makeVectEnvs("LunarLander-v3", num_envs=16, seed=1)
    net = {"arch": "mlp", "h_size": [64, 64]}
    with tempfile.TemporaryDirectory() as folder, one_thread():
        pop = initialPopulation("DQN", (8,), 4, False, net, {"LEARN_STEP": 1}, 6, seed=1)
        memory = ReplayBuffer(4, 100_000, FIELDS, seed=1)
        start = time.perf_counter()
        train(
            env,
            "LunarLander-v3",
            "DQN",
            pop,
            memory,
            n_episodes=6,
            max_steps=250,
            evo_epochs=1,
            target=None,
            seed=1,
            verbose=False,
            checkpoint=1,
            checkpoint_path=Path(folder) / "run",
        )
        whole = time.perf_counter() - start
    return f"{TimedStore.spent:.2f} of {whole:.1f} s ({TimedStore.spent / whole:.1%})"


def main() -> None:
    """Measure, and print or write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep the result in saving.md")
    options = parser.parse_args()
    head = ("buffer", "arrays", "bytes on disk / arrays", "all of it", "new rows", "with these")
    lines = [saved(100_000), saved(1_000_000, repeats=3)]
    body = (
        f"{timing.table(head, lines)}\n\nTraining on LunarLander (6 agents, 16 environments, 1,500"
        f" vector steps, an evaluation and a checkpoint every 250): saving takes {share()}."
    )
    timing.publish("Saving a run", body, options.write, timing.RESULTS / "saving.md")


if __name__ == "__main__":
    main()
