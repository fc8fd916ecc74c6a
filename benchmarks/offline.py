"""What offline training reaches, how fast it learns, and how fast it reads.

    python -m benchmarks.offline --read                 a file of a million rows
    python -m benchmarks.offline --learn --seeds 5      the demo on random and on mixed data
    python -m benchmarks.offline --against d3rlpy       one agent each, the same number of updates

``--write`` keeps the result in ``benchmarks/results/offline.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import demo_offline
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.data.collect import mean_return, record
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.runs.run_folder import ELITE
from agilerl.threads import one_thread
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks.peers import venvs
from benchmarks.timing import RESULTS, publish, ratio, run_module, table

ENV = "CartPole-v1"
EPISODES = 100
EPSILON = 0.3
RESULT = RESULTS / "offline.md"
#: Settings of the comparison, for both libraries.
SETTINGS = {"batch_size": 256, "lr": 3e-4, "gamma": 0.99, "alpha": 1.0, "tau": 1e-2}
HIDDEN = [64, 64]


def data_file(name: str, policy: str = "random", epsilon: float = 0.0) -> Path:
    """Return a file of 100,000 steps, after recording it if it is not there."""
    path = Path("data/cartpole") / name
    if not path.exists():
        record(ENV, policy, 100_000, seed=0, epsilon=epsilon).save(path)
    return path


# ------------------------------------------------------------------------------------------ reading


def big_file(path: Path, rows: int) -> None:
    """Write episodes of random lengths, without next observations, as public files are."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = rng.standard_normal((rows, 4), dtype=np.float32)
        file["actions"] = rng.integers(2, size=rows)
        file["rewards"] = np.ones(rows, np.float32)
        file["terminals"] = rng.random(rows) < 0.04
        file["timeouts"] = rng.random(rows) < 0.001


def read(rows: int, write: bool) -> None:
    """Compare reading a file at once with reading it row by row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.h5"
        big_file(path, rows)
        bulk, single = (
            run_module("benchmarks.offline_reading", [kind, path]) for kind in ("bulk", "rows")
        )
    lines = [
        (
            name,
            f"{report['rows']:,}",
            f"{report['seconds']:.2f}",
            f"{1e6 * report['seconds'] / report['rows']:.3f}",
            f"{1e6 * report['cpu_seconds'] / report['rows']:.3f}",
        )
        for name, report in (("OfflineDataset", bulk), ("row by row (README loop)", single))
    ]
    per_row = [report["cpu_seconds"] / report["rows"] for report in (single, bulk)]
    body = table(("reading", "rows", "seconds", "us a row", "CPU us a row"), lines)
    body += (
        f"\n\nA file of {rows:,} rows (4 floats a state). At once is {ratio(*per_row)} as fast"
        f" (CPU time). The buffer takes {bulk['buffer_bytes'] / 1e6:.0f} MB; while it was filled"
        f" the process grew by {bulk['peak_bytes'] / 1e6:.0f} MB at most, the buffer included:"
        f" {bulk['peak_bytes'] / bulk['buffer_bytes']:.2f} times its bytes."
    )
    publish("Reading", body, write, RESULT)


# ----------------------------------------------------------------------------------------- learning


def demo(dataset: Path, seed: int, episodes: int, out: Path) -> dict[str, Any]:
    """Run the demo once and return what came out; its output goes to stderr."""
    clock, processor = time.perf_counter(), time.process_time()
    flags = {"--dataset": dataset, "--seed": seed, "--episodes": episodes, "--out": out}
    arguments = [str(x) for flag in flags.items() for x in flag]
    with contextlib.redirect_stdout(sys.stderr):
        run = demo_offline.run(demo_offline.parse(arguments))
    minutes = (time.perf_counter() - clock) / 60, (time.process_time() - processor) / 60
    data = OfflineDataset.from_hdf5(dataset)
    return {
        "path": run.path,
        "seed": seed,
        "elite_return": run.evaluation.mean,
        "generations": run.history[-1]["generation"] + 1,
        "dataset_return": data.report.mean_return,
        "policy_return": data.policy_mean_return,
        "minutes": minutes[0],
        "cpu_minutes": minutes[1],
    }


def learn(seeds: list[int], episodes: int, write: bool) -> None:
    """Run the demo on random data and on a mix, and say what the elites reach."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        random = data_file("cartpole_random_v1.1.0.h5")
        runs = [demo(random, seed, episodes, out) for seed in seeds]
        publish("Random data", learnt(runs), write, RESULT)
        best = max(range(len(runs)), key=lambda i: runs[i]["elite_return"])
        mix = data_file("cartpole_mix_v1.h5", str(runs[best]["path"] / ELITE), EPSILON)
        runs = [demo(mix, seed, episodes, out) for seed in seeds]
        publish(f"A trained agent with epsilon {EPSILON}", learnt(runs), write, RESULT)


def learnt(runs: list[dict[str, Any]]) -> str:
    """Return a table of runs."""
    rows = [
        (
            run["seed"],
            f"{run['dataset_return']:.1f}",
            f"{run['elite_return']:.1f}",
            run["generations"],
            f"{run['cpu_minutes']:.1f}",
            f"{run['minutes']:.1f}",
        )
        for run in runs
    ]
    returns = [run["elite_return"] for run in runs]
    reached = {score: sum(value >= score for value in returns) for score in (195, 475)}
    counts = ", ".join(f">= {score} on {n} of {len(runs)}" for score, n in reached.items())
    head = ("seed", "data set", "elite", "generations", "CPU minutes", "minutes")
    return (
        f"{table(head, rows)}\n\nMean returns: of the whole episodes in the data set, and of the"
        f" elite over {EPISODES} fresh episodes. Elite {counts}. The policy that made the data set"
        f" reaches {runs[0]['policy_return']:.1f}."
    )


# --------------------------------------------------------------------------------------- comparison


def ours(dataset: Path, seed: int, updates: int) -> dict[str, float]:
    """Train one CQN agent, without evolution."""
    data = OfflineDataset.from_hdf5(dataset)
    memory = ReplayBuffer(
        2, len(data), ["state", "action", "reward", "next_state", "done"], seed=seed
    )
    data.fill(memory)
    hyper_parameters = {name.upper(): value for name, value in SETTINGS.items()}
    (agent,) = initialPopulation(
        algo="CQN",
        state_dim=(4,),
        action_dim=2,
        one_hot=False,
        net_config={"arch": "mlp", "h_size": HIDDEN, "output_vanish": False},
        INIT_HP={**hyper_parameters, "DOUBLE": True, "HUBER": True},
        seed=seed,
    )
    with one_thread():
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(updates):
            agent.learn(memory.sample(agent.batch_size))
        seconds, cpu = time.perf_counter() - clock, time.process_time() - processor
        env: InProcessVectorEnv = makeVectEnvs(ENV, 20)
        score = mean_return(env, agent.getAction, EPISODES, 10_000 * seed)
    return {
        "updates_per_s": updates / seconds,
        "updates_per_cpu_s": updates / cpu,
        "mean_return": score,
    }


def theirs(dataset: Path, seed: int, updates: int) -> dict[str, float]:
    """Train one DiscreteCQL agent of d3rlpy."""
    script = Path(__file__).with_name("offline_d3rlpy.py")
    settings = {**SETTINGS, "seed": seed, "updates": updates, "episodes": EPISODES}
    flags = [x for name, value in settings.items() for x in (f"--{name}".replace("_", "-"), value)]
    command = [venvs.ensure("d3rlpy"), script, dataset.resolve(), *flags, "--hidden", *HIDDEN]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, **threads}, stdout=subprocess.PIPE, check=True
    )
    report: dict[str, float] = json.loads(done.stdout.decode().splitlines()[-1])
    return report


def compare(dataset: Path, seeds: list[int], updates: int, write: bool) -> None:
    """Train one agent of each library on the same file, taking turns."""
    torch.set_num_threads(1)
    both: dict[str, list[dict[str, float]]] = {"agilerl CQN": [], "d3rlpy DiscreteCQL": []}
    for seed in seeds:
        both["agilerl CQN"].append(ours(dataset, seed, updates))
        both["d3rlpy DiscreteCQL"].append(theirs(dataset, seed, updates))
        print(seed, {name: runs[-1] for name, runs in both.items()}, file=sys.stderr, flush=True)
    rows = []
    speed = []
    for name, runs in both.items():
        returns = [run["mean_return"] for run in runs]
        speed.append(statistics.median(run["updates_per_cpu_s"] for run in runs))
        on_clock = statistics.median(run["updates_per_s"] for run in runs)
        each = ", ".join(f"{value:.0f}" for value in returns)
        rows.append((name, f"{np.mean(returns):.1f}", each, f"{on_clock:.0f}", f"{speed[-1]:.0f}"))
    head = ("one agent", "mean return", "by seed", "updates/s", "updates/CPU s")
    body = (
        f"{table(head, rows)}\n\n{updates:,} updates, {SETTINGS}, hidden {HIDDEN}, one thread;"
        f" returns over {EPISODES} fresh episodes. {ratio(*speed)} the updates for the same CPU"
        " time. Both have Huber's loss, double Q-learning and torch's initial weights. d3rlpy"
        " copies its target network, every 2 / tau updates here, so that on average it is as old"
        " as ours."
    )
    publish(f"Against d3rlpy, {dataset.name}", body, write, RESULT)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline", description=__doc__)
    parser.add_argument("--read", action="store_true", help="only measure reading")
    parser.add_argument("--learn", action="store_true", help="only run the demo")
    parser.add_argument("--against", choices=["d3rlpy"], help="only compare with that library")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the file that is read")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument("--episodes", type=int, default=200, help="of the demo at most")
    parser.add_argument("--dataset", type=Path, help="of the comparison; random data if not given")
    parser.add_argument("--updates", type=int, default=8_000, help="of the comparison")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULT.name}")
    flags = parser.parse_args()
    everything = not (flags.read or flags.learn or flags.against)
    seeds = list(range(flags.seeds))
    if flags.read or everything:
        read(flags.rows, flags.write)
    if flags.learn or everything:
        learn(seeds, flags.episodes, flags.write)
    if flags.against:
        dataset = flags.dataset or data_file("cartpole_random_v1.1.0.h5")
        compare(dataset, seeds, flags.updates, flags.write)


if __name__ == "__main__":
    main()
