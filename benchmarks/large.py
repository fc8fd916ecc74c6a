"""What a large run costs, on paper and measured: ``python -m benchmarks.large --write``.

On paper, one generation is an episode of each of P agents, R transitions each, on W workers on H
hosts, with a replay buffer of B transitions.  The rows that all agents have stored go to each host
once (Ray shares them there; local worker processes count as a host each)::

    told        = min(P * R, B)                                      transitions
    bytes out   = P * agent + H * told * row
    bytes home  = P * (state + R * row)
    worker      = ceil(P / W) * episode + told * append              seconds
    driver      = P * travel + P * R * merge + H * told * row / bandwidth
    generation  = worker + driver
    efficiency  = P * episode / (W * generation)

The unit costs are those of the library's own functions, timed here.  Then real generations are
timed on two workers, their bytes counted, and put beside what the paper says.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import TransitionStream
from agilerl.seeding import Streams
from agilerl.training.batches import packed
from agilerl.training.jobs import train_agent
from agilerl.training.pickling import dumps, loads
from agilerl.training.processes import Processes
from agilerl.training.tasks import Exploration, OnlineTask
from agilerl.training.train import train
from agilerl.training.worker import kept_in
from agilerl.training.worker_handle import WorkerHandle
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks import timing
from benchmarks.online import FIELDS, fill_by_random_actions
from benchmarks.peers import measure

PATH = timing.RESULTS / "scale.md"
NUM_ENVS, MAX_STEPS, HIDDEN, MEMORY = 16, 200, [32, 32], 20_000
#: Transitions that the replay buffer of a run on paper holds.
BUFFER = 200_000
#: Workers on each host of a run on paper.
PER_HOST = 8
#: Bytes a second that the driver sends: a network of 10 Gbit/s.
NETWORK = 1.25e9
#: Agents, and hosts, of the runs on paper.
RUNS = ((8, 1), (16, 2), (64, 2), (64, 8), (256, 8), (256, 32))


class Pictures(gym.Env[Any, Any]):
    """Random images [4, 84, 84], the size of Atari's; an episode is 200 steps."""

    observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gym.spaces.Discrete(6)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Return a first image."""
        super().reset(seed=seed)
        self.steps = 0
        return self._image(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return another image."""
        self.steps += 1
        return self._image(), 1.0, self.steps >= 200, False, {}

    def _image(self) -> Any:
        return self.np_random.integers(0, 256, (4, 84, 84), np.uint8)


@dataclass(frozen=True)
class Costs:
    """Bytes, and seconds, of one piece each.

    Attributes:
        rows: transitions of an episode.
        row: bytes of a transition on its way.
        agent: bytes of an agent on its way out.
        state: bytes of its state on its way home, without its rows.
        episode: seconds of an episode in a worker.
        travel: seconds of the driver for an agent, there and back.
        merge: seconds of the driver for a transition: merge it, and pickle it for the workers.
        append: seconds of a worker for a transition of its replica.
    """

    rows: int
    row: float
    agent: int
    state: int
    episode: float
    travel: float
    merge: float
    append: float


@dataclass(frozen=True)
class Generation:
    """What a generation takes: bytes and seconds."""

    out: float
    home: float
    driver: float
    worker: float

    @property
    def seconds(self) -> float:
        """From its start to the next one's."""
        return self.driver + self.worker


def on_paper(
    costs: Costs, agents: int, workers: int, hosts: int, buffer: int, bandwidth: float
) -> Generation:
    """Return what a generation takes."""
    stored = agents * costs.rows
    told = min(stored, buffer)
    sent = hosts * told * costs.row
    return Generation(
        out=agents * costs.agent + sent,
        home=agents * costs.state + stored * costs.row,
        driver=agents * costs.travel + stored * costs.merge + sent / bandwidth,
        worker=-(-agents // workers) * costs.episode + told * costs.append,
    )


def seconds_of(call: Callable[[], object], rounds: int = 5) -> float:
    """Return the median seconds of a call."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def parts_of(env: Any, steps: int, memory_size: int, gradient_steps: int) -> tuple[Any, Any, Any]:
    """Return a task, a full replay buffer and an agent."""
    images = len(env.single_observation_space.shape) == 3
    memory = ReplayBuffer(4, memory_size, FIELDS, seed=0, next_state_is_next_row=images)
    fill_by_random_actions(env, memory)
    stream = TransitionStream(env, False)
    epsilon = Exploration(0.1, 0.1, 1.0)
    task = OnlineTask(env, False, steps, steps, 1, stream, 0, epsilon, gradient_steps)
    return task, memory, population(env, 1)[0]


def population(env: Any, count: int) -> list[Any]:
    """Return DQN agents for an environment."""
    images = len(env.single_observation_space.shape) == 3
    image_net = {
        "arch": "cnn",
        "h_size": [128],
        "c_size": [32, 32],
        "k_size": [8, 4],
        "s_size": [4, 2],
    }
    return initialPopulation(
        "DQN",
        env.single_observation_space.shape,
        int(env.single_action_space.n),
        one_hot=False,
        net_config=image_net if images else {"arch": "mlp", "h_size": HIDDEN},
        INIT_HP={"BATCH_SIZE": 32 if images else 256, "LR": 1e-3, "LEARN_STEP": 1},
        population_size=count,
        seed=0,
    )


def costs_of(env: Any, steps: int, memory_size: int = MEMORY, gradient_steps: int = 1) -> Costs:
    """Time each piece by itself, in this process."""
    task, memory, agent = parts_of(env, steps, memory_size, gradient_steps)
    train_agent(task, agent, memory, Streams(0, 0, 0))  # warm
    start = time.perf_counter()
    result = train_agent(task, agent, memory, Streams(0, 1, 0))
    episode = time.perf_counter() - start
    out = packed(agent)
    home = dumps((agent.state_dict(), kept_in(agent), None))
    rows = result.rows

    def travel() -> None:
        packed(agent)
        state, _, _ = loads(home)
        agent.load_state_dict(state)

    def merge() -> None:
        loads(dumps(rows))  # it came home by itself
        memory.merge([rows] * 4, [result.counts] * 4)
        dumps((memory.rows(memory.counter - 4 * len(rows), memory.counter), 0, memory.last_call))

    replica = ReplayBuffer(**memory.settings, seed=0)
    told = dumps((memory.rows(memory.counter - len(rows), memory.counter), 0, memory.last_call))

    def append() -> None:
        columns, _, call = loads(told)
        replica.extend(columns, replica.counter + len(rows), call)

    return Costs(
        rows=len(rows),
        row=len(told) / len(rows),
        agent=len(out.pickled),
        state=len(home),
        episode=episode + seconds_of(out.unpacked) + seconds_of(agent.state_dict),
        travel=seconds_of(travel),
        merge=seconds_of(merge) / 4 / len(rows),
        append=seconds_of(append) / len(rows),
    )


class Counted:
    """A connection that counts its bytes."""

    def __init__(self, inner: Any, count: Counting) -> None:
        self._inner, self._count = inner, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def send_bytes(self, data: bytes) -> None:
        """Send."""
        self._count.out += len(data)
        self._inner.send_bytes(data)

    def recv_bytes(self) -> bytes:
        """Receive."""
        data: bytes = self._inner.recv_bytes()
        self._count.home += len(data)
        return data


class Counting(Processes):
    """Worker processes that count bytes and generations, and end a run after so many."""

    def __init__(self, workers: int, generations: int) -> None:
        super().__init__(workers)
        self.left, self.out, self.home = generations, 0, 0
        self.seconds: list[float] = []
        self._last = 0.0

    def _new_worker(self) -> WorkerHandle:
        worker = super()._new_worker()
        worker.connection = Counted(worker.connection, self)  # type: ignore[assignment]
        return worker

    def train(self, *arguments: Any) -> Any:
        """Train, and note when."""
        now = time.perf_counter()
        if self._last:
            self.seconds.append(now - self._last)
        else:
            self.out = self.home = 0
        if not self.left:
            raise measure.TimeUp
        self.left -= 1
        self._last = now
        return super().train(*arguments)


def measured(env: Any, agents: int, workers: int, generations: int = 6) -> Generation:
    """Return what real generations take, in the median; the buffer's first copy is left out."""
    memory = ReplayBuffer(4, MEMORY, FIELDS, seed=0)
    fill_by_random_actions(env, memory)
    executor = Counting(workers, generations)
    with contextlib.suppress(measure.TimeUp):
        train(
            env, "CartPole-v1", "DQN", population(env, agents), memory, n_episodes=10**6,
            max_steps=MAX_STEPS, evo_epochs=10**6, eps_start=0.1, eps_end=0.1, target=None, seed=0,
            verbose=False, executor=executor,
        )  # fmt: skip
    executor.close()
    row = memory.rows(0, MEMORY)
    first_copy = min(workers, agents) * sum(values.nbytes for values in row)
    return Generation(
        out=(executor.out - first_copy) / generations,
        home=executor.home / generations,
        driver=0.0,
        worker=float(np.median(executor.seconds[1:])),
    )


def megabytes(count: float) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e6:,.1f} MB"


def checked(env: Any, costs: Costs, counts: list[int]) -> list[list[str]]:
    """Return a line for each size of population: paper beside measurement, on two workers."""
    pipe = 2e9  # bytes a second through a pipe between two processes
    lines = []
    for agents in counts:
        paper, real = on_paper(costs, agents, 2, 2, MEMORY, pipe), measured(env, agents, 2)
        lines.append(
            [
                f"{agents}",
                f"{megabytes(paper.out)} / {megabytes(real.out)}",
                f"{megabytes(paper.home)} / {megabytes(real.home)}",
                f"{paper.seconds:.2f} s / {real.seconds:.2f} s",
                f"{paper.driver:.2f} s",
                f"{agents * costs.episode / (2 * real.seconds):.0%}",
            ]
        )
    return lines


def simulated(name: str, costs: Costs) -> list[list[str]]:
    """Return a line for each large run on paper."""
    lines = []
    for agents, hosts in RUNS:
        workers = min(PER_HOST * hosts, agents)
        paper = on_paper(costs, agents, workers, hosts, BUFFER, NETWORK)
        ideal = agents * costs.episode / workers
        lines.append(
            [
                f"{name}, {agents} agents",
                f"{hosts} x {PER_HOST}",
                megabytes(paper.out),
                f"{paper.worker:.2f} s",
                f"{paper.driver:.2f} s",
                f"{ideal / paper.seconds:.0%}",
            ]
        )
    return lines


def main() -> None:
    """Time the pieces, check the paper at small sizes, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", nargs="+", type=int, default=[6, 16, 64], help="agents")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {PATH.name}")
    flags = parser.parse_args()
    vector = makeVectEnvs("CartPole-v1", num_envs=NUM_ENVS, seed=0)
    pictures = makeVectEnvs(Pictures, num_envs=4, seed=0)
    alone = makeVectEnvs("CartPole-v1", num_envs=1, seed=0)
    kinds = {
        "evolve()": costs_of(alone, 500, gradient_steps=3),
        "16 environments": costs_of(vector, MAX_STEPS),
        "images": costs_of(pictures, 50, 2_000),
    }
    head = ["agents", "out", "home", "generation", "of it the driver, on paper", "efficiency"]
    check = timing.table(head, checked(vector, kinds["16 environments"], flags.counts))
    head = ["run", "hosts x workers", "out", "workers' time", "driver's time", "efficiency"]
    paper = timing.table(head, [row for kind in kinds.items() for row in simulated(*kind)])
    units = "; ".join(
        f"{name}: a transition {c.row:,.0f} bytes, merge {1e6 * c.merge:.1f} us, append"
        f" {1e6 * c.append:.1f} us; an agent {c.agent / 1e3:,.0f} kB out, {c.state / 1e3:,.0f} kB"
        f" home, {1e3 * c.travel:.1f} ms; an episode of {c.rows:,} transitions {c.episode:.2f} s"
        for name, c in kinds.items()
    )
    body = (
        f"Paper / measured, two workers on this machine, CartPole, DQN {HIDDEN}, {NUM_ENVS}"
        f" environments, {MAX_STEPS} vector steps an episode.\n\n{check}\n\nOn paper, a network of"
        f" 10 Gbit/s and a buffer of {BUFFER:,}. *evolve()*: one environment, 500 steps, three"
        f" learn calls a step; *images*: [4, 84, 84], a CNN on the CPU. {units}.\n\n{paper}"
    )
    timing.publish("Large runs", body, flags.write, PATH)


if __name__ == "__main__":
    main()
