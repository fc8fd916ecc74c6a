"""Passes of small networks, compiled, in NumPy and by autograd.

    python -m benchmarks.passes --write

The kinds take turns; each number is the median of several rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from agilerl import compiled
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.networks import mlp_kernel
from agilerl.networks.evolvable_mlp import EvolvableMLP
from agilerl.threads import one_thread
from agilerl.utils.utils import initialPopulation
from benchmarks import timing

INPUTS, ACTIONS = 8, 4
WIDTHS = (32, 64, 128, 256)
BATCHES = (1, 16, 64, 256)
#: What serves, and the switches that say so: of the kernel, and of what is compiled.
KINDS = {"compiled": (True, True), "NumPy": (True, False), "autograd": (False, False)}
FIELDS = ["state", "action", "reward", "next_state", "done"]


def use(kind: str) -> None:
    """Let networks that are made from now on use one kind of passes."""
    mlp_kernel.enabled, compiled.enabled = KINDS[kind]


def microseconds(call: Callable[[], object], count: int) -> float:
    """Return what one call takes."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count * 1e6


def calls(width: int, batch: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    rng = np.random.default_rng(0)
    net = TrainedNetwork(EvolvableMLP(INPUTS, ACTIONS, [width, width], seed=0), lr=1e-3)
    x = rng.normal(size=(batch, INPUTS)).astype(np.float32)
    grad = rng.normal(size=(batch, ACTIONS)).astype(np.float32)

    def both() -> None:
        net.forward(x)
        net.backward(grad)

    agent, memory = learner(width, batch)
    return {
        "forward": lambda: net.infer(x),
        "forward and backward": both,
        "learn": lambda: agent.learn(memory.sample(batch)),
    }


def learner(width: int, batch: int) -> tuple[Any, ReplayBuffer]:
    """Return a double DQN agent, and a buffer of random transitions."""
    rng = np.random.default_rng(0)
    memory = ReplayBuffer(ACTIONS, 10_000, FIELDS, seed=0)
    states = rng.normal(size=(2, 10_000, INPUTS)).astype(np.float32)
    actions, rewards = rng.integers(ACTIONS, size=10_000), rng.normal(size=10_000)
    memory.save2memoryVectEnvs(states[0], actions, rewards, states[1], np.zeros(10_000))
    net, hp = {"arch": "mlp", "h_size": [width, width]}, {"BATCH_SIZE": batch, "DOUBLE": True}
    (agent,) = initialPopulation("DQN", (INPUTS,), ACTIONS, False, net, hp, 1, seed=0)
    return agent, memory


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Return microseconds by case, then by kind."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for width in WIDTHS:
            for batch in BATCHES:
                for kind in KINDS:
                    use(kind)
                    for name, call in calls(width, batch).items():
                        microseconds(call, 20)
                        case = found.setdefault(json.dumps([name, batch, width]), {})
                        case.setdefault(kind, []).append(microseconds(call, 200))
    return {
        case: {kind: statistics.median(values) for kind, values in kinds.items()}
        for case, kinds in found.items()
    }


def report(found: dict[str, dict[str, float]]) -> str:
    """Return the table."""
    rows = []
    for case, kinds in found.items():
        name, batch, width = json.loads(case)
        times = [f"{kinds[kind]:.0f}" for kind in KINDS]
        ratios = [timing.ratio(kinds[kind], kinds["compiled"]) for kind in ("NumPy", "autograd")]
        rows.append((f"{name}, {batch} rows, [{width}, {width}]", *times, *ratios))
    head = ("microseconds", *KINDS, "NumPy / compiled", "autograd / compiled")
    return (
        f"An MLP of {INPUTS} inputs and {ACTIONS} outputs, ReLU, float32, one thread; *learn* is a"
        " whole call of double DQN, with sampling and Adam, as a loop of one's own makes it.\n\n"
        + timing.table(head, rows)
    )


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each kind")
    parser.add_argument("--write", action="store_true", help="keep the result in speed.md")
    options = parser.parse_args()
    if not compiled.AVAILABLE:
        parser.error("there are no compiled passes; install the package where a C compiler is")
    with one_thread():
        body = report(measure(options.rounds))
    timing.publish("Passes of small networks", body, options.write)


if __name__ == "__main__":
    main()
