"""Who becomes a parent of the next generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agilerl.errors import AgileRLError, ConfigError, check_int, refusing
from agilerl.seeding import generator, load_stream_state, stream_state


def score(agent: Any, evo_step: int) -> float:
    """Return the mean of an agent's last ``evo_step`` fitnesses; NaN and infinity count as -inf."""
    recent = np.asarray(agent.fitness[-evo_step:], float)
    finite = len(recent) > 0 and bool(np.isfinite(recent).all())
    return float(recent.mean()) if finite else float("-inf")


class TournamentSelection:
    """Tournament selection with elitism (Miller and Goldberg 1995).

    Args:
        tournament_size: agents drawn, without repetition, for each child; the fittest is chosen.
        elitism: the fittest agent of all goes on unmutated.
        population_size: size of the next generation.
        evo_step: fitness is the mean of the last ``evo_step`` evaluations.
        seed: of the draws.
    """

    def __init__(
        self,
        tournament_size: int,
        elitism: bool,
        population_size: int,
        evo_step: int,
        seed: int | None = None,
    ) -> None:
        self.tournament_size = check_int("tournament_size", tournament_size)
        self.elitism = bool(elitism)
        self.population_size = check_int("population_size", population_size)
        self.evo_step = check_int("evo_step", evo_step)
        self.rng = generator(seed, "tournament")
        if self.tournament_size > self.population_size:
            raise ConfigError(
                f"tournament_size: {tournament_size} is more than the population"
                f" ({population_size}); use 2 or 3."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return where the draws stand, and the settings."""
        names = ("tournament_size", "elitism", "population_size", "evo_step")
        return {
            "settings": {name: getattr(self, name) for name in names},
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

    def select(self, pop: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Return the elite and the next generation, all of it new clones.

        With elitism, the first of the new generation is a clone of the elite with its index and
        ``elite = True``: ``Mutations.mutation`` leaves it as it is.  The others are clones of
        tournament winners, with new indices.

        Raises:
            ConfigError: if the tournament is larger than ``pop``.
            AgileRLError: if no agent has a finite fitness.
        """
        if self.tournament_size > len(pop):
            raise ConfigError(
                f"tournament_size: {self.tournament_size} is more than the population ({len(pop)})."
            )
        scores = np.array([score(agent, self.evo_step) for agent in pop])
        if not np.isfinite(scores).any():
            raise AgileRLError(
                "fitness: no agent has a finite fitness, so none can be selected; training has"
                " diverged. Lower LR, or narrow Mutations(ranges={'lr': ...})."
            )
        elite = pop[int(scores.argmax())]
        next_index = max(agent.index for agent in pop) + 1
        chosen = [elite] if self.elitism else []
        while len(chosen) < self.population_size:
            chosen.append(self._winner(pop, scores))
        new_pop: list[Any] = []
        for slot, parent in enumerate(chosen):
            is_elite = self.elitism and slot == 0
            child = parent.clone(index=parent.index if is_elite else next_index + len(new_pop))
            child.elite = is_elite
            child.parent = parent.index
            new_pop.append(child)
        return elite, new_pop

    def _winner(self, pop: Sequence[Any], scores: np.ndarray[Any, Any]) -> Any:
        """Draw contestants until one has a finite fitness, and return the fittest of them."""
        while True:
            drawn = self.rng.choice(len(pop), self.tournament_size, replace=False)
            best = int(drawn[scores[drawn].argmax()])
            if np.isfinite(scores[best]):
                return pop[best]
