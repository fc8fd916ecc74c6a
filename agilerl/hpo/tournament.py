"""Who becomes a parent of the next generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agilerl.errors import ConfigError, check_bool, check_int
from agilerl.hpo.selection import Array, Selection, child_of, score, scores_of
from agilerl.seeding import generator

__all__ = ["TournamentSelection", "score"]


class TournamentSelection(Selection):
    """Tournament selection with elitism (Miller and Goldberg 1995).

    Args:
        tournament_size: agents drawn, without repetition, for each child; the fittest is chosen.
        elitism: the fittest agent of all goes on unmutated.
        population_size: size of the next generation.
        evo_step: fitness is the mean of the last ``evo_step`` evaluations.
        seed: of the draws.
    """

    SETTINGS = ("tournament_size", "elitism", "population_size", "evo_step")

    def __init__(
        self,
        tournament_size: int,
        elitism: bool,
        population_size: int,
        evo_step: int,
        seed: int | None = None,
    ) -> None:
        super().__init__(population_size, evo_step, generator(seed, "tournament"))
        self.tournament_size = check_int("tournament_size", tournament_size)
        self.elitism = check_bool("elitism", elitism)
        if self.tournament_size > self.population_size:
            raise ConfigError(
                f"tournament_size: {tournament_size} is more than the population"
                f" ({population_size}); use 2 or 3."
            )

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
        scores = scores_of(pop, self.evo_step)
        elite = pop[int(scores.argmax())]
        next_index = max(agent.index for agent in pop) + 1
        new_pop = [child_of(elite, elite.index, elite=True)] if self.elitism else []
        while len(new_pop) < self.population_size:
            index = next_index + len(new_pop)
            new_pop.append(child_of(self._winner(pop, scores), index, elite=False))
        return elite, new_pop

    def _winner(self, pop: Sequence[Any], scores: Array) -> Any:
        """Draw contestants until one has a finite fitness, and return the fittest of them."""
        while True:
            drawn = self.rng.choice(len(pop), self.tournament_size, replace=False)
            best = int(drawn[scores[drawn].argmax()])
            if scores[best] > float("-inf"):
                return pop[best]
