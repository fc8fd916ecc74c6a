"""Record an offline data set: ``python -m agilerl.data.collect --env CartPole-v1 --out data.h5``.

``--policy`` is ``random`` or the checkpoint of an agent, ``--epsilon`` how much that agent
explores; ``--help`` lists the rest.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tqdm
from gymnasium import spaces

from agilerl import __version__, checkpoint
from agilerl.algorithms import AGENTS
from agilerl.components.make_env import make_env
from agilerl.components.spaces import continuous_bounds
from agilerl.components.transitions import TransitionStream, evaluate
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import AgileRLError, CheckpointError, check_float, check_int
from agilerl.seeding import derive, generator

Array = np.ndarray[Any, np.dtype[Any]]
Policy = Callable[[Array], Array]

#: Vector steps beyond an environment's share that its last episode may take to end.
PATIENCE = 1000
#: Steps of an evaluation episode, in an environment without a time limit.
LONGEST_EPISODE = 10_000


def random_policy(env: Any, seed: int | None) -> Policy:
    """Return a policy that draws actions uniformly."""
    rng = generator(seed, "random policy")
    space = env.single_action_space
    if isinstance(space, spaces.Discrete):
        return lambda states: rng.integers(space.n, size=len(states))
    low, high = continuous_bounds(env, space.shape[0])
    return lambda states: rng.uniform(low, high, (len(states), len(low))).astype(np.float32)


def saved_policy(
    path: str | Path, env: Any, epsilon: float, seed: int | None, swap_channels: bool = False
) -> Policy:
    """Return the policy of a saved agent, explored with ``epsilon``.

    Raises:
        CheckpointError: if there is none, or it can't be read.
        EnvError: if it is of another environment.
    """
    algo = checkpoint.load(path).get("algo")
    if algo not in AGENTS:
        raise CheckpointError(
            f"{path}: a checkpoint of {algo!r}; expected one of {', '.join(AGENTS)}."
        )
    agent = AGENTS[algo].load(path)
    agent.rng = generator(seed, "saved policy")
    agent.adapt_to_env(env)

    def act(states: Array) -> Array:
        turned = np.moveaxis(states, -1, 1) if swap_channels else states
        actions: Array = agent.getAction(turned, epsilon)
        return actions

    return act


def collect(
    env: Any,
    policy: Policy,
    steps: int,
    seed: int | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[str, Array]:
    """Return ``steps`` true transitions, as the columns of an offline data set.

    Every sub-environment records whole episodes until it has its share, so long episodes are as
    well represented as short ones; the rows are episode after episode, and only the last one in
    the data may be unfinished.  (An episode that goes on for ``PATIENCE`` steps beyond the share
    is cut, and marked in ``timeouts``.)

    Args:
        env: a vector environment.
        policy: maps states [num_envs, ...] to actions.
        steps: number of rows.
        seed: of the episodes.
        progress: called with the number of rows that were added.
    """
    stream = TransitionStream(env)
    share = -(-check_int("steps", steps) // stream.num_envs)
    limit = share + max(share, PATIENCE)
    counts = np.zeros(stream.num_envs, int)
    recording = np.ones(stream.num_envs, bool)
    columns: list[list[Array]] = [[] for _ in range(6)]
    owners: list[Array] = []
    reported = 0
    stream.reset(seed)
    while recording.any():
        stream.begin(policy(stream.state))
        step = stream.finish()
        live = recording & step.valid
        counts += live
        cut = (step.truncated & ~step.terminated) | (~step.ended & (counts >= limit))
        rows = (step.state, step.action, step.reward, step.next_state, step.terminated, cut)
        for column, values in zip(columns, rows, strict=True):
            column.append(values[live])
        owners.append(np.flatnonzero(live))
        recording &= ~((counts >= share) & step.ended) & (counts < limit)
        total = min(int(counts.sum()), steps)
        progress(total - reported)
        reported = total
    order = np.argsort(np.concatenate(owners), kind="stable")[:steps]
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    return {
        name: np.concatenate(column)[order] for name, column in zip(names, columns, strict=True)
    }


def mean_return(
    env: Any, policy: Policy, episodes: int, seed: int | None, swap_channels: bool = False
) -> float:
    """Return a policy's mean return over ``episodes`` fresh episodes."""
    limit = getattr(env.spec, "max_episode_steps", None) or LONGEST_EPISODE
    if seed is not None:
        env.reset(seed=seed)
    rounds = -(-episodes // env.num_envs)
    returns = evaluate(policy, env, rounds, limit, swap_channels)
    return float(returns.T.ravel()[:episodes].mean())


def record(
    env_name: str,
    policy: str = "random",
    steps: int = 100_000,
    seed: int | None = 0,
    epsilon: float = 0.0,
    num_envs: int = 16,
    episodes: int = 100,
    swap_channels: bool = False,
    verbose: bool = True,
) -> OfflineDataset:
    """Return a data set of a policy in an environment, with all that is known about it.

    Args:
        env_name: a gymnasium id.
        policy: "random", or the checkpoint of an agent.
        steps: rows.
        seed: of the environments and of the policy.
        epsilon: exploration of a saved agent.
        num_envs: environments stepped together.
        episodes: fresh ones over which the policy itself is measured.
        swap_channels: the agent reads images as [C, H, W], the environment gives [H, W, C].
        verbose: show a progress bar.
    """
    check_float("epsilon", epsilon, 0.0)
    check_int("num_envs", num_envs)
    check_int("episodes", episodes)
    env = InProcessVectorEnv([make_env(env_name) for _ in range(num_envs)])

    def fresh(key: str) -> tuple[Policy, int | None]:
        own = None if seed is None else derive(seed, key)
        if policy == "random":
            return random_policy(env, own), own
        return saved_policy(policy, env, epsilon, own, swap_channels), own

    try:
        act, own_seed = fresh("data")
        with tqdm.tqdm(
            total=steps,
            unit=" steps",
            desc=f"{env_name} ({policy})",
            disable=None if verbose else True,
        ) as bar:
            data = collect(env, act, steps, own_seed, bar.update)
        act, own_seed = fresh("measure")
        measured = mean_return(env, act, episodes, own_seed)
    finally:
        env.close()
    about: dict[str, Any] = {
        "env_id": str(env.spec.id if env.spec else env_name),
        "policy": "random" if policy == "random" else Path(policy).name,
        "epsilon": None if policy == "random" else epsilon,
        "policy_mean_return": measured,
        "policy_episodes": episodes,
        "num_envs": num_envs,
        "seed": seed,
        **versions(),
    }
    known = {name: value for name, value in about.items() if value is not None}
    return OfflineDataset.from_dict(data, where=env_name, attributes=known)


def versions() -> dict[str, str]:
    """Return the versions that shape a recording."""
    return {
        "agilerl_version": __version__,
        "gymnasium_version": gym.__version__,
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m agilerl.data.collect",
        description="Record an offline data set of a random policy or a saved agent.",
    )
    parser.add_argument("--env", default="CartPole-v1", help="gymnasium id")
    parser.add_argument("--policy", default="random", help="'random', or an agent's checkpoint")
    parser.add_argument("--epsilon", type=float, default=0.0, help="exploration of that agent")
    parser.add_argument("--steps", type=int, default=100_000, help="rows to record")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-envs", type=int, default=16, help="environments stepped together")
    parser.add_argument(
        "--episodes", type=int, default=100, help="fresh episodes that measure the policy"
    )
    parser.add_argument(
        "--channels-last", action="store_true", help="the agent was trained with CHANNELS_LAST"
    )
    parser.add_argument("--out", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Record a data set as the command line says."""
    flags = parse(arguments)
    try:
        dataset = record(
            flags.env,
            flags.policy,
            flags.steps,
            flags.seed,
            flags.epsilon,
            flags.num_envs,
            flags.episodes,
            flags.channels_last,
            not flags.quiet,
        )
        dataset.save(flags.out)
    except (AgileRLError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{flags.out}: {len(dataset):,} rows. {dataset.report}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
