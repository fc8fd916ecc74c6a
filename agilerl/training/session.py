"""What ``train()`` and ``train_offline.train()`` share: everything but how an episode is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agilerl.algorithms.base import EvolvableAgent
from agilerl.components.transitions import as_vector_env, autoreset_mode
from agilerl.errors import ConfigError, check_float, check_int
from agilerl.hpo.mutation import Mutations
from agilerl.threads import one_thread
from agilerl.training.evolution import (
    CHECK_EPISODES,
    CountedEnv,
    Evaluator,
    Generation,
    generations,
)
from agilerl.training.observers import Checkpoints, Observer, Progress, clock
from agilerl.training.wandb_log import WandbLogger

#: Networks of fewer parameters are faster on one thread.
SMALL_NETWORK = 1_000_000

NEEDED = ("getAction", "learn", "test", "clone", "index", "scores", "fitness", "steps")


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
    evo_epochs: int
    evo_loop: int
    target: float | None
    tournament: Any
    mutation: Any
    checkpoint: int | None
    checkpoint_path: str | Path | None
    wb: bool
    accelerator: Any
    seed: int | None
    callbacks: Sequence[Observer]
    eval_env: Any
    eval_max_steps: int | None
    verbose: bool

    def check(self) -> None:
        """Raise ``ConfigError`` on arguments that can't be used."""
        if self.accelerator is not None:
            raise ConfigError("accelerator: only None is supported; pass device= to use a GPU.")
        for name in ("n_episodes", "max_steps", "evo_epochs", "evo_loop"):
            check_int(name, getattr(self, name))
        if self.target is not None:
            check_float("target", self.target)
        if self.checkpoint is not None:
            check_int("checkpoint", self.checkpoint)
        if not self.pop:
            raise ConfigError("pop: empty; make one with initialPopulation(...).")
        needed = (*NEEDED, "batch_size", "learn_step")
        for agent in self.pop:
            missing = [name for name in needed if not hasattr(agent, name)]
            if missing:
                raise ConfigError(
                    f"pop: {type(agent).__name__} has no {', '.join(missing)}; a training loop"
                    f" needs {', '.join(needed)}."
                )
            if self.checkpoint is not None and not hasattr(agent, "saveCheckpoint"):
                raise ConfigError(
                    f"checkpoint: {type(agent).__name__} has no saveCheckpoint(path); add it, or"
                    " pass checkpoint=None."
                )
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


@contextmanager
def suitable_threads(pop: Sequence[Any]) -> Iterator[None]:
    """Run small networks on one thread, and restore what was set.

    On a busy machine two threads on small networks are many times slower than one.
    """
    own = [agent for agent in pop if isinstance(agent, EvolvableAgent)]
    networks = [net.module for agent in own for net in agent.networks.values()]
    small = all(sum(p.numel() for p in net.parameters()) < SMALL_NETWORK for net in networks)
    dense = all(p.dim() < 4 for net in networks for p in net.parameters())
    with one_thread() if networks and small and dense else nullcontext():
        yield


def run(
    settings: Settings, spend_episode: Callable[[Any, int, int], int]
) -> tuple[list[Any], list[list[float]]]:
    """Train a population; return it as last evaluated, fittest first, and all fitnesses.

    Ctrl-C ends the run with what was reached.  Another exception goes on to the caller, with the
    population as last evaluated in its attribute ``population``.
    """
    s = settings
    eval_env = as_vector_env(s.env if s.eval_env is None else s.eval_env)
    autoreset_mode(eval_env)
    for agent in s.pop:
        if hasattr(agent, "bind"):
            agent.bind(eval_env)
    evaluator = Evaluator(
        CountedEnv(eval_env),
        s.swap_channels,
        s.eval_max_steps or s.max_steps,
        s.evo_loop,
        s.target,
        s.seed,
    )
    progress = Progress(s.n_episodes) if s.verbose else None
    logger = WandbLogger("agilerl", _config(s)) if s.wb else None
    watchers: list[Any] = [progress] if progress else []
    if s.checkpoint is not None:
        watchers.append(Checkpoints(s.checkpoint_path or "checkpoints", s.checkpoint))
    observers = [o for o in (progress, logger) if o is not None]

    def after_episode(episode: int, global_steps: int, pop: Sequence[Any]) -> None:
        for watcher in watchers:
            watcher.after_episode(episode, global_steps, pop)

    fitnesses: list[list[float]] = []
    last: Generation | None = None
    end = "interrupted"
    try:
        with suitable_threads(s.pop):
            for last in generations(
                s.pop,
                spend_episode,
                evaluator,
                s.n_episodes,
                s.evo_epochs,
                s.tournament,
                s.mutation,
                after_episode,
            ):
                fitnesses.append(list(last.fitnesses))
                for observe in (*observers, *s.callbacks):
                    observe(last)
            end = "solved" if last is not None and last.solved else "all episodes spent"
    except KeyboardInterrupt:
        pass
    except Exception as error:
        error.population = ranked(last, s.pop)  # type: ignore[attr-defined]
        error.add_note("The population as last evaluated is in this exception's .population.")
        raise
    finally:
        if progress is not None:
            progress.close(ending(end, last))
        if logger is not None:
            logger.close()
    return ranked(last, s.pop), fitnesses


def ranked(last: Generation | None, pop: Sequence[Any]) -> list[Any]:
    """Return the population of a generation, fittest first; ``pop`` where there was none."""
    return list(pop) if last is None else [last.population[place] for place in last.ranking]


def ending(end: str, last: Generation | None) -> str:
    """Return how a run ended, in lines of at most 80 columns."""
    if last is None:
        return f"{end}: nothing was evaluated yet"
    line = f"{end}: best fitness {last.best_fitness:.1f}"
    if last.check is not None:
        line += f", {last.check:.1f} over {CHECK_EPISODES} episodes"
    trained, tested = last.train_steps, last.eval_steps
    took = clock(last.seconds)
    return f"{line}\n{trained:,} training + {tested:,} evaluation steps in {took}"


def _config(s: Settings) -> dict[str, Any]:
    names = ("env_name", "n_episodes", "max_steps", "evo_epochs", "evo_loop", "target", "seed")
    return {
        **{name: getattr(s, name) for name in names},
        "algo": str(s.algo),
        "population_size": len(s.pop),
    }
