"""Where a language run stands: kept on disk at every evaluation, so that it can go on."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from agilerl import checkpoint
from agilerl.errors import CheckpointError
from agilerl.seeding import load_stream_state, stream_state
from agilerl.training.observers import load_population, save_population
from agilerl.training.run import Generation, RunObserver, RunState

STATE = "run.pt"
BEST = "best.pt"
COUNTS = (
    "episode",
    "generation",
    "train_steps",
    "eval_steps",
    "seconds",
    "evaluated",
    "best_fitness",
)


class LanguageCheckpoints(RunObserver):
    """Keeps the state of a run on disk, as of its last evaluation, and the best agent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.best_ever: Any = None

    def after_episode(self, state: RunState, ending: bool) -> None:
        """Save the state, if it was evaluated or is the last."""
        if state.evaluated or ending:
            save_state(state, self.directory)

    def __call__(self, generation: Generation) -> None:
        """Save the best agent, if it is a new one."""
        if generation.best_ever is not None and generation.best_ever is not self.best_ever:
            self.best_ever = generation.best_ever
            self.best_ever.saveCheckpoint(self.directory / BEST)


def _dropout_state(agent: Any) -> str:
    """Return the state of the stream that dropout draws from; checkpoints leave it out."""
    state = agent.lm.drop.rng.get_state().cpu().numpy()
    return base64.b64encode(state.tobytes()).decode()


def _restore_dropout(agent: Any, text: str) -> None:
    state = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
    agent.lm.drop.rng.set_state(state)


def save_state(state: RunState, directory: Path) -> None:
    """Write the run to ``directory``: agents first, then the small file that refers to them.

    A kill at any moment leaves an earlier state that is complete.
    """
    folder = f"episode_{state.episode:06d}"
    save_population(state.population, directory / "last" / folder)
    rng_owners = {"tournament": state.tournament, "mutation": state.mutation}
    payload = {
        "folder": folder,
        **{name: getattr(state, name) for name in COUNTS},
        "history": state.history,
        "dropout": {str(agent.index): _dropout_state(agent) for agent in state.population},
        "streams": {k: stream_state(v.rng) for k, v in rng_owners.items() if v is not None},
        "ranges": (
            {}
            if state.mutation is None
            else {k: [r.low, r.high, r.log, r.integer] for k, r in state.mutation.ranges.items()}
        ),
    }
    checkpoint.save(directory / STATE, payload)
    for old in (directory / "last").iterdir():
        if old.name != folder:
            shutil.rmtree(old, ignore_errors=True)


def load_state(state: RunState, directory: Path, device: str) -> None:
    """Put ``state`` where ``save_state`` left it; tournament and mutations go on from there.

    Raises:
        CheckpointError: if there is none, or it is inconsistent.
    """
    path = directory / STATE
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no run to go on with; leave resume out to begin.")
    payload = checkpoint.load(path)
    algorithm = type(state.population[0])
    try:
        agents = load_population(algorithm, directory / "last" / payload["folder"], device)
        for agent in agents:
            _restore_dropout(agent, payload["dropout"][str(agent.index)])
        for name in ("tournament", "mutation"):
            owner = getattr(state, name)
            if owner is not None:
                load_stream_state(owner.rng, payload["streams"][name])
        for name, (low, high, log, integer) in payload["ranges"].items():
            mutation = state.mutation
            if mutation is not None and name in mutation.ranges:
                old = mutation.ranges[name]
                mutation.ranges[name] = replace(old, low=low, high=high, log=log, integer=integer)
        counts = {name: payload[name] for name in COUNTS}
        state.history, state.population = list(payload["history"]), agents
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: incomplete or inconsistent ({error!r}).") from error
    for name, value in counts.items():
        setattr(state, name, value)
