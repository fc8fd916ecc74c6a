"""A language run from its configuration to its result, for both algorithms."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from agilerl import checkpoint, signals
from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.algorithms.language_agent import LanguageAgent
from agilerl.errors import AgileRLError, check_int
from agilerl.training.checkpoints import CheckpointStore, RunCheckpoints, open_checkpoints
from agilerl.training.executors import chosen_executor
from agilerl.training.language_config import ILQLRunConfig, RunConfig
from agilerl.training.language_report import History, choose_beta, data_score, report
from agilerl.training.language_start import AnyRunConfig, start_agents
from agilerl.training.language_task import LanguageTask, check_train, evolution
from agilerl.training.observers import Progress
from agilerl.training.run import Plan, RunObserver, run
from agilerl.training.run_state import RunState
from agilerl.training.wandb_log import WandbLogger
from agilerl.training.wordle_setup import WordleSetup, wordle_setup
from agilerl.training.yaml_config import read_config
from agilerl.wordle.evaluate import Score

C = TypeVar("C", bound=RunConfig)

#: File of the best agent of a run.
BEST = "best.pt"

#: Parameters below which networks train on one thread.
SMALL = 2_000_000

logger = logging.getLogger("agilerl")


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        agent: the one of the highest mean reward in evaluations; where there was none, the first.
        scores: the rows of the table; empty where there was no evaluation.
        state: the population as last evaluated.
        directory: where everything was written.
    """

    agent: LanguageAgent
    scores: list[Score]
    state: RunState
    directory: Path


def run_experiment(config: AnyRunConfig, verbose: bool = True) -> Outcome:
    """Make the data if they are missing, train, evolve, measure, and write it all down.

    ``<out>/<name>`` gets ``best.pt``, ``history.csv``, ``curve.png``, ``results.md``, and what
    ``resume`` needs.

    Raises:
        ConfigError: on settings that can't be used.
        DatasetError: on data that can't be used.
        CheckpointError: on a checkpoint that is missing or of other tokens or sizes.
    """
    task = wordle_setup(config)
    agents = start_agents(config, task.tokenizer)
    lines = {"data": data_score(task).reward}
    for name in ("random", "information-gain"):
        lines[name] = float(task.final.play_by_rule(name, config.seed).returns.mean())
    history = History(config.directory, settings_of(config), **lines)
    state = train_population(config, agents, task.dataset, task.arena, [history], verbose)
    if not np.isfinite(state.best_fitness):
        logger.warning(
            "stopped before an evaluation gave a number: there is no result to show; let it run on,"
            " or lower train.eval_every"
        )
        return Outcome(agents[0], [], state, config.directory)
    history.draw()
    with torch_threads(threads_for(config.train.threads, agents)):
        return evaluate_best(config, task, state, verbose)


def settings_of(config: AnyRunConfig) -> dict[str, Any]:
    """Return what ``settings.yaml`` holds: plain values that repeat the run."""
    algo = "ILQL" if isinstance(config, ILQLRunConfig) else "BC"
    command = shlex.join([sys.executable, *sys.argv])
    values: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return {"env": "Wordle", "algo": algo, "command": command, **values}


def train_population(
    config: RunConfig,
    agents: Sequence[LanguageAgent],
    dataset: Any,
    arena: Any,
    observers: Sequence[RunObserver] = (),
    verbose: bool = True,
) -> RunState:
    """Train and evolve a population; return the state as of its last evaluation.

    ``best.pt`` in the run's directory is the agent of the highest mean return in the arena so
    far, and ``last`` the whole population, from which ``resume`` goes on.  Ctrl-C ends the run
    with what was reached.

    Args:
        config: of the run.
        agents: the population.
        dataset: see ``LanguageTask``.
        arena: likewise.
        observers: of the run, beside those that the configuration asks for.
        verbose: show progress on stderr.

    Raises:
        ConfigError: on settings that can't be used.
        CheckpointError: if ``resume`` is set and there is nothing to go on from.
    """
    train = check_train(config.train)
    tournament, mutation = evolution(config, agents, len(dataset))
    state = RunState(list(agents), None, tournament, mutation, config.seed)
    total = -(-train.updates // train.report_every)
    plan = Plan(total, train.eval_every // train.report_every, train.target)
    own: list[RunObserver] = [Progress(plan)] if verbose else []
    if config.wandb:
        own.append(WandbLogger("agilerl", asdict(config)))
    threads = threads_for(train.threads, agents)
    if verbose and train.threads is None:
        size = max(map(parameters_of, agents)) / 1e6
        print(
            f"torch threads {threads}, for networks of {size:.1f}M parameters (train.threads)",
            file=sys.stderr,
        )
    with (
        torch_threads(threads),
        chosen_executor(train.workers, None, None, len(agents)) as executor,
    ):
        task = LanguageTask(dataset, arena, train)
        executor.begin(task, state.population, None)
        own.append(checkpoints(config, state, dataset))
        run(task, state, plan, executor, [*own, *observers])
    return state


def checkpoints(config: RunConfig, state: RunState, dataset: Any) -> RunCheckpoints:
    """Return what saves a run at each evaluation; ``state`` is put to where it goes on."""
    train = check_train(config.train)
    values = asdict(config)
    free = {"name", "out", "resume", "wandb", "device"}
    settings = {name: value for name, value in values.items() if name not in free}
    settings["train"] = {
        name: value
        for name, value in values["train"].items()
        if name not in ("updates", "target", "threads", "workers")
    }
    settings["games"] = len(dataset)
    store = CheckpointStore(config.directory)
    every = train.eval_every // train.report_every
    return open_checkpoints(store, state, every, config.resume, settings, elite=BEST)


def parameters_of(agent: LanguageAgent) -> int:
    """Return how many parameters the networks of an agent have."""
    return sum(p.numel() for net in agent.networks.values() for p in net.module.parameters())


def threads_for(threads: int | None, agents: Sequence[LanguageAgent]) -> int:
    """Return how many threads of torch to use: those that were given, or by the networks' size.

    Small matrix products hardly gain from a second thread, and lose much where it has to wait for a
    core that something else keeps busy.
    """
    if threads is not None:
        return check_int("train.threads", threads)
    return 1 if max(map(parameters_of, agents)) < SMALL else torch.get_num_threads()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run on so many threads of torch, and restore what was set."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluate_best(
    config: AnyRunConfig, task: WordleSetup, state: RunState, verbose: bool
) -> Outcome:
    """Return the outcome of a run: its best agent, measured on the final games."""
    path = config.directory / BEST
    agent: LanguageAgent = (ILQL if isinstance(config, ILQLRunConfig) else BC_LM).load(
        path, config.device
    )
    if isinstance(agent, ILQL):
        agent.beta = choose_beta(agent, task, config.evaluate.betas, config.seed)
        agent.saveCheckpoint(path)
    scores = report(
        agent,
        cloned_base(config),
        task,
        config.evaluate,
        config.seed,
        config.directory,
        print if verbose else lambda text: None,
    )
    return Outcome(agent, scores, state, config.directory)


def cloned_base(config: AnyRunConfig) -> LanguageAgent | None:
    """Return the cloned policy that an ILQL run started from, if it did from one."""
    load = config.model.load
    if not isinstance(config, ILQLRunConfig) or load is None or not Path(load).is_file():
        return None
    if checkpoint.load(load)["algo"] != BC_LM.algo:
        return None
    return BC_LM.load(load, config.device)


def command(
    kind: type[C],
    train: Callable[[C], object],
    default: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a script's command line and return its exit status.

    Args:
        kind: of configuration.
        train: what to do with it.
        default: its YAML file, where none is named.
        description: of the script.
        argv: the arguments; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog="example: agent.lr=5e-4 population.size=4 name=evolved",
    )
    parser.add_argument("--config", default=default, help="YAML file (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="change a setting")
    arguments = parser.parse_args(argv)
    try:
        train(read_config(kind, arguments.config, arguments.overrides))
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return signals.exit_code()
