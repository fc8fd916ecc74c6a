"""How training grows with workers, and against others: ``python -m benchmarks.scale``.

The real ``train()`` as in ``benchmarks.online`` (DQN, [32, 32] hidden units, 16 environments,
batches of 256, one learning step a vector step, a full buffer, no evolution), one thread each.
Contestants take turns: agents in this process and on workers, environments on workers, and with
``--against`` other libraries: agilerl 0.1.6 steps its environments in 16 processes beside its own,
Stable-Baselines3 is one agent in one process, which takes 16 vector steps, then 16 gradient steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import gymnasium

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.training.executors import InProcess, Processes
from agilerl.training.jobs import EpisodeResult, Evaluation
from agilerl.training.train import train
from agilerl.utils.utils import makeVectEnvs
from benchmarks import online, timing
from benchmarks.peers import measure

ENVS = ("LunarLander-v3", "CartPole-v1")
PATH = timing.RESULTS / "scale.md"
#: Episodes of each agent before the clock starts.
WARM_UP = 1
#: Vector steps, then as many gradient steps: what makes Stable-Baselines3 fastest.
SB3_BURST = 16
#: A start-up that is shorter is none of other processes, in seconds.
IN_PROCESS = 0.05


class Timed:
    """An executor that keeps the time, and ends the run when it is up."""

    def __init__(self, inner: Any, seconds: float) -> None:
        self.inner, self.seconds = inner, seconds
        self.start_up = self.start = 0.0
        self.calls = self.steps = 0

    def begin(self, task: Any, population: Sequence[Any], memory: Any) -> None:
        """Get ready, and note how long it took."""
        start = time.perf_counter()
        self.inner.begin(task, population, memory)
        self.start_up = time.perf_counter() - start

    def train(self, *arguments: Any) -> list[EpisodeResult]:
        """Let every agent spend an episode; the clock includes what comes between the calls."""
        now = time.perf_counter()
        if self.calls == WARM_UP:
            self.start, self.steps = now, 0
        if self.calls > WARM_UP and now - self.start > self.seconds:
            self.seconds = now - self.start
            raise measure.TimeUp
        self.calls += 1
        results: list[EpisodeResult] = self.inner.train(*arguments)
        self.steps += sum(result.steps for result in results)
        return results

    def evaluate(self, *arguments: Any) -> list[Evaluation]:
        """Evaluate every agent."""
        results: list[Evaluation] = self.inner.evaluate(*arguments)
        return results

    def close(self) -> None:
        """Let go of the workers."""
        self.inner.close()


def measure_here(flags: argparse.Namespace) -> timing.Report:
    """Train until the time is up and return the rate."""
    own = {"workers": flags.env_workers} if flags.env_workers else {}
    env = makeVectEnvs(flags.measure, num_envs=flags.num_envs, backend=flags.backend, **own)
    memory = ReplayBuffer(4, flags.memory_size, online.FIELDS, seed=0)
    online.fill_by_random_actions(env, memory)
    agents = online.population(env, flags)
    executor = Timed(Processes(flags.workers) if flags.workers else InProcess(), flags.seconds)
    try:
        train(
            env, flags.measure, "DQN", agents, memory, n_episodes=10**6, max_steps=flags.max_steps,
            evo_epochs=10**6, eps_start=0.1, eps_end=0.1, target=None, seed=0, verbose=False,
            executor=executor,
        )  # fmt: skip
    except measure.TimeUp:
        pass
    finally:
        executor.close()
        env.close()
    return {"steps_per_s": executor.steps / executor.seconds, "start_up": executor.start_up}


def contestants(env_name: str, flags: argparse.Namespace) -> dict[str, list[object]]:
    """Return our own contestants in an environment: the flags of each by name."""
    rows: dict[str, list[object]] = {"in process": []}
    rows |= {f"{n} workers": ["--workers", n] for n in flags.counts}
    rows |= {f"environments on {n} workers": ["--env-workers", n] for n in flags.env_counts}
    for backend in flags.backends:
        if backend == "vector" and gymnasium.spec(env_name).vector_entry_point is None:
            continue
        rows |= {f"{backend}, in process": ["--backend", backend]}
        rows |= {
            f"{backend}, {n} workers": ["--backend", backend, "--workers", n] for n in flags.counts
        }
    return rows


def peers(flags: argparse.Namespace) -> dict[str, tuple[str, list[object]]]:
    """Return the other libraries by name: which one, and its flags."""
    rows: dict[str, tuple[str, list[object]]] = {}
    if "agilerl016" in flags.against:
        rows["agilerl 0.1.6"] = ("agilerl016", [])
    if "sb3" in flags.against:
        rows["Stable-Baselines3"] = ("sb3", ["--burst", SB3_BURST])
        if "envpool" in flags.backends:
            own = ["--burst", SB3_BURST, "--backend", "envpool"]
            rows["Stable-Baselines3, envpool"] = ("sb3", own)
    return rows


def turn_of_peer(env_name: str, peer: str, own: list[object], seconds: float) -> timing.Report:
    """Let another library train; return its rate."""
    report = timing.run_peer(peer, ["--env", env_name, "--seconds", seconds, *own])
    return {"steps_per_s": report["env_steps_per_s"], "start_up": 0.0}


def table_of(env_name: str, population: int, flags: argparse.Namespace) -> list[list[str]]:
    """Let all contestants take their turns; return a row for each."""
    rows, others = contestants(env_name, flags), peers(flags)
    reports: dict[str, list[timing.Report]] = {name: [] for name in (*rows, *others)}
    for _ in range(flags.rounds):
        for name, own in rows.items():
            arguments = ["--measure", env_name, "--population", population, *own]
            arguments += ["--seconds", flags.seconds]
            reports[name].append(timing.run_module("benchmarks.scale", arguments))
        for name, (peer, own) in others.items():
            reports[name].append(turn_of_peer(env_name, peer, own, flags.seconds))
    medians = {name: timing.median_of(found) for name, found in reports.items()}
    return [
        [
            f"{env_name}, {name if name in others else f'{population} agents, {name}'}",
            f"{median['steps_per_s']:,.0f}",
            *(
                timing.ratio(median["steps_per_s"], medians[other]["steps_per_s"])
                for other in ("in process", *others)
            ),
            f"{median['start_up']:.1f} s" if median["start_up"] >= IN_PROCESS else "-",
        ]
        for name, median in medians.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    timing.add_flags(parser, rounds=3, seconds=10.0)
    parser.add_argument("--envs", nargs="+", default=ENVS)
    parser.add_argument("--populations", nargs="+", type=int, default=[6])
    parser.add_argument("--counts", nargs="*", type=int, default=[1, 2], help="workers")
    parser.add_argument("--env-counts", nargs="*", type=int, default=[], help="of makeVectEnvs")
    parser.add_argument("--measure", metavar="ENV", help="one turn, here; prints JSON")
    parser.add_argument("--population", type=int, default=6)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--env-workers", type=int, default=0)
    parser.add_argument("--backend", default="gymnasium")
    parser.add_argument("--backends", nargs="*", choices=("envpool", "vector"), default=[])
    parser.add_argument("--against", nargs="*", choices=timing.PEERS, default=[])
    parser.add_argument("--max-steps", type=int, default=500)
    parser.set_defaults(num_envs=16, memory_size=10_000, batch_size=256, hidden=[32, 32])
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure_here(flags)))
        return
    rows = [row for env in flags.envs for n in flags.populations for row in table_of(env, n, flags)]
    ratios = [f"against {name}" for name in ("one process", *peers(flags))]
    head = ["train()", "env-steps/s", *ratios, "start-up"]
    note = (
        f"Medians of {flags.rounds} alternating turns of {flags.seconds:g} s.  *Start-up* is from"
        " the first worker's start until all have made their environments, imports included."
    )
    timing.publish("Worker processes", f"{note}\n\n{timing.table(head, rows)}", flags.write, PATH)


if __name__ == "__main__":
    main()
