"""Behavioural cloning and ILQL on Wordle: how well, how fast, what Q has learnt, and evolution.

    python -m benchmarks.language [--seeds 0 1 2] [--only bc ilql-0 ...] [--write]

It is done in pieces: ``bc`` is ``python run_bc_lm.py``, ``ilql-0`` is ``python run_ilql.py`` from
that clone with seed 0, ``fixed-0.001-0`` a small model at that learning rate, and ``evolved-0`` a
population of four such models.  What a finished piece gave is kept in
``<out>/bench-*.json`` and not measured again; a piece that was stopped goes on from its last
evaluation.  Delete the files to begin anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agilerl.algorithms.ilql import ILQL
from agilerl.training.language_config import BCRunConfig, ILQLRunConfig, RunConfig
from agilerl.training.language_run import Outcome, train_population
from agilerl.training.language_start import start_agents
from agilerl.training.run_state import RunState
from agilerl.training.train_bc_lm import train as train_bc
from agilerl.training.train_ilql import train as train_ilql
from agilerl.training.wordle_setup import wordle_setup
from agilerl.training.yaml_config import read_config
from agilerl.wordle.evaluate import Score
from agilerl.wordle.generate import generate
from benchmarks.language_q import correlation, ranking
from benchmarks.timing import RESULTS, publish, table

Piece = dict[str, Any]

RESULT = RESULTS / "language.md"
BC_FILE, ILQL_FILE = "configs/wordle/train_bc.yaml", "configs/wordle/train_iql.yaml"
#: The small model whose learning rate evolution has to find.
SMALL_UPDATES = 800
SMALL = (
    "model.n_embd=64",
    f"train.updates={SMALL_UPDATES}",
    "train.eval_every=100",
    "train.warm_up=50",
)
#: Of ILQL, as ``train_iql.yaml`` has it.
FIXED_BETA = 32
#: Learning rates held fixed, for the small model.
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
#: What makes a run a population that starts with all of them.  A lower learning rate always looks
#: better at the next evaluation, and the schedule lowers it anyway: so it is selected, not mutated.
POPULATION = (
    f"population.size={len(RATES)}",
    f"population.lr={list(RATES)}",
    "population.rl_hp_selection=[batch_size]",
    "population.no_mutation=0.5",
    "population.rl_hp=0.3",
)


class Bench:
    """Does pieces, once each.

    Args:
        out: where runs and results go.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def settings(self, name: str, *more: str) -> list[str]:
        """Return the overrides of a piece's run; it goes on if it was stopped."""
        begun = (self.out / f"bench-{name}" / "run.pt").is_file()
        resume = ["resume=true"] if begun else []
        return [f"out={self.out}", f"name=bench-{name}", *more, *resume]

    def piece(self, name: str, work: Callable[[], Piece]) -> Piece:
        """Return what a piece gave, after doing it if that is not known."""
        path = self.out / f"bench-{name}.json"
        if not path.is_file():
            print(f"{name} ...", flush=True)
            resumed = (self.out / f"bench-{name}" / "run.pt").is_file()
            wall, cpu = time.perf_counter(), time.process_time()
            result = {**work(), "resumed": resumed}
            result["wall"], result["cpu"] = time.perf_counter() - wall, time.process_time() - cpu
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1), "utf-8")
        found: Piece = json.loads(path.read_text("utf-8"))
        print(f"{name}: {found['wall']:.0f} s, {found['cpu']:.0f} s of CPU", flush=True)
        return found

    # ---------------------------------------------------------------------------------- the pieces

    def bc(self) -> Piece:
        """Return the scores of the clone."""
        config = read_config(BCRunConfig, BC_FILE, self.settings("bc"))
        return scores_of(train_bc(config), config)

    def ilql(self, seed: int) -> Piece:
        """Return the scores of ILQL, and what its Q has learnt."""
        load = f"model.load={self.out}/bench-bc/best.pt"
        settings = self.settings(f"ilql-{seed}", f"seed={seed}", load)
        config = read_config(ILQLRunConfig, ILQL_FILE, settings)
        outcome = train_ilql(config)
        agent = outcome.agent
        assert isinstance(agent, ILQL)
        task = wordle_setup(config)
        games = generate(task.vocabulary, config.data.policy, 1000, seed + 1000)
        ranks = [
            [
                turn,
                *ranking(agent, task.vocabulary, task.tokenizer, games, turn),
                correlation(agent, task.tokenizer, games, turn),
            ]
            for turn in (1, 2)
        ]
        return {**scores_of(outcome, config), "ranks": ranks, "beta": agent.beta}

    def small(self, name: str, seed: int, *more: str) -> Piece:
        """Return what a run of small clones reaches on games other than those it saw."""
        settings = self.settings(name, *SMALL, f"seed={seed}", *more)
        config = read_config(BCRunConfig, BC_FILE, settings)
        task = wordle_setup(config)
        agents = start_agents(config, task.tokenizer)
        state = train_population(config, agents, task.dataset, task.arena, verbose=False)
        check_finished(state, config)
        elite = max(state.population, key=lambda agent: agent.fitness[-1])
        score = Score.of(name, task.final.play(elite.getAction), deterministic=True)
        return {
            "score": asdict(score),
            "updates": config.train.updates * config.population.size,
            "lr": elite.lr,
            "shape": elite.lm.summary(),
        }


def scores_of(outcome: Outcome, config: RunConfig) -> Piece:
    """Return the scores of a run as a piece."""
    check_finished(outcome.state, config)
    return {"scores": [asdict(score) for score in outcome.scores]}


def check_finished(state: RunState, config: RunConfig) -> None:
    """Raise ``KeyboardInterrupt`` where Ctrl-C ended a run early: its result is not kept."""
    if state.episode * config.train.report_every < config.train.updates:
        raise KeyboardInterrupt


def score_rows(bc: Piece, ilql: dict[int, Piece]) -> list[Sequence[str]]:
    """Return the rows of players: those of the clone's run, then ILQL of each seed."""
    *players, gain = bc["scores"]
    rows = [(s["name"], *show(s)) for s in players]
    for seed, piece in ilql.items():
        own = [s for s in piece["scores"] if s["name"].startswith("ILQL")]
        rows += [(f"{s['name']}, seed {seed}", *show(s)) for s in own]
    return [*rows, (gain["name"], *show(gain))]


def seed_row(name: str, rewards: Sequence[float]) -> tuple[str, str, str]:
    """Return the mean over seeds, with its 95 % interval (Student's t) if there are several."""
    each = ", ".join(f"{reward:.2f}" for reward in rewards)
    mean = f"{np.mean(rewards):.3f}"
    if len(rewards) > 1:
        t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(rewards), 2.6)
        mean += f" +- {t * np.std(rewards, ddof=1) / len(rewards) ** 0.5:.3f}"
    return name, mean, each


def seed_rows(bc: Piece, ilql: dict[int, Piece]) -> list[Sequence[str]]:
    """Return what the seeds give: ILQL, the same networks without Q, and the clone's best."""
    clones = [s for s in bc["scores"] if s["name"].startswith("BC")]
    best = max(clones, key=lambda s: s["reward"])
    rows: list[Sequence[str]] = [seed_row(f"clone, best: {best['name']}", [best["reward"]])]
    for words, name in (
        ("beta 0 ", "trained on with ILQL, beta 0 (no use of Q)"),
        (f"beta {FIXED_BETA} ", f"ILQL, beta {FIXED_BETA} for all"),
        ("(chosen)", "ILQL, beta chosen on the evaluation games"),
    ):
        found = [named(piece, words)["reward"] for piece in ilql.values()]
        rows.append(seed_row(name, found))
    return rows


def named(piece: Piece, words: str) -> dict[str, Any]:
    """Return the first score of a piece whose name has ``words`` in it."""
    found: dict[str, Any] = next(s for s in piece["scores"] if words in f"{s['name']} ")
    return found


def show(score: dict[str, Any]) -> tuple[str, str, str]:
    """Return win rate, mean reward with its interval, and illegal guesses, for a table."""
    reward = Score(**score).interval
    return f"{score['win_rate']:.3f}", reward, f"{score['illegal']:.3f}"


def small_rows(pieces: dict[str, Piece], seeds: Sequence[int]) -> list[Sequence[str]]:
    """Return the rows of fixed learning rates and of evolution."""
    rows: list[Sequence[str]] = []
    for kind in [*(f"fixed-{rate:g}" for rate in RATES), "evolved"]:
        found = [pieces[f"{kind}-{seed}"] for seed in seeds]
        rates = ", ".join(f"{p['lr']:.1e}" for p in found)
        rows.append((*seed_row(kind, [p["score"]["reward"] for p in found]), rates))
    return rows


def time_rows(pieces: dict[str, Piece]) -> list[Sequence[str]]:
    """Return how long the pieces took, those of the small models together."""
    times: dict[str, list[float]] = {}
    for name, piece in pieces.items():
        kind = name if "scores" in piece else f"all {name.split('-')[0]}"
        kind += ", last part" if piece["resumed"] else ""
        wall, cpu = times.get(kind, [0.0, 0.0])
        times[kind] = [wall + piece["wall"], cpu + piece["cpu"]]
    return [(kind, *(f"{seconds:.0f}" for seconds in both)) for kind, both in times.items()]


def report(pieces: dict[str, Piece], seeds: Sequence[int], write: bool) -> None:
    """Publish what all pieces gave."""
    bc, ilql = pieces["bc"], {seed: pieces[f"ilql-{seed}"] for seed in seeds}
    ranks = [
        (f"seed {seed}", *[f"{x:.2f}" if isinstance(x, float) else str(x) for x in row])
        for seed, piece in ilql.items()
        for row in piece["ranks"]
    ]
    head = ("", "guesses so far", "states", "informative over not", "possible over ruled out")
    parts = [
        table(("policy", "win rate", "mean reward, 95 %", "illegal"), score_rows(bc, ilql)),
        "A greedy player is deterministic, and each of the 100 words is hidden in ten of the 1,000"
        " games: its mean is exact for the list, and the interval says what as many games with"
        " words drawn at random would show. Between runs:",
        table(("", "mean over seeds, 95 %", "each"), seed_rows(bc, ilql)),
        "What Q has learnt, on 1,000 games that were not trained on. Words that are ruled out are"
        " hardly ever guessed in these data, so their Q is not learnt; the support mask (`min_p`)"
        " keeps them from being played:",
        table((*head, "Q with return"), ranks),
        f"Evolution, with clones of width 64, {SMALL_UPDATES} updates of each agent: {len(RATES)}"
        f" fixed learning rates, and a population of {len(RATES)} that starts with one of them"
        " each, in which batch size and architecture are mutated, over eight generations. The best"
        " of the last evaluation plays:",
        table(("", "mean reward over seeds, 95 %", "each", "final lr"), small_rows(pieces, seeds)),
        "Time, pinned to one core of a machine that others use too:",
        table(("time of", "wall, s", "CPU, s"), time_rows(pieces)),
    ]
    publish("Wordle, 100 words", "\n\n".join(parts), write, RESULT)


def main() -> None:
    """Do the pieces that are missing, and print everything."""
    parser = argparse.ArgumentParser(description="Measure BC, ILQL and evolution on Wordle.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="pieces to do now; no table then")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--write", action="store_true", help="keep the result in language.md")
    arguments = parser.parse_args()
    bench = Bench(arguments.out)
    work: dict[str, Callable[[], Piece]] = {"bc": bench.bc}
    for seed in arguments.seeds:
        work[f"ilql-{seed}"] = partial(bench.ilql, seed)
        for rate in RATES:
            name = f"fixed-{rate:g}-{seed}"
            work[name] = partial(bench.small, name, seed, f"agent.lr={rate}")
        work[f"evolved-{seed}"] = partial(bench.small, f"evolved-{seed}", seed, *POPULATION)
    wanted = arguments.only or list(work)
    pieces = {name: bench.piece(name, work[name]) for name in work if name in wanted}
    if not arguments.only:
        report(pieces, arguments.seeds, arguments.write)


if __name__ == "__main__":
    main()
