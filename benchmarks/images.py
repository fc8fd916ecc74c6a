"""Images: Pong by ale-py and by EnvPool, ``python -m benchmarks.images``.

The real ``train()``: two DQN agents with the CNN below, eight environments, batches of 32, one
learn step a vector step, observations [4, 84, 84] that are stored once, no evolution, on the CPU
with one thread each.  The environments alone, under random actions, are timed beside it.  It needs
``pip install 'agilerl[envpool]' ale-py opencv-python-headless``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from typing import Any

import gymnasium as gym
import numpy as np

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import TransitionStream
from agilerl.training.executors import InProcess, Processes
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks import online, timing
from benchmarks.peers import measure
from benchmarks.scale import PATH, Timed

BACKENDS = ("gymnasium", "envpool")
WORKERS = (0, 2)
NUM_ENVS, MEMORY, MAX_STEPS = 8, 2_000, 100
NET = {"arch": "cnn", "h_size": [256], "c_size": [32, 32], "k_size": [8, 4], "s_size": [4, 2]}


def pong() -> Any:
    """Return Pong as papers use it: four frames, grey, 84 x 84, each action four times."""
    import ale_py

    gym.register_envs(ale_py)
    env: Any = gym.make("PongNoFrameskip-v4")
    env = gym.wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4)
    return gym.wrappers.FrameStackObservation(env, 4)


def environment(backend: str) -> Any:
    """Return the vector environment of a backend."""
    if backend == "envpool":
        return makeVectEnvs("Pong-v5", num_envs=NUM_ENVS, backend="envpool", num_threads=1)
    return makeVectEnvs(pong, num_envs=NUM_ENVS)


def rate_alone(env: Any, seconds: float) -> float:
    """Return the steps a second of the environments, as training sees them."""
    stream, steps = TransitionStream(env, False), 0
    stream.reset(0)
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        stream.begin(rng.integers(0, int(env.single_action_space.n), NUM_ENVS))
        stream.finish()
        steps += NUM_ENVS
    return steps / (time.perf_counter() - start)


def measure_here(backend: str, workers: int, seconds: float) -> timing.Report:
    """Train until the time is up; return the rates."""
    env = environment(backend)
    alone = rate_alone(env, seconds / 2)
    memory = ReplayBuffer(6, MEMORY, online.FIELDS, seed=0, next_state_is_next_row=True)
    online.fill_by_random_actions(env, memory)
    agents = initialPopulation(
        "DQN",
        env.single_observation_space.shape,
        int(env.single_action_space.n),
        one_hot=False,
        net_config=NET,
        INIT_HP={"BATCH_SIZE": 32, "LR": 1e-4, "LEARN_STEP": 1},
        population_size=2,
        seed=0,
    )
    executor = Timed(Processes(workers) if workers else InProcess(), seconds)
    with contextlib.suppress(measure.TimeUp):
        train(
            env, "Pong", "DQN", agents, memory, n_episodes=10**6, max_steps=MAX_STEPS,
            evo_epochs=10**6, eps_start=0.1, eps_end=0.1, target=None, seed=0, verbose=False,
            executor=executor,
        )  # fmt: skip
    executor.close()
    return {"alone": alone, "steps_per_s": executor.steps / executor.seconds}


def main() -> None:
    """Let all contestants take their turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_flags(parser, rounds=3, seconds=10.0)
    parser.add_argument("--measure", nargs=2, metavar=("BACKEND", "WORKERS"))
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure_here(flags.measure[0], int(flags.measure[1]), flags.seconds)))
        return
    turns: dict[tuple[str, int], list[timing.Report]] = {}
    for _ in range(flags.rounds):
        for key in [(backend, count) for backend in BACKENDS for count in WORKERS]:
            arguments = ["--measure", *key, "--seconds", flags.seconds]
            turns.setdefault(key, []).append(timing.run_module("benchmarks.images", arguments))
    medians = {key: timing.median_of(reports) for key, reports in turns.items()}
    first = medians["gymnasium", 0]["steps_per_s"]
    rows = [
        [
            f"Pong, {backend}, {f'{count} workers' if count else 'in process'}",
            f"{report['alone']:,.0f}",
            f"{report['steps_per_s']:,.0f}",
            timing.ratio(report["steps_per_s"], first),
        ]
        for (backend, count), report in medians.items()
    ]
    head = ["train()", "environments alone, steps/s", "env-steps/s", "against the first"]
    note = (
        f"Medians of {flags.rounds} alternating turns of {flags.seconds:g} s: 2 agents,"
        f" {NUM_ENVS} environments, batches of 32, one learn step a vector step, a CNN of 32 and"
        " 32 channels and 256 units."
    )
    timing.publish("Images", f"{note}\n\n{timing.table(head, rows)}", flags.write, PATH)


if __name__ == "__main__":
    main()
