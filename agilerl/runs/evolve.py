"""One line to begin: ``evolve`` trains a population from a blind start and returns a ``Run``."""

from __future__ import annotations

import itertools
import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.spaces import agent_shape
from agilerl.errors import CheckpointError, ConfigError, check_int
from agilerl.runs.evaluation import Evaluation
from agilerl.runs.evaluation import evaluate as evaluate_agent
from agilerl.runs.film import film
from agilerl.runs.report import write_report
from agilerl.runs.retrain import Retrained, retrain
from agilerl.runs.run_folder import (
    ELITE,
    HISTORY,
    SETTINGS,
    RunFolder,
    environment_of,
    load_elite,
    plain,
    read_rows,
    read_yaml,
)
from agilerl.runs.run_settings import evolution_of, name_of, plain_ranges, settings_of
from agilerl.seeding import derive
from agilerl.signals import exit_code
from agilerl.training.run import ENDLESS, Generation
from agilerl.training.train import train
from agilerl.training.train_offline import train as train_offline
from agilerl.utils.utils import initialPopulation, makeVectEnvs

#: The target must be reached by the lower bound of the mean at this level.
CONFIDENCE = 0.9
#: Share of a budget that training may take: the rest is for the evaluation at the end.
TRAINING_SHARE = 0.93
#: Seconds that the evaluation at the end may take at least, whatever the budget.
LAST_EVALUATION = 5.0
#: Seconds where nothing was said.
DEFAULT_BUDGET = 600.0


@dataclass
class Run:
    """A run that has ended, and what it left in its folder.

    Attributes:
        path: the folder; see ``agilerl.runs.run_folder``.
        elite: the best agent that ever was.
        population: as last evaluated, fittest first.
        history: one row for each agent and evaluation, a list of dicts.
        solved: whether the target was reached, and confirmed on 100 fresh episodes.
        global_steps: environment steps of all agents, evaluation included.
        evaluation: of the elite over 100 fresh episodes, or as many as the budget allows.
        env: the environment as it was given.
    """

    path: Path
    elite: Any
    population: list[Any]
    history: list[dict[str, Any]]
    solved: bool
    global_steps: int
    evaluation: Evaluation
    env: Any = field(repr=False)

    def evaluate(self, episodes: int = 100, seed: int | None = None) -> Evaluation:
        """Return what the elite's episodes give; see ``agilerl.evaluate``."""
        return evaluate_agent(self.elite, self.env, episodes, seed)

    def resume(self, **limits: Any) -> Run:
        """Go on with the run; see ``resume``."""
        return resume(self.path, env=self.env, **limits)

    def report(self) -> Path:
        """Write ``report.html`` and return its path; see ``agilerl.runs.report``."""
        return write_report(self.path)

    def retrain(self, seeds: int = 5, **options: Any) -> Retrained:
        """Train single agents along the elite's schedule; see ``agilerl.runs.retrain``."""
        return retrain(self.path, seeds, env=self.env, **options)

    def play(self, path: str | Path | None = None, **options: Any) -> Path:
        """Film an episode of the elite; see ``agilerl.runs.film``."""
        return film(self.path, path, env=self.env, agent=self.elite, **options)


def evolve(
    env: Any,
    algo: str | None = None,
    *,
    budget: str | float | None = None,
    steps: int | None = None,
    target: float | None = None,
    seed: int | None = None,
    workers: int | Literal["auto"] = "auto",
    out: str | Path = "runs",
    init_hp: Mapping[str, Any] | None = None,
    net_config: Mapping[str, Any] | None = None,
    mutation_params: Mapping[str, Any] | None = None,
    resume: bool = False,
    verbose: bool = True,
    callbacks: Sequence[Callable[[Generation], Any]] = (),
    dataset: str | Path | None = None,
) -> Run:
    """Train a population from a blind start, and return what it found.

    Every agent draws its learning rate, batch size and so on from ranges (``INIT_HP``,
    ``NET_CONFIG``); now and then the worst quarter is replaced, by new agents or by mutated
    children of the best.  Each default holds for every environment; none is known by name.  With
    neither ``budget``, ``steps`` nor ``target`` a run lasts until the environment's reward
    threshold is reached, and 10 minutes at most.

    Args:
        env: a gymnasium id, or a class or function that makes an environment.
        algo: "DQN", "DDPG", "TD3" or "CQN"; by default DQN for discrete and DDPG for continuous
            actions.
        budget: wall time until this returns: "90s", "10min", "2h", or seconds.  What can't be cut
            short, a first evaluation of long episodes say, goes on beyond it.
        steps: the run ends when all agents have taken so many steps, evaluation included.
        target: the run ends when the lower 90 % bound of the best agent's mean return over 100
            fresh episodes reaches it.
        seed: of everything that is drawn; None draws one, and notes it.
        workers: processes to train in; "auto" takes the cores that are there.
        out: folder of run folders.
        init_hp: keys of the README's INIT_HP, in place of the defaults; ranges are fine.
        net_config: shape of the networks, in place of the default.
        mutation_params: keys of the README's MUTATION_PARAMS, in place of the defaults.
        resume: go on with the newest run of this environment in ``out``.
        verbose: show progress on stderr.
        callbacks: each is called with every ``Generation``; one that returns True ends the run.
        dataset: learn from this HDF5 file alone, with CQN where actions are discrete; the
            environment is there to evaluate.

    Raises:
        ConfigError: on arguments that can't be used.
        DatasetError: if the data set can't be used, or is of another environment.
        EnvError: if the environment can't be used; ``agilerl.check_env`` says more.
    """
    if resume:
        limits = {"budget": budget, "steps": steps, "target": target, "workers": workers}
        path = newest(out, name_of(env))
        return continued(path, env, limits, verbose, callbacks)
    settings = settings_of(env, algo, init_hp, net_config, mutation_params, dataset)
    settings["seed"] = secrets.randbelow(2**31) if seed is None else check_int("seed", seed, 0)
    if budget is steps is target is None:
        budget, target = DEFAULT_BUDGET, settings["reward_threshold"]
    settings |= {"target": target, "steps": steps}
    settings["command"] = command_of(settings, budget, init_hp, mutation_params)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{settings['env']}-{settings['algo']}-{stamp}-{settings['seed']}"
    limit = None if budget is None else seconds_of(budget)
    path = fresh_folder(Path(out), re.sub(r"[^\w.-]+", "-", name))
    return trained(env, settings, path, limit, workers, False, verbose, callbacks)


def resume(
    path: str | Path,
    *,
    env: Any = None,
    budget: str | float | None = None,
    steps: int | None = None,
    target: float | None = None,
    workers: int | Literal["auto"] = "auto",
    verbose: bool = True,
    callbacks: Sequence[Callable[[Generation], Any]] = (),
) -> Run:
    """Go on with a run, as if it had never been stopped.

    Args:
        path: folder of the run.
        env: the class or function that made its environment, where that was no id.
        budget: wall time from now on; see ``evolve``.
        steps: of the whole run, earlier ones included.
        target: by default that of the run.
        workers: may be others than before.
        verbose: show progress on stderr.
        callbacks: as in ``evolve``; they see new generations only.

    Raises:
        CheckpointError: if there is no such run, or it can't be read.
    """
    given = environment_of(path) if env is None else env
    limits = {"budget": budget, "steps": steps, "target": target, "workers": workers}
    return continued(Path(path), given, limits, verbose, callbacks)


def continued(
    path: Path,
    env: Any,
    limits: Mapping[str, Any],
    verbose: bool,
    callbacks: Sequence[Callable[[Generation], Any]],
) -> Run:
    """Go on with the run in ``path``, with other limits where they are given."""
    settings = read_yaml(path, SETTINGS)
    settings.pop("versions", None)
    missing = {"env", "algo", "seed", "init_hp", "net_config", "mutation_params"} - set(settings)
    if missing:
        raise CheckpointError(
            f"{path / SETTINGS}: no {', '.join(sorted(missing))}; only a run that evolve() or"
            " `agilerl train` began can go on here."
        )
    for name in ("steps", "target"):
        if limits[name] is not None:
            settings[name] = limits[name]
    budget = limits["budget"]
    if budget is None and settings.get("steps") is None:
        budget = DEFAULT_BUDGET
    limit = None if budget is None else seconds_of(budget)
    return trained(env, settings, path, limit, limits["workers"], True, verbose, callbacks)


def trained(
    env: Any,
    settings: Mapping[str, Any],
    path: Path,
    limit: float | None,
    workers: int | Literal["auto"],
    going_on: bool,
    verbose: bool,
    callbacks: Sequence[Callable[[Generation], Any]],
    evolution: tuple[Any, Any] | None = None,
) -> Run:
    """Train with these settings in the folder ``path``, and return the run.

    ``limit`` is in seconds from now; ``evolution`` stands in for the selection and the mutations of
    the settings.
    """
    start, seed = time.perf_counter(), settings["seed"]
    tournament, mutation = evolution_of(settings) if evolution is None else evolution
    vector = makeVectEnvs(env, num_envs=settings["envs"]["train"], seed=seed)
    eval_env = makeVectEnvs(env, num_envs=settings["envs"]["evaluate"], seed=seed)
    folder = RunFolder(path, settings)
    last: list[Generation] = []
    try:
        population, _ = learner(settings, vector)(
            **training_arguments(settings, vector),
            n_episodes=ENDLESS,
            **settings["schedule"],
            target=settings["target"],
            total_steps=settings["steps"],
            time_limit=None if limit is None else TRAINING_SHARE * limit,
            confidence=CONFIDENCE,
            tournament=tournament,
            mutation=mutation,
            checkpoint=10,
            checkpoint_path=path,
            resume="auto" if going_on else False,
            seed=seed,
            callbacks=[folder, lambda generation: last.append(generation), *callbacks],
            eval_env=eval_env,
            eval_max_steps=settings["eval_max_steps"],
            workers=workers,
            verbose=verbose,
        )
    finally:
        vector.close()
        eval_env.close()
    left = None if limit is None else limit - (time.perf_counter() - start)
    if exit_code():  # a signal has ended it, and whoever sent it waits
        left = 0.0
    return ended(env, settings, folder, population, last, left)


def training_arguments(settings: Mapping[str, Any], env: Any) -> dict[str, Any]:
    """Return who learns in ``env``, and from what, as arguments of ``train()``."""
    seed, hp, shape = settings["seed"], settings["init_hp"], agent_shape(env)
    return {
        "env_name": settings["env"],
        "algo": settings["algo"],
        "pop": initialPopulation(
            settings["algo"],
            **shape.arguments,
            net_config=settings["net_config"],
            INIT_HP=hp,
            population_size=hp["POP_SIZE"],
            seed=seed,
        ),
        "memory": ReplayBuffer(
            shape.arguments["action_dim"],
            hp["MEMORY_SIZE"],
            ["state", "action", "reward", "next_state", "done"],
            seed=seed,
            next_state_is_next_row=settings["net_config"]["arch"] == "cnn",
        ),
        "swap_channels": shape.channels_last,
    }


def learner(settings: Mapping[str, Any], env: Any) -> Callable[..., Any]:
    """Return the ``train()`` of a run: in its environment, or on its data set."""
    if "dataset" in settings:
        return partial(train_offline, env=env, dataset=settings["dataset"], all_rows=True)
    return partial(train, env=env, store_evaluation=True)


def ended(
    env: Any,
    settings: Mapping[str, Any],
    folder: RunFolder,
    population: list[Any],
    last: Sequence[Generation],
    left: float | None,
) -> Run:
    """Evaluate the elite on fresh episodes, complete the folder, and return the run.

    ``left`` are the seconds that are left of a budget.
    """
    elite = last[-1].best_ever if last else None
    if elite is None:  # nothing was evaluated now: perhaps it was before
        there = (folder.path / ELITE).exists()
        elite = load_elite(folder.path) if there else population[0]
    seconds = None if left is None else max(left, LAST_EVALUATION)
    found = evaluate_agent(elite, env, seed=derive(settings["seed"], "elite"), seconds=seconds)
    if last:
        count = len(found.returns)
        folder.save_elite({"mean": found.mean, "ci95": list(found.ci95), "episodes": count})
        folder.close(settings["target"])
    rows = folder.rows or (read_rows(folder.path) if (folder.path / HISTORY).exists() else [])
    return Run(
        path=folder.path,
        elite=elite,
        population=population,
        history=rows,
        solved=bool(last) and last[-1].solved,
        global_steps=int(rows[-1]["global_steps"]) if rows else 0,
        evaluation=found,
        env=env,
    )


def command_of(
    settings: Mapping[str, Any],
    budget: str | float | None,
    init_hp: Mapping[str, Any] | None,
    mutation_params: Mapping[str, Any] | None,
) -> str:
    """Return the command that repeats a run (where its environment has an id)."""
    words = ["agilerl", "train", settings["env"]]
    for name, value in {**plain_ranges(init_hp or {}), **(mutation_params or {})}.items():
        text = yaml.safe_dump(plain(value), default_flow_style=True).replace("\n...", "").strip()
        words.append(f"{name}={text}")
    words += ["--algo", settings["algo"], "--seed", str(settings["seed"])]
    words += ["--dataset", settings["dataset"]] if "dataset" in settings else []
    for name in ("steps", "target"):
        if settings[name] is not None:
            words += [
                f"--{name}",
                f"{settings[name]:g}" if name == "target" else str(settings[name]),
            ]
    return shlex.join(words + ([] if budget is None else ["--budget", str(budget)]))


def seconds_of(budget: str | float) -> float:
    """Return a duration, "90s", "10min", "2h" or a number of seconds, in seconds."""
    units = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", str(budget).lower())
    if match is None or match[2] not in units or float(match[1]) <= 0:
        raise ConfigError(
            f"budget: expected a duration like '90s', '10min' or '2h', or seconds; got {budget!r}."
        )
    return float(match[1]) * units[match[2]]


def fresh_folder(out: Path, name: str) -> Path:
    """Make and return a folder that nobody has: ``name``, or ``name-2`` and so on.

    Raises:
        ConfigError: if folders can't be made there.
    """
    for number in itertools.count(1):
        path = out / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise ConfigError(f"out: {path} is a file; choose another folder.") from None
        except OSError as error:
            raise ConfigError(f"out: {out} can't be written to ({error}).") from error
        else:
            return path
    raise AssertionError("count() does not end")


def newest(out: str | Path, env: str) -> Path:
    """Return the folder of the newest run of an environment; raise if there is none."""
    found = [
        path.parent
        for path in Path(out).glob(f"*/{SETTINGS}")
        if read_yaml(path.parent, SETTINGS).get("env") == env
    ]
    if not found:
        raise CheckpointError(
            f"resume: no run of {env} in {Path(out)}/; leave resume=False to begin one."
        )
    return max(found, key=lambda path: (path / SETTINGS).stat().st_mtime)
