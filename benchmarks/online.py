"""Where the time of a training population goes: ``python -m benchmarks.online``.

The real ``train()``: six DQN agents with [32, 32] hidden units, 16 environments, batches of 256,
one learning step a vector step, epsilon 0.1, a full replay buffer, evolution left out, one thread.
Light wrappers around the environments, the agents and the buffer take the time; turns that say how
fast it is go without them.  ``benchmarks.scale`` compares with workers and with other libraries.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks import timing
from benchmarks.peers import measure

ENVS = ("LunarLander-v3", "CartPole-v1")
FIELDS = ["state", "action", "reward", "next_state", "done"]
PARTS = ("env", "act", "insert", "sample", "learn")


class Stopwatch:
    """Sums up what each part takes on the clock, which is read in no time.

    A busy machine takes time away from each part as long as it is, so that shares hold.
    """

    def __init__(self, running: bool) -> None:
        self.running = running  # else it costs nothing
        self.seconds: dict[str, float] = dict.fromkeys((*PARTS, "floor"), 0.0)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call`` so that its time counts as ``part``."""
        seconds, clock = self.seconds, time.perf_counter
        if not self.running:
            return call

        def measured(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            result = call(*args, **kwargs)
            seconds[part] += clock() - start
            return result

        return measured


class MeteredEnv:
    """A vector environment that is timed, and that reports its steps."""

    def __init__(self, env: Any, meter: measure.Meter, watch: Stopwatch) -> None:
        self._env, self._meter, self._watch = env, meter, watch
        self._warm = False
        self._step = watch.timed("env", env.step)
        self.reset = watch.timed("env", env.reset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, actions: Any) -> Any:
        """Make a vector step; the clock of the parts starts with the meter's."""
        self._meter.step(self._env.num_envs)
        if not self._warm and self._meter.learns >= self._meter.warm_up:
            self._warm = True
            self._watch.seconds.update(dict.fromkeys(self._watch.seconds, 0.0))
        return self._step(actions)


class TimedMemory:
    """A replay buffer that is timed."""

    def __init__(self, memory: ReplayBuffer, watch: Stopwatch) -> None:
        self._memory = memory
        self.sample = watch.timed("sample", memory.sample)
        self.save2memoryVectEnvs = watch.timed("insert", memory.save2memoryVectEnvs)

    def __len__(self) -> int:
        return len(self._memory)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


def population(env: Any, flags: argparse.Namespace) -> list[Any]:
    settings = {"BATCH_SIZE": flags.batch_size, "LR": 1e-3, "LEARN_STEP": 1, "DOUBLE": True}
    return initialPopulation(
        "DQN",
        env.single_observation_space.shape,
        int(env.single_action_space.n),
        one_hot=False,
        net_config={"arch": "mlp", "h_size": flags.hidden},
        INIT_HP=settings,
        population_size=flags.population,
        seed=0,
    )


def fill_by_random_actions(env: Any, memory: ReplayBuffer) -> None:
    """Store transitions of a random policy until the buffer is full."""
    state, _ = env.reset(seed=0)
    env.action_space.seed(0)
    while len(memory) < memory.memory_size:
        action = env.action_space.sample()
        next_state, reward, terminated, _, _ = env.step(action)
        memory.save2memoryVectEnvs(state, action, reward, next_state, terminated)
        state = next_state


def counted(learn: Callable[..., Any], meter: measure.Meter) -> Callable[..., Any]:
    """Return ``learn`` so that each call is reported."""

    def learned(experiences: Any) -> Any:
        meter.learns += 1
        return learn(experiences)

    return learned


def time_training(flags: argparse.Namespace) -> timing.Report:
    """Train until the time is up; return rates, and the share of each part of the wall time."""
    env = makeVectEnvs(flags.env, num_envs=flags.num_envs, backend=flags.backend)
    memory = ReplayBuffer(4, flags.memory_size, FIELDS, seed=0)
    fill_by_random_actions(env, memory)
    watch, meter = Stopwatch(not flags.plain), measure.Meter(flags.seconds)
    for single in getattr(env, "envs", ()):
        single.step = watch.timed("floor", single.step)
        single.reset = watch.timed("floor", single.reset)
    agents = population(env, flags)
    for agent in agents:
        agent.learn = counted(watch.timed("learn", agent.learn), meter)
        agent.getAction = watch.timed("act", agent.getAction)
    with contextlib.suppress(measure.TimeUp):
        train(
            MeteredEnv(env, meter, watch),
            flags.env,
            "DQN",
            agents,
            TimedMemory(memory, watch),
            n_episodes=10**6,
            max_steps=500,
            evo_epochs=10**6,
            eps_start=flags.epsilon,
            eps_end=flags.epsilon,
            target=None,
            seed=0,
            verbose=False,
        )
    env.close()
    rates = meter.rates()
    share = {part: watch.seconds[part] / meter.elapsed for part in PARTS}
    share["rest"] = 1 - sum(share.values())
    floor = watch.seconds["floor"]
    per_cpu = rates["env_steps"] / rates["processor_seconds"]
    return {
        **rates,
        "env_steps_per_processor_s": per_cpu,
        "share": share,
        "outside_env_step": 1 - floor / meter.elapsed if floor else 0.0,
        "floor_env_steps_per_s": rates["env_steps"] / floor if floor else 0.0,
    }


def own_row(name: str, plain: timing.Report, report: timing.Report) -> list[str]:
    """Return one line on our own loop: rates without clocks, and floor and shares with them."""
    floor = report["floor_env_steps_per_s"]
    shares = [f"{100 * report['share'][part]:.1f} %" for part in (*PARTS, "rest")]
    return [
        name,
        f"{plain['env_steps_per_s']:,.0f}",
        f"{plain['learns_per_s']:,.0f}",
        f"{floor:,.0f}" if floor else "-",
        f"{100 * report['outside_env_step']:.1f} %" if floor else "-",
        *shares,
    ]


def row(env_name: str, flags: argparse.Namespace) -> list[str]:
    """Take all turns in one environment and return its line."""
    own = ["--measure", "--env", env_name, "--seconds", flags.seconds, "--backend", flags.backend]
    plain, parts = [], []
    for _ in range(flags.rounds):
        plain.append(timing.run_module("benchmarks.online", [*own, "--plain"]))
        parts.append(timing.run_module("benchmarks.online", own))
    return own_row(env_name, timing.median_of(plain), timing.median_of(parts))


def main() -> None:
    parser = measure.parser(__doc__)
    timing_flags = argparse.ArgumentParser(
        parents=[parser], add_help=False, conflict_handler="resolve", description=__doc__
    )
    timing.add_flags(timing_flags, rounds=3, seconds=10.0)
    timing_flags.add_argument("--envs", nargs="+", default=ENVS)
    timing_flags.add_argument("--backend", default="gymnasium", help="as makeVectEnvs takes it")
    timing_flags.add_argument("--population", type=int, default=6)
    timing_flags.add_argument("--plain", action="store_true", help="without the parts")
    timing_flags.add_argument("--measure", action="store_true", help="one turn, here; prints JSON")
    flags = timing_flags.parse_args()
    if flags.measure:
        report = time_training(flags)
        sizes = {name: vars(flags)[name] for name in ("population", "hidden", "num_envs")}
        measure.report(timing.OURS, "train", timing.PACKAGES, algo="DQN", **report, **sizes)
        return
    note = (
        f"Medians of {flags.rounds} turns of {flags.seconds:g} s, one thread. *Floor*: the rate if"
        " only the sub-environments' own `step` and `reset` took time."
    )
    head = ["train()", "env-steps/s", "learns/s", "floor", "outside `env.step`", *PARTS, "rest"]
    table = timing.table(head, [row(env_name, flags) for env_name in flags.envs])
    timing.publish("Online training", f"{note}\n\n{table}", flags.write)


if __name__ == "__main__":
    main()
