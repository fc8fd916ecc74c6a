"""Where an agent comes from."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Ancestor:
    """An agent as it was when a generation was evaluated.

    Attributes:
        generation: number of the generation, from 0.
        index: identity of the agent in its population.
        parent: identity of the agent it was cloned from, None for the first ones.
        mutation: label of what changed after it was cloned, None for the first ones.
        fitness: mean return of the evaluation.
        steps: environment steps that it and its ancestors took in training.
        hyperparameters: learning hyper-parameters by name.
        architecture: the policy network in a few words.
    """

    generation: int
    index: int
    parent: int | None
    mutation: str | None
    fitness: float
    steps: int
    hyperparameters: dict[str, float]
    architecture: str

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return dataclasses.asdict(self)
