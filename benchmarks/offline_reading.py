"""One way of reading an HDF5 file into a replay buffer, in a process of its own.

``python -m benchmarks.offline_reading bulk|rows FILE`` prints one line of JSON: seconds, rows, what
the buffer takes, and by how much the process grew at most.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import h5py

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.data.offline_dataset import OfflineDataset

FIELDS = ["state", "action", "reward", "next_state", "done"]
#: Rows that the row-by-row loop reads: enough to know its speed.
SAMPLE = 5000


def status(name: str) -> int:
    """Return a figure of this process, ``VmRSS`` or ``VmHWM`` (its peak), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def in_bulk(path: str, memory: ReplayBuffer) -> int:
    """Read the whole file, as ``train()`` does."""
    return OfflineDataset.from_hdf5(path).fill(memory)


def row_by_row(path: str, memory: ReplayBuffer) -> int:
    """Read the first rows with the README's loop."""
    with h5py.File(path, "r") as dataset:
        for i in range(SAMPLE):
            state = dataset["observations"][i]
            next_state = dataset["observations"][i + 1]
            action = dataset["actions"][i]
            reward = dataset["rewards"][i]
            done = bool(dataset["terminals"][i])
            memory.save2memory(state, action, reward, next_state, done)
    return SAMPLE


def main() -> None:
    kind, path = sys.argv[1:]
    with h5py.File(path, "r") as file:
        rows = len(file["rewards"])
        width = file["observations"].shape[1]
    memory = ReplayBuffer(2, rows, FIELDS)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    clock, processor = time.perf_counter(), time.process_time()
    read = (in_bulk if kind == "bulk" else row_by_row)(path, memory)
    seconds, cpu = time.perf_counter() - clock, time.process_time() - processor
    report = {
        "rows": read,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "buffer_bytes": rows * 4 * (2 * width + 3),
        "peak_bytes": status("VmHWM") - before,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
