"""Where a language run stands: kept on disk at every evaluation, so that it can go on."""

from __future__ import annotations

import base64
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agilerl import checkpoint
from agilerl.algorithms.agent_state import stream_from, stream_state
from agilerl.errors import CheckpointError
from agilerl.training.evolution import Generation
from agilerl.training.observers import load_population, save_population

STATE = "run.pt"
BEST = "best.pt"


@dataclass(frozen=True)
class RunState:
    """A run as of its last evaluation, before selection.

    Attributes:
        population: the agents.
        episode: episodes that each has spent; 0 before the first evaluation.
        number: of the next generation.
        train_steps: games learnt from, by all agents.
        eval_steps: steps of all evaluations.
        seconds: of wall time.
        best_fitness: highest fitness so far.
        improved: whether the last evaluation reached it.
        history: one row for each agent and generation.
    """

    population: tuple[Any, ...]
    episode: int = 0
    number: int = 0
    train_steps: int = 0
    eval_steps: int = 0
    seconds: float = 0.0
    best_fitness: float = -float("inf")
    improved: bool = False
    history: tuple[dict[str, Any], ...] = ()

    @property
    def global_steps(self) -> int:
        """All steps."""
        return self.train_steps + self.eval_steps

    @property
    def best(self) -> Any:
        """The fittest agent of the last evaluation."""
        return max(self.population, key=lambda agent: finite(agent.fitness[-1]))

    def next_population(self, tournament: Any, mutation: Any) -> list[Any]:
        """Return the agents that train next: selected and mutated, where some were evaluated."""
        pop = list(self.population)
        if not self.number:
            return pop
        for agent in pop:
            agent.steps.append(agent.steps[-1])
        if tournament is not None:
            _, pop = tournament.select(pop)
        return pop if mutation is None else list(mutation.mutation(pop))

    def shift(self, generation: Generation) -> Generation:
        """Return a generation that was counted from this state on as one of the whole run."""
        number = self.number + generation.number
        records = tuple(replace(record, generation=number) for record in generation.records)
        for agent, record in zip(generation.population, records, strict=True):
            agent.lineage = (*agent.lineage[:-1], record)
        return replace(
            generation,
            number=number,
            episode=self.episode + generation.episode,
            train_steps=self.train_steps + generation.train_steps,
            eval_steps=self.eval_steps + generation.eval_steps,
            seconds=self.seconds + generation.seconds,
            records=records,
        )

    def follow(self, generation: Generation) -> RunState:
        """Return the state after a generation (of the whole run) was evaluated."""
        top = max(finite(fitness) for fitness in generation.fitnesses)
        return RunState(
            generation.population,
            generation.episode,
            generation.number + 1,
            generation.train_steps,
            generation.eval_steps,
            generation.seconds,
            max(self.best_fitness, top),
            top > self.best_fitness,
            (*self.history, *rows_of(generation)),
        )


def finite(fitness: float) -> float:
    """Return ``fitness``, -inf for what is not finite."""
    return fitness if np.isfinite(fitness) else -float("inf")


def rows_of(generation: Generation) -> list[dict[str, Any]]:
    """Return one row for each agent of a generation."""
    return [
        {
            "generation": generation.number,
            "episode": generation.episode,
            "global_steps": generation.global_steps,
            "seconds": round(generation.seconds, 1),
            "index": record.index,
            "parent": record.parent,
            "mutation": record.mutation,
            "fitness": record.fitness,
            "updates": agent.learn_count,
            "loss": agent.scores[-1],
            "architecture": record.architecture,
            **record.hyperparameters,
        }
        for agent, record in zip(generation.population, generation.records, strict=True)
    ]


def _dropout_state(agent: Any) -> str:
    """Return the state of the stream that dropout draws from; checkpoints leave it out."""
    state = agent.lm.drop.generator.get_state().cpu().numpy()
    return base64.b64encode(state.tobytes()).decode()


def _restore_dropout(agent: Any, text: str) -> None:
    state = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
    agent.lm.drop.generator.set_state(state)


def save_state(state: RunState, directory: Path, tournament: Any, mutation: Any) -> None:
    """Write the run to ``directory``: agents first, then the small file that refers to them.

    A kill at any moment leaves an earlier state that is complete.
    """
    folder = f"generation_{state.number - 1:06d}"
    save_population(state.population, directory / "last" / folder)
    if state.improved:
        state.best.saveCheckpoint(directory / BEST)
    drawers = {"tournament": tournament, "mutation": mutation}
    counts = ("episode", "number", "train_steps", "eval_steps", "seconds", "best_fitness")
    payload = {
        "folder": folder,
        **{name: getattr(state, name) for name in counts},
        "history": list(state.history),
        "dropout": {str(agent.index): _dropout_state(agent) for agent in state.population},
        "drawers": {k: stream_state(v.rng) for k, v in drawers.items() if v is not None},
        "ranges": (
            {}
            if mutation is None
            else {k: [r.low, r.high, r.log, r.integer] for k, r in mutation.ranges.items()}
        ),
    }
    checkpoint.save(directory / STATE, payload)
    for old in (directory / "last").iterdir():
        if old.name != folder:
            shutil.rmtree(old, ignore_errors=True)


def saved_history(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of the generations of the run in ``directory``; none where there is none."""
    path = directory / STATE
    rows: list[dict[str, Any]] = checkpoint.load(path)["history"] if path.is_file() else []
    return rows


def load_state(
    directory: Path, algorithm: Any, device: str, tournament: Any, mutation: Any
) -> RunState:
    """Return the state that ``save_state`` wrote; the drawers go on where they were.

    Raises:
        CheckpointError: if there is none, or it is inconsistent.
    """
    path = directory / STATE
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no run to go on with; leave resume out to begin.")
    payload = checkpoint.load(path)
    try:
        agents = load_population(algorithm, directory / "last" / payload["folder"], device)
        for agent in agents:
            _restore_dropout(agent, payload["dropout"][str(agent.index)])
        for name, drawer in (("tournament", tournament), ("mutation", mutation)):
            if drawer is not None:
                drawer.rng = stream_from(payload["drawers"][name])
        for name, (low, high, log, integer) in payload["ranges"].items():
            if mutation is not None and name in mutation.ranges:
                old = mutation.ranges[name]
                mutation.ranges[name] = replace(old, low=low, high=high, log=log, integer=integer)
        counts = ("episode", "number", "train_steps", "eval_steps", "seconds", "best_fitness")
        return RunState(
            tuple(agents),
            **{name: payload[name] for name in counts},
            history=tuple(payload["history"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: incomplete or inconsistent ({error!r}).") from error
