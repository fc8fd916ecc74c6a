"""Who goes on, and who is replaced: what all ways of selection share, and truncation.

A selection has ``select(pop) -> (elite, new_pop)``; ``hpo.tournament`` has the tournament.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from agilerl.errors import AgileRLError, check_float, check_int, refusing
from agilerl.seeding import generator, load_stream_state, stream_state

Array = np.ndarray[Any, np.dtype[Any]]

#: Selections running that replace nobody, as all differences are inside the noise; the next one
#: replaces the worst all the same, or a population of equals would never change.
PATIENCE = 1


def score(agent: Any, evo_step: int) -> float:
    """Return the mean of an agent's last ``evo_step`` fitnesses; NaN and infinity count as -inf."""
    recent = np.asarray(agent.fitness[-evo_step:], float)
    finite = len(recent) > 0 and bool(np.isfinite(recent).all())
    return float(recent.mean()) if finite else float("-inf")


def scores_of(pop: Sequence[Any], evo_step: int) -> Array:
    """Return the scores of a population; raise ``AgileRLError`` if none of them is finite."""
    if not any(len(agent.fitness) for agent in pop):
        raise AgileRLError(
            "fitness: no agent was evaluated yet; call agent.test(env) of each before you select."
        )
    scores = np.array([score(agent, evo_step) for agent in pop])
    if not np.isfinite(scores).any():
        raise AgileRLError(
            "fitness: no agent has a finite fitness, so none can be selected; training has"
            " diverged. Lower LR, or narrow Mutations(ranges={'lr': ...})."
        )
    return scores


class Selection(ABC):
    """What every way of selection has: its draws, and a state.

    Args:
        population_size: size of the next generation.
        evo_step: the score of an agent is the mean of its last ``evo_step`` fitnesses.
        rng: what is drawn from.
    """

    #: The attributes that a run which goes on must have as well.
    SETTINGS: ClassVar[tuple[str, ...]] = ("population_size", "evo_step")

    def __init__(self, population_size: int, evo_step: int, rng: np.random.Generator) -> None:
        self.population_size = check_int("population_size", population_size)
        self.evo_step = check_int("evo_step", evo_step)
        self.rng = rng

    def state_dict(self) -> dict[str, Any]:
        """Return where the draws stand, and the settings."""
        return {
            "settings": {name: getattr(self, name) for name in self.SETTINGS},
            "stream": stream_state(self.rng),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Draw on from where the state was taken; the settings stay.

        Raises:
            CheckpointError: if the state is malformed; nothing has changed then.
        """
        with refusing("tournament"):
            rng = generator(0)
            load_stream_state(rng, state["stream"])
        self.rng = rng

    @abstractmethod
    def select(self, pop: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Return the elite and the next generation, all of it new clones.

        Agents of the next generation that are to stay as they are have ``elite = True``:
        ``Mutations.mutation`` leaves them alone.
        """


def child_of(parent: Any, index: int, elite: bool) -> Any:
    """Return a clone of ``parent`` for the next generation."""
    child = parent.clone(index=index)
    child.elite, child.parent = elite, parent.index
    return child


class TruncationSelection(Selection):
    """Truncation: children of the best take the places of the worst (Jaderberg et al. 2017).

    All others go on as they are, unmutated, so that their settings have time to show their worth.

    Departures from population based training: parents are drawn from the best of the whole
    population; an agent is replaced only if its score is below its new parent's by more than the
    standard error of the difference, where agents know it (``fitness_se``), or if nobody was
    replaced at the selection before; and where everybody has fallen behind the best agent that ever
    was by more than that, the worst becomes a child of it.  The run sets ``best_ever``; in a loop
    of one's own, set it before ``select``.

    Args:
        population_size: size of the next generation.
        fraction: of the population that is replaced, in (0, 0.5], at least one agent; as many are
            parents.
        evo_step: the score of an agent is the mean of its last ``evo_step`` fitnesses.
        seed: of the draws.
    """

    SETTINGS = ("population_size", "fraction", "evo_step")

    def __init__(
        self,
        population_size: int,
        fraction: float = 0.25,
        evo_step: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__(population_size, evo_step, generator(seed, "truncation"))
        self.fraction = check_float("fraction", fraction, 0.0, 0.5)
        self.best_ever: Any = None
        self._last_index = 0
        self._quiet = 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the draws and the indices stand, and the settings."""
        return {**super().state_dict(), "last_index": self._last_index, "quiet": self._quiet}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where the state was taken; the settings stay.

        Raises:
            CheckpointError: if the state is malformed; nothing has changed then.
        """
        with refusing("tournament"):
            last_index = check_int("last_index", state["last_index"], minimum=0)
            quiet = check_int("quiet", state.get("quiet", 0), minimum=0)
        super().load_state_dict(state)
        self._last_index, self._quiet = last_index, quiet

    def select(self, pop: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Return the elite and the next generation, all of it new clones, fittest first.

        Survivors keep their index and have ``elite = True``: ``Mutations.mutation`` leaves them as
        they are.  Children have indices that nobody has had.

        Raises:
            AgileRLError: if no agent has a finite fitness.
        """
        scores = scores_of(pop, self.evo_step)
        order = [slot for slot in np.argsort(-scores, kind="stable") if np.isfinite(scores[slot])]
        ranked = [pop[slot] for slot in order][: self.population_size]
        count = min(max(1, round(self.fraction * self.population_size)), self.population_size - 1)
        safe = self.population_size - count
        new_pop = [child_of(agent, agent.index, elite=True) for agent in ranked[:safe]]
        parents = [ranked[int(self.rng.integers(min(max(count, 1), len(ranked))))] for _ in pop]
        if self.best_ever is not None and self._better(self.best_ever, ranked[0]):
            parents[0] = self.best_ever
        challenged = ranked[safe:]
        self._last_index = max(self._last_index, *(agent.index for agent in pop))
        for slot in range(self.population_size - len(new_pop)):
            parent = parents[slot % len(parents)]
            spared = slot < len(challenged) and self._quiet < PATIENCE
            if spared and not self._better(parent, challenged[slot]):
                new_pop.append(child_of(challenged[slot], challenged[slot].index, elite=True))
                continue
            self._last_index += 1
            new_pop.append(child_of(parent, self._last_index, elite=False))
        self._quiet = self._quiet + 1 if all(agent.elite for agent in new_pop) else 0
        return ranked[0], new_pop

    def _better(self, agent: Any, other: Any) -> bool:
        """Return whether ``agent`` is better than ``other`` by more than the noise."""
        difference = score(agent, self.evo_step) - score(other, self.evo_step)
        errors = [getattr(x, "fitness_se", None) or 0.0 for x in (agent, other)]
        return difference > math.hypot(*errors) / math.sqrt(self.evo_step)
