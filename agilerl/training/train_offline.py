"""Offline evolutionary training: learning from recorded data, acting only to evaluate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from agilerl.data.offline_dataset import OfflineDataset, load
from agilerl.training.executors import Executor
from agilerl.training.run import Generation
from agilerl.training.settings import Settings
from agilerl.training.tasks import OfflineTask


def describe(dataset: OfflineDataset) -> str:
    """Return what a learnt policy has to beat, in one line."""
    own, policy = dataset.report.mean_return, dataset.policy_mean_return
    parts = [] if own is None else [f"data set {own:.1f}"]
    if policy is not None:
        name = dataset.attributes.get("policy", "behaviour")
        parts.append(f"the {name} policy that made it {policy:.1f}")
    return "mean return to beat: " + (", ".join(parts) if parts else "unknown")


def store(dataset: Any, memory: Any, env: Any, swap_channels: bool, all_rows: bool) -> str:
    """Fill ``memory`` from a data set of any kind, and return two lines about it.

    What was read from a file is let go of here: while the population trains, the data is in memory
    once.
    """
    data = load(dataset, env, swap_channels)
    data.fill(memory, env, swap_channels, all_rows)
    return f"{data.report}\n{describe(data)}"


def train(
    env: Any,
    env_name: str,
    dataset: Any,
    algo: Any,
    pop: Sequence[Any],
    memory: Any,
    swap_channels: bool = False,
    n_episodes: int = 2000,
    max_steps: int = 500,
    evo_epochs: int | Literal["auto"] = 5,
    evo_loop: int = 1,
    target: float | None = 200.0,
    tournament: Any = None,
    mutation: Any = None,
    checkpoint: int | None = None,
    checkpoint_path: str | Path | None = None,
    wb: bool = False,
    accelerator: Any = None,
    seed: int | None = None,
    callbacks: Sequence[Callable[[Generation], Any]] = (),
    eval_env: Any = None,
    eval_max_steps: int | None = None,
    resume: bool | Literal["auto", "force"] = False,
    keep: int = 2,
    all_rows: bool = False,
    verbose: bool = True,
    workers: int | Literal["auto"] = 0,
    executor: Executor | None = None,
    env_timeout: float | None = 60.0,
    threads: int = 1,
    select_every: int = 1,
    total_steps: int | None = None,
    time_limit: float | None = None,
    race: int = 0,
    confidence: float | None = None,
    env_restarts: int = 0,
) -> tuple[list[Any], list[list[float]]]:
    """Train a population on recorded transitions, and evolve it.

    The data is stored in ``memory`` once; an episode of an agent is then ``max_steps`` learn calls,
    whatever its ``learn_step``.  The environment is stepped to evaluate only, and those steps are
    the global steps.

    The arguments are those of ``agilerl.training.train.train``, without exploration; these differ:
        env: the environment to evaluate in, single or vector.
        dataset: an ``h5py.File``, a path, an ``OfflineDataset``, a dict of arrays, a Minari data
            set or a ``ReplayBuffer``; see ``agilerl.data.offline_dataset``.
        memory: the replay buffer that they share; the data is added to what it holds.
        swap_channels: images come as [H, W, C], from the environment and in the data.
        max_steps: learn calls of an episode, and longest evaluation episode.
        all_rows: where the data set is larger than ``memory``, enlarge ``memory`` (it must be
            empty) and take all of it; otherwise it is thinned out evenly, with a warning.
        select_every: evaluations between selections: frequent evaluation catches an agent at its
            best, rare selection lets settings show their worth.
        total_steps: the run ends at the first episode at which all agents together have taken so
            many steps, evaluation included.
        time_limit: the run ends at the first episode after so many seconds of this call, or where
            another evaluation would not fit.
        race: rounds of evaluation at most, after the first, for agents that may still be the best;
            an agent's fitness is the mean over its rounds.
        confidence: the run ends when the lower bound of the mean of the 100 episodes, at this level
            (0.9, say), reaches the target; None takes the mean as it is.

    Returns:
        The population as last evaluated, fittest first, and the fitnesses of each generation.

    Raises:
        ConfigError: on arguments that can't be used.
        DatasetError: if the data can't be used, or is of another environment.
        EnvError: if the environment can't be used.
    """
    settings = Settings.of({**locals(), "store_evaluation": False})
    told = store(dataset, memory, settings.env, swap_channels, all_rows)
    settings.fit_batches(len(memory))
    if verbose:
        print(told, file=sys.stderr)
    task = OfflineTask(**settings.task_arguments())
    return settings.run(task, {"all_rows": all_rows}, memory_is_data=True)
