"""What it costs to save a run: ``python -m benchmarks.saving --write``.

A population of 6 with a full buffer: the time of the first checkpoint (all rows) and of the next
ones (new rows only), and their bytes against those of the arrays in memory.  Then training on
LunarLander with a checkpoint at every generation, and without any, in turn.
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


def trained(checkpoints: bool) -> float:
    """Return the seconds that a short training on LunarLander takes, imports and start aside."""
    env = makeVectEnvs("LunarLander-v3", num_envs=16, seed=1)
    begun: list[float] = []
    with tempfile.TemporaryDirectory() as folder, one_thread():
        train(
            env,
            "LunarLander-v3",
            "DQN",
            initialPopulation(
                "DQN",
                (8,),
                4,
                False,
                {"arch": "mlp", "h_size": [64, 64]},
                {"LEARN_STEP": 1},
                6,
                seed=1,
            ),
            ReplayBuffer(4, 100_000, FIELDS, seed=1),
            n_episodes=6,
            max_steps=250,
            evo_epochs=1,
            target=None,
            seed=1,
            verbose=False,
            checkpoint=1 if checkpoints else None,
            checkpoint_path=Path(folder) / "run" if checkpoints else None,
            callbacks=[lambda generation: begun.append(time.perf_counter())],
        )
    return begun[-1] - begun[0]


def slowdown(turns: int) -> str:
    """Return how much slower training is that saves every generation: the median of turns."""
    ratios = []
    for turn in range(turns):
        order = (False, True) if turn % 2 else (True, False)
        seconds = {checkpoints: trained(checkpoints) for checkpoints in order}
        ratios.append(seconds[True] / seconds[False])
    shown = ", ".join(f"{ratio - 1:+.1%}" for ratio in ratios)
    return f"{statistics.median(ratios) - 1:+.1%} (turns: {shown})"


def main() -> None:
    """Measure, and print or write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the result in saving.md")
    options = parser.parse_args()
    head = ("buffer", "arrays", "bytes on disk / arrays", "all of it", "new rows", "with these")
    lines = [saved(100_000), saved(1_000_000, repeats=3)]
    body = (
        f"{timing.table(head, lines)}\n\nTraining on LunarLander (6 agents, 16 environments, 1,500"
        f" vector steps, an evaluation and a checkpoint every 250): {slowdown(options.turns)} with"
        " checkpoints."
    )
    timing.publish("Saving a run", body, options.write, timing.RESULTS / "saving.md")


if __name__ == "__main__":
    main()
