"""The arguments that ``train()`` and ``train_offline.train()`` share, checked and put to use."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.spaces import single_spaces
from agilerl.components.transitions import as_vector_env, autoreset_mode
from agilerl.errors import ConfigError, check_float, check_int
from agilerl.hpo.mutation import Mutations
from agilerl.threads import limited_threads
from agilerl.training.checkpoints import CheckpointStore, RunCheckpoints, open_checkpoints
from agilerl.training.executors import Executor, chosen_executor
from agilerl.training.history import hyperparameters
from agilerl.training.observers import Progress
from agilerl.training.run import Generation, Plan, RunObserver, run
from agilerl.training.run_state import RunState
from agilerl.training.tasks import EnvironmentTask
from agilerl.training.wandb_log import WandbLogger

#: Episodes between checkpoints, where evaluations have no fixed interval.
CHECKPOINT_EVERY = 10
NEEDED = ("getAction", "learn", "test", "clone", "index", "scores", "fitness", "steps")


#: What a run calls of the objects that it is given, and what they should be.
PARTS = {
    "memory": ("save2memoryVectEnvs", "sample", "__len__"),
    "tournament": ("select",),
    "mutation": ("mutation",),
}
EXPECTED = {
    "memory": "a ReplayBuffer",
    "tournament": "a TournamentSelection, a TruncationSelection or None",
    "mutation": "Mutations or None",
}
OPTIONAL = ("tournament", "mutation")


@dataclass(frozen=True)
class Settings:
    """The arguments that online and offline training have in common; see ``train()``."""

    env: Any
    env_name: str
    algo: Any
    pop: Sequence[Any]
    memory: Any
    swap_channels: bool
    n_episodes: int
    max_steps: int
    evo_epochs: int | Literal["auto"]
    evo_loop: int
    target: float | None
    tournament: Any
    mutation: Any
    checkpoint: int | None
    checkpoint_path: str | Path | None
    resume: bool | str
    keep: int
    wb: bool
    accelerator: Any
    seed: int | None
    callbacks: Sequence[Callable[[Generation], Any]]
    eval_env: Any
    eval_max_steps: int | None
    verbose: bool
    workers: int | Literal["auto"]
    executor: Executor | None
    env_timeout: float | None
    env_restarts: int
    threads: int
    select_every: int
    total_steps: int | None
    time_limit: float | None
    race: int
    confidence: float | None
    store_evaluation: bool

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """Return the settings among the arguments of a ``train()``, checked."""
        known = {field.name: arguments[field.name] for field in fields(cls)}
        callbacks = () if known["callbacks"] is None else known["callbacks"]
        if callable(callbacks):
            raise ConfigError("callbacks: expected a list of functions; put yours in a list.")
        settings = cls(**{**known, "callbacks": callbacks, "env": as_vector_env(known["env"])})
        settings.check()
        return settings

    def check(self) -> None:
        """Raise ``ConfigError`` on arguments that can't be used."""
        if self.accelerator is not None:
            raise ConfigError("accelerator: only None is supported; pass device= to use a GPU.")
        self._check_numbers()
        if not isinstance(self.pop, Sequence) or not self.pop:
            raise ConfigError(
                f"pop: expected a list of agents, got {self.pop!r}; make one with"
                " initialPopulation(...), or put your agent in a list."
            )
        self._check_parts()
        self._check_agents()
        self._check_saving()
        if self.tournament is None and self.mutation is not None:
            raise ConfigError(
                "mutation: without a tournament the agents that were evaluated would be changed"
                " and nothing selected; pass tournament=TournamentSelection(...) as well."
            )
        size = getattr(self.tournament, "tournament_size", 0)
        if size > len(self.pop):
            raise ConfigError(
                f"tournament_size: {size} is more than the population ({len(self.pop)})."
            )

    def _check_numbers(self) -> None:
        for name in ("n_episodes", "max_steps", "evo_loop", "select_every", "threads"):
            check_int(name, getattr(self, name))
        if self.evo_epochs != "auto":
            check_int("evo_epochs", self.evo_epochs)
        for name in ("race", "env_restarts"):
            check_int(name, getattr(self, name), minimum=0)
        for name in ("total_steps", "checkpoint", "eval_max_steps"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name))
        if self.time_limit is not None:
            check_float("time_limit", self.time_limit, 0.0)
        if self.confidence is not None:
            check_float("confidence", self.confidence, 0.5, 0.999)
        if self.target is not None:
            check_float("target", self.target)

    def _check_parts(self) -> None:
        """Raise ``ConfigError`` on objects that a run could not use when it comes to them."""
        for name, methods in PARTS.items():
            part = getattr(self, name)
            missing = [method for method in methods if not hasattr(part, method)]
            if missing and not (part is None and name in OPTIONAL):
                raise ConfigError(
                    f"{name}: expected {EXPECTED[name]}, got {part!r}, which has no"
                    f" {', '.join(missing)}."
                )
        for callback in self.callbacks:
            if not callable(callback):
                raise ConfigError(
                    f"callbacks: expected functions of a Generation, got {callback!r}."
                )

    def _check_agents(self) -> None:
        needed = (*NEEDED, "batch_size", "learn_step")
        for agent in self.pop:
            missing = [name for name in needed if not hasattr(agent, name)]
            if missing:
                raise ConfigError(
                    f"pop: {type(agent).__name__} has no {', '.join(missing)}; a training loop"
                    f" needs {', '.join(needed)}."
                )

    def _check_saving(self) -> None:
        for agent in self.pop:
            if self.saves and not hasattr(agent, "load_state_dict"):
                raise ConfigError(
                    f"checkpoint: {type(agent).__name__} has no state_dict() and"
                    " load_state_dict(state), so a run of it can't be saved; add them, or pass"
                    " checkpoint=None."
                )
            if self.env_restarts and not hasattr(agent, "load_state_dict"):
                raise ConfigError(
                    f"env_restarts: {type(agent).__name__} has no state_dict() and"
                    " load_state_dict(state), so an episode of it can't be begun again; add them,"
                    " or pass env_restarts=0."
                )
        if self.saves and self.memory is not None and type(self.memory) is not ReplayBuffer:
            raise ConfigError(
                f"checkpoint: a {type(self.memory).__name__} can't be saved; use a ReplayBuffer, or"
                " pass checkpoint=None."
            )
        if self.resume and self.checkpoint_path is None:
            raise ConfigError("resume: pass checkpoint_path, the directory of the run.")
        check_int("keep", self.keep)

    @property
    def saves(self) -> bool:
        """Whether the run is saved as it goes."""
        return self.checkpoint is not None or bool(self.resume)

    def fit_batches(self, capacity: int) -> None:
        """Raise if a batch is larger than ``capacity``, and keep mutations from making it so."""
        largest = max(int(agent.batch_size) for agent in self.pop)
        if largest > capacity:
            raise ConfigError(
                f"batch_size: {largest} is more than the replay buffer can hold ({capacity}), so"
                " nothing would ever be learnt; enlarge MEMORY_SIZE or lower BATCH_SIZE."
            )
        if isinstance(self.mutation, Mutations):
            self.mutation.limit("batch_size", capacity)

    def task_arguments(self) -> dict[str, Any]:
        """Return the arguments of an ``EnvironmentTask``; agents learn the environment's bounds."""
        eval_env = self.env if self.eval_env is None else as_vector_env(self.eval_env)
        autoreset_mode(eval_env)
        for agent in self.pop:
            if hasattr(agent, "adapt_to_env"):
                agent.adapt_to_env(eval_env)
        return {
            "eval_env": eval_env,
            "swap_channels": self.swap_channels,
            "max_steps": self.max_steps,
            "eval_max_steps": self.eval_max_steps or self.max_steps,
            "evo_loop": self.evo_loop,
            "store_evaluation": self.store_evaluation,
            "env_restarts": self.env_restarts,
            "confidence": self.confidence,
        }

    def run(
        self, task: EnvironmentTask, more: Mapping[str, Any], memory_is_data: bool = False
    ) -> tuple[list[Any], list[list[float]]]:
        """Train the population; return it as last evaluated, fittest first, and all fitnesses.

        Args:
            task: how agents train and are evaluated.
            more: settings of the task, which a run that goes on must have as well.
            memory_is_data: the buffer holds a data set, and is not saved.
        """
        seed = secrets.randbelow(2**31) if self.seed is None else self.seed
        pop, memory = list(self.pop), self.memory
        state = RunState(pop, memory, self.tournament, self.mutation, seed)
        state.memory_is_data = memory_is_data
        plan = Plan(**{field.name: getattr(self, field.name) for field in fields(Plan)})
        chosen = chosen_executor(self.workers, self.executor, self.env_timeout, len(pop))
        with limited_threads(self.threads), closing(task), chosen as executor:
            executor.begin(task, pop, memory)
            observers = self.observers(state, more, plan, getattr(task, "epsilon", None))
            if state.episode:  # it goes on: workers take the buffer that was loaded
                executor.begin(task, state.population, memory)
            return run(task, state, plan, executor, observers, self.callbacks)

    def observers(
        self,
        state: RunState,
        more: Mapping[str, Any],
        plan: Plan,
        exploration: Callable[[int], float] | None,
    ) -> list[RunObserver]:
        """Return what watches the run; ``state`` is put to where it goes on, if it does."""
        observers: list[RunObserver] = []
        if self.wb:
            observers.append(WandbLogger("agilerl", self.summary()))
        if self.saves:
            observers.append(self.checkpoints(state, {**self.compared(), **more}))
        if self.verbose:
            observers.append(Progress(plan, exploration=exploration))
            if self.seed is None:
                print(f"seed {state.seed} (none was given; it repeats the run)", file=sys.stderr)
        return observers

    def checkpoints(self, state: RunState, settings: Mapping[str, Any]) -> RunCheckpoints:
        """Return what saves the run; ``state`` is put to where it goes on, if it does."""
        now = time.strftime("%Y%m%d-%H%M%S")
        name = f"{self.env_name}-{self.algo}-{now}-{state.seed}".replace("/", "-")
        store = CheckpointStore(self.checkpoint_path or Path("runs") / name, self.keep)
        auto = CHECKPOINT_EVERY if self.evo_epochs == "auto" else self.evo_epochs
        every = auto if self.checkpoint is None else self.checkpoint
        return open_checkpoints(store, state, every, self.resume, {**settings, "seed": self.seed})

    def compared(self) -> dict[str, Any]:
        """Return the settings that a run must have again when it goes on."""
        names = (
            "swap_channels",
            "max_steps",
            "evo_epochs",
            "evo_loop",
            "eval_max_steps",
            "select_every",
            "race",
            "confidence",
            "store_evaluation",
            "threads",
        )
        envs = {"env": self.env, "eval_env": self.env if self.eval_env is None else self.eval_env}
        return {
            **{name: getattr(self, name) for name in names},
            **{name: describe_env(env) for name, env in envs.items()},
            "pop": [agent.settings() for agent in self.pop if hasattr(agent, "settings")],
            "memory": getattr(self.memory, "settings", None),
            **{
                name: getattr(self, name).state_dict()["settings"]
                for name in ("tournament", "mutation")
                if hasattr(getattr(self, name), "state_dict")
            },
        }

    def summary(self) -> dict[str, Any]:
        """Return the settings that a log notes."""
        spec = getattr(self.env, "spec", None)
        first = self.pop[0]
        return {
            **{name: value for name, value in self.compared().items() if name != "pop"},
            "env_name": getattr(spec, "id", None) or self.env_name,
            "n_episodes": self.n_episodes,
            "total_steps": self.total_steps,
            "target": self.target,
            "algo": str(self.algo),
            "population_size": len(self.pop),
            "agent": first.settings() if hasattr(first, "settings") else hyperparameters(first),
            "agents": [hyperparameters(agent) for agent in self.pop],
            "seed": self.seed,
        }


def describe_env(env: Any) -> dict[str, Any]:
    """Return what two environments must have in common to be the same to a run."""
    env = as_vector_env(env)
    spec = getattr(env, "spec", None)
    return {
        "id": getattr(spec, "id", None),
        "num_envs": int(env.num_envs),
        "spaces": [str(space) for space in single_spaces(env)],
        "autoreset": autoreset_mode(env).value,
    }
