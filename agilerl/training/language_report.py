"""What a language run leaves for people: a table, a curve, and some games."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.algorithms.language_agent import LanguageAgent
from agilerl.checkpoint import write_bytes
from agilerl.seeding import generator
from agilerl.training.history import Row, write_rows
from agilerl.training.language_config import EvaluateConfig
from agilerl.training.run import Generation, RunObserver
from agilerl.training.run_state import RunState
from agilerl.training.wordle_setup import WordleSetup
from agilerl.wordle.evaluate import Score, score_table
from agilerl.wordle.games import Games, half_width
from agilerl.wordle.play import show_game
from agilerl.wordle.vocabulary import MAX_TURNS

SHOWN_GAMES = 3


class History(RunObserver):
    """Keeps the history, one row for each agent and generation, and draws ``curve.png``.

    Args:
        directory: where they go.
        settings: of the run, written to ``settings.yaml``.
        lines: constant rewards to draw, by name.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], **lines: float) -> None:
        self.directory, self.settings, self.lines = directory, settings, lines
        self.rows: list[Row] = []

    def begin(self, state: RunState) -> None:
        """Take over the rows of the generations before, where a run goes on."""
        self.rows = list(state.history)
        text = yaml.safe_dump(dict(self.settings), sort_keys=False)
        write_bytes(self.directory / "settings.yaml", text.encode())

    def __call__(self, generation: Generation) -> None:
        """Add a generation."""
        self.rows += generation.rows
        write_rows(self.directory, self.rows, "w")

    def draw(self) -> None:
        """Write ``curve.png``: mean reward and loss against updates, one colour for each agent."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4), layout="constrained")
        reward, loss = figure.subplots(1, 2)
        for key, axes, label in (("fitness", reward, "mean reward"), ("score", loss, "loss")):
            for index in sorted({row["index"] for row in self.rows}):
                own = [row for row in self.rows if row["index"] == index]
                updates, values = [row["updates"] for row in own], [row[key] for row in own]
                axes.plot(updates, values, marker=".", label=f"agent {index}")
            axes.set(xlabel="updates", ylabel=label)
            axes.grid(alpha=0.25)
        reward.margins(y=0.1)  # room for the names of the lines
        for name, value in self.lines.items():
            reward.axhline(value, linestyle=":", linewidth=1, color="black")
            reward.text(0.01, value, name, transform=reward.get_yaxis_transform(), va="bottom")
        if 1 < len({row["index"] for row in self.rows}) <= 8:
            reward.legend(fontsize="small", loc="center right")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        write_bytes(self.directory / "curve.png", picture.getvalue())


def data_score(task: WordleSetup) -> Score:
    """Return how well the data were played."""
    returns = task.dataset.games.returns
    won = float((returns > -MAX_TURNS).mean())
    return Score("data", len(returns), won, float(returns.mean()), half_width(returns), 0.0)


def player(agent: LanguageAgent, seed: int, temperature: float, **settings: float) -> Any:
    """Return a token policy: the agent at a temperature, with draws of its own."""
    rng = generator(seed, "table", str(temperature))
    return lambda prefixes: agent.decode(prefixes, temperature, rng=rng, **settings)


def cloned_scores(
    agent: LanguageAgent, task: WordleSetup, temperatures: Sequence[float], seed: int
) -> list[Score]:
    """Return how well a cloned policy plays the final games, greedily and at temperatures."""
    greedy = task.final.play(player(agent, seed, 0.0))
    scores = [Score.of("BC, greedy", greedy, deterministic=True)]
    for t in temperatures:
        games = task.final.play(player(agent, seed, t))
        scores.append(Score.of(f"BC, temperature {t:g}", games))
    return scores


def choose_beta(agent: ILQL, task: WordleSetup, betas: Sequence[float], seed: int) -> float:
    """Return the beta of the highest mean reward on the evaluation games."""
    candidates = sorted({*betas, agent.beta})
    rewards = [
        float(task.arena.play(player(agent, seed, 0.0, beta=beta)).returns.mean())
        for beta in candidates
    ]
    return candidates[int(np.argmax(rewards))]


def perturbed_scores(
    agent: ILQL, task: WordleSetup, betas: Sequence[float], seed: int
) -> list[Score]:
    """Return how well ILQL plays the final games; its own beta, chosen elsewhere, is marked."""
    scores = []
    for beta in sorted({0.0, *betas, agent.beta}):
        name = f"ILQL, beta {beta:g}" + (" (chosen)" if beta == agent.beta else "")
        games = task.final.play(player(agent, seed, 0.0, beta=beta))
        scores.append(Score.of(name, games, deterministic=True))
    return scores


def scores_of(
    agent: LanguageAgent,
    base: LanguageAgent | None,
    task: WordleSetup,
    evaluate: EvaluateConfig,
    seed: int,
) -> list[Score]:
    """Return the rows of the table.

    Args:
        agent: what was trained.
        base: the cloned policy that it started from, if any.
        task: whose final games are played.
        evaluate: temperatures and betas.
        seed: of draws.
    """
    scores = [Score.of("random", task.final.play_by_rule("random", seed)), data_score(task)]
    cloned = base if base is not None else agent
    if isinstance(cloned, BC_LM):
        scores += cloned_scores(cloned, task, evaluate.temperatures, seed)
    if isinstance(agent, ILQL):
        scores += perturbed_scores(agent, task, evaluate.betas, seed)
    gain = task.final.play_by_rule("information-gain", seed)
    return [*scores, Score.of("information gain", gain, deterministic=True)]


def sample_games(agent: LanguageAgent, task: WordleSetup, seed: int) -> Games:
    """Return a few of the final games, played greedily."""
    rows = generator(seed, "samples").choice(task.final.num_games, SHOWN_GAMES)
    games: Games = task.final.play(player(agent, seed, 0.0)).select(rows)
    return games


def report(
    agent: LanguageAgent,
    base: LanguageAgent | None,
    task: WordleSetup,
    evaluate: EvaluateConfig,
    seed: int,
    directory: Path,
    write: Callable[[str], object] = print,
) -> list[Score]:
    """Write ``results.md``, print it with some games in colour, and return the scores."""
    scores = scores_of(agent, base, task, evaluate, seed)
    table = score_table(scores)
    write_bytes(directory / "results.md", f"{table}\n".encode())
    games = sample_games(agent, task, seed)
    write(f"\n{table}\n")
    for row in range(len(games)):
        write(show_game(games, row) + "\n")
    return scores
