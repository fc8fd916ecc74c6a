"""What the parts of a training step cost: ``python -m benchmarks.parts --against agilerl016``.

Learning, acting, sampling and inserting on states of 8 floats, 16 environments, batches of 256, on
one thread, in processor time; with and without the MLP kernel.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from agilerl.algorithms import CQN, DDPG, DQN
from agilerl.components.replay_buffer import ReplayBuffer
from benchmarks import timing
from benchmarks.peers import measure

FIELDS = ["state", "action", "reward", "next_state", "done"]
LEARNERS = ((DQN, 32), (DQN, 64), (DQN, 128), (CQN, 64))
STATE_DIM, NUM_ENVS, BATCH, MEMORY = 8, 16, 256, 100_000


def rows(count: int, action: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return transitions as a vector environment gives them."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((2, count, STATE_DIM), dtype=np.float32)
    return states[0], action, rng.standard_normal(count), states[1], rng.random(count) < 0.01


def filled(size: int, action: np.ndarray) -> ReplayBuffer:
    """Return a full buffer."""
    memory = ReplayBuffer(4, size, FIELDS, seed=0)
    memory.save2memoryVectEnvs(*rows(size, action))
    return memory


def agent(algorithm: Any, hidden: int, actions: int) -> Any:
    net_config = {"arch": "mlp", "h_size": [hidden, hidden]}
    return algorithm((STATE_DIM,), actions, False, net_config=net_config, seed=0)


def time_parts(seconds: float) -> timing.Report:
    """Return milliseconds of each part, and bytes of a transition."""
    torch.set_num_threads(1)
    each = seconds / 9
    memory = filled(MEMORY, np.arange(MEMORY) % 4)
    batch = memory.sample(BATCH)
    torques = filled(1_000, np.zeros((1_000, 2), np.float32)).sample(BATCH)
    step = rows(NUM_ENVS, np.arange(NUM_ENVS) % 4)
    learn: dict[str, float] = {}
    for algorithm, hidden in LEARNERS:
        learner = agent(algorithm, hidden, 4)
        name = f"{algorithm.__name__} {hidden}x{hidden}"
        learn[name] = measure.milliseconds(lambda a=learner: a.learn(batch), each)
    ddpg = agent(DDPG, 64, 2)
    learn["DDPG 64x64"] = measure.milliseconds(lambda: ddpg.learn(torques), each)
    act: dict[str, float] = {}
    for hidden in (32, 64):
        actor = agent(DQN, hidden, 4)
        name = f"DQN {hidden}x{hidden}, {NUM_ENVS} states"
        act[name] = measure.milliseconds(lambda a=actor: a.getAction(step[0], 0.0), each)
    sample = measure.milliseconds(lambda: memory.sample(BATCH), each)
    insert = measure.milliseconds(lambda: memory.save2memoryVectEnvs(*step), each, chunk=200)
    return {
        "learn_ms": learn,
        "act_ms": act,
        "sample_ms": {f"{BATCH} of {MEMORY}": sample},
        "insert_ms": {f"{NUM_ENVS} rows": insert},
        "bytes_per_transition": {
            "8 floats": stored_bytes(memory) / MEMORY,
            "8 floats, next_state_is_next_row": shared_bytes(),
        },
    }


def stored_bytes(memory: ReplayBuffer) -> int:
    """Return the bytes of all arrays that hold transitions."""
    fields = [getattr(field, "frames", field) for field in memory._fields]
    return sum(field.nbytes for field in {id(field): field for field in fields}.values())


def shared_bytes(count: int = 10_000) -> float:
    """Return the bytes of a transition where each observation is stored once; no episode ends."""
    memory = ReplayBuffer(4, count, FIELDS, next_state_is_next_row=True)
    state = np.zeros((NUM_ENVS, STATE_DIM), np.float32)
    for step in range(1, count // NUM_ENVS + 1):
        flags = np.zeros(NUM_ENVS, bool)
        memory.save2memoryVectEnvs(state, flags, np.zeros(NUM_ENVS), state + step, flags)
        state = state + step
    return stored_bytes(memory) / count


def compare(ours: timing.Report, plain: timing.Report | None, peer: timing.Report | None) -> str:
    """Return the table: our times, those without the kernel, the peer's, and the ratios."""
    head = ["part", "agilerl"]
    head += ["without the kernel", "ratio"] if plain else []
    head += ["agilerl 0.1.6", "ratio"] if peer else []
    lines = []
    for kind in ("learn_ms", "act_ms", "sample_ms", "insert_ms", "bytes_per_transition"):
        unit = "" if kind.startswith("bytes") else " ms"
        label = kind.removesuffix("_ms").replace("_", " ")
        for name, value in ours[kind].items():
            line = [f"{label}: {name}", f"{value:.4g}{unit}"]
            for other in (plain, peer):
                if other:
                    theirs = other[kind].get(name, other[kind].get(name.partition(",")[0]))
                    line += [f"{theirs:.4g}{unit}", timing.ratio(theirs, value)]
            lines.append(line)
    return timing.table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    timing.add_flags(parser, rounds=3, seconds=9.0)
    parser.add_argument("--against", nargs="*", choices=["agilerl016"], default=[])
    parser.add_argument("--measure", action="store_true", help="one turn, here; prints JSON")
    flags = parser.parse_args()
    if flags.measure:
        measure.report(timing.OURS, "micro", timing.PACKAGES, **time_parts(flags.seconds))
        return
    turn = ["--measure", "--seconds", flags.seconds]
    ours, plain, peers = [], [], []
    for _ in range(flags.rounds):
        ours.append(timing.run_module("benchmarks.parts", turn))
        plain.append(timing.run_module("benchmarks.parts", turn, AGILERL_MLP_KERNEL="0"))
        peer_turn = ["--micro", "--seconds", flags.seconds]
        peers += [timing.run_peer(peer, peer_turn) for peer in flags.against]
    body = compare(
        timing.median_of(ours),
        timing.median_of(plain),
        timing.median_of(peers) if peers else None,
    )
    note = (
        f"Processor time on one thread, medians of {flags.rounds} turns; batches of {BATCH}, states"
        f" of {STATE_DIM} floats."
    )
    timing.publish("Parts", f"{note}\n\n{body}", flags.write)


if __name__ == "__main__":
    main()
