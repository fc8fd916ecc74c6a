"""Language runs: schedule, data order, best agent, resume, evolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.data.language_dataset import LanguageDataset
from agilerl.errors import CheckpointError, ConfigError
from agilerl.seeding import Streams
from agilerl.training import language_run
from agilerl.training.language_config import PopulationConfig, RunConfig, TrainConfig
from agilerl.training.language_run import train_population
from agilerl.training.language_task import LanguageTask, Schedule, check_train, endless
from agilerl.training.run import Generation, RunObserver
from agilerl.training.run_state import RunState
from tests.algorithms.language_cases import (
    ACTIONS,
    NET,
    VOCAB,
    agent_of,
    differing,
    random_games,
    tensors,
)

PREFIXES = np.array([[1, 3, 4, 6], [1, 5, 5, 7], [1, 3, 3, 7]])


class Tokens:
    """The tokenizer of the small games."""

    name, vocab_size, pad_id, bos_id, eos_id = "small", VOCAB, 0, 1, 2
    action_tokens = np.isin(np.arange(VOCAB), ACTIONS)

    def encode(self, text: str) -> list[int]:
        return [int(c) for c in text]

    def decode(self, ids: Any) -> str:
        return "".join(str(i) for i in ids)


class Arena:
    """Rewards the first action token: 3 is worth 0, 4 is worth -1, 5 is worth -2."""

    num_games = 3

    def __init__(self) -> None:
        self.turns, self.hidden = 0, 0

    def reset(self, seed: int | None = None) -> None:
        self.hidden = seed

    def play(self, policy: Any) -> Any:
        self.turns += self.num_games
        rewards = 3.0 - policy(PREFIXES)[:, 0]
        return dataclasses.make_dataclass("Games", ["returns"])(rewards)


def dataset() -> LanguageDataset:
    return LanguageDataset(random_games(40), Tokens(), seed=0)


def config(directory: Path, **changes: Any) -> RunConfig:
    train = TrainConfig(updates=8, eval_every=2, report_every=1, warm_up=2)
    train = dataclasses.replace(train, **changes.pop("train", {}))
    return RunConfig(name="x", out=str(directory), train=train, **changes)


def population(size: int = 1, cls: type[Any] = BC_LM, **changes: Any) -> list[Any]:
    return [agent_of(cls, index=i, seed=i, batch_size=8, **changes) for i in range(size)]


def evolving(size: int = 3) -> PopulationConfig:
    return PopulationConfig(size=size, tournament=2, architecture=0.5, rl_hp=0.4, parameters=0.3)


class Watch(RunObserver):
    """Keeps every generation, and does something at each."""

    def __init__(self, act: Callable[[Generation], Any] = lambda generation: None) -> None:
        self.seen: list[Generation] = []
        self.act = act

    def __call__(self, generation: Generation) -> None:
        self.seen.append(generation)
        self.act(generation)


def trained(
    settings: RunConfig,
    agents: Sequence[Any],
    act: Callable[[Generation], Any] = lambda generation: None,
    arena: Any = None,
) -> tuple[RunState, list[Generation]]:
    watch = Watch(act)
    arena = Arena() if arena is None else arena
    state = train_population(settings, agents, dataset(), arena, [watch], verbose=False)
    return state, watch.seen


def test_the_learning_rate_rises_and_then_falls_by_a_cosine() -> None:
    schedule = Schedule(updates=110, warm_up=10, final=0.1)
    assert [schedule(i) for i in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert schedule(10) == 1.0
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(110) == pytest.approx(0.1)
    assert schedule(10_000) == pytest.approx(0.1)


def test_the_schedule_reaches_the_optimiser(tmp_path: Path) -> None:
    agents = population()
    rates = []
    trained(config(tmp_path), agents, lambda g: rates.append(g.population[0].policy_network.lr))
    expected = [1e-2 * Schedule(8, 2, 0.05)(i) for i in (1, 3, 5, 7)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("batch_size", [7, 8, 40])
def test_batches_go_on_where_an_agent_was(batch_size: int) -> None:
    data = dataset()

    def first(stream: Iterator[Any], count: int) -> list[Any]:
        return [next(stream) for _ in range(count)]

    whole = first(endless(data, batch_size, 0, 0), 14)
    seen = 0
    for position in range(12):
        again = next(endless(data, batch_size, seen, 0))
        assert np.array_equal(again.tokens, whole[position].tokens), position
        seen += len(whole[position])
    per_epoch = -(-40 // batch_size)
    rows = np.concatenate([batch.rewards.sum(1) for batch in whole[:per_epoch]])
    assert len(rows) == 40


def test_the_best_agent_by_reward_is_kept_not_the_last(tmp_path: Path) -> None:
    class Falling(Arena):
        def play(self, policy: Any) -> Any:
            games = super().play(policy)
            games.returns = games.returns * 0 - self.turns
            return games

    state, seen = trained(config(tmp_path), population(), arena=Falling())
    best = BC_LM.load(tmp_path / "x" / "best.pt")
    assert [g.fitnesses[0] for g in seen] == [-3, -6, -9, -12]
    assert best.learn_count == 2
    assert best.fitness == [-3]
    assert state.best_fitness == -3
    assert state.population[0].learn_count == 8


def test_every_generation_counts_games_and_steps(tmp_path: Path) -> None:
    state, seen = trained(config(tmp_path), population(2))
    assert [g.episode for g in seen] == [2, 4, 6, 8]
    assert [g.train_steps for g in seen] == [2 * 16, 2 * 32, 2 * 48, 2 * 64]
    assert [g.eval_steps for g in seen] == [6, 12, 18, 24]
    assert len(state.history) == 8
    assert state.history[-1]["updates"] == 8


def test_the_run_ends_when_other_games_confirm_the_target(tmp_path: Path) -> None:
    settings = config(tmp_path, train={"target": -3.0})
    arena = Arena()
    state, seen = trained(settings, population(), arena=arena)
    assert [g.solved for g in seen] == [True]
    assert state.generation == 1
    assert arena.turns == 3 + 34 * 3  # 100 other games, rounded up, and then the same as before
    assert arena.hidden == 0


@pytest.mark.parametrize("cls", [BC_LM, ILQL])
@pytest.mark.parametrize("size", [1, 3])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    cls: type[Any], size: int, tmp_path: Path
) -> None:
    pop = evolving(size) if size > 1 else PopulationConfig()
    net = {**NET, "dropout": 0.1}

    class StopError(Exception):
        pass

    def stop(generation: Generation) -> None:
        if generation.number == 1:
            raise StopError

    whole, _ = trained(
        config(tmp_path / "a", population=pop), population(size, cls, net_config=net)
    )
    with pytest.raises(StopError):
        trained(config(tmp_path / "b", population=pop), population(size, cls, net_config=net), stop)
    resumed, seen = trained(
        config(tmp_path / "b", population=pop, resume=True),
        population(size, cls, net_config=net),
    )
    assert [g.number for g in seen] == [2, 3]
    assert [g.episode for g in seen] == [6, 8]
    assert len(whole.population) == len(resumed.population) == size
    for one, two in zip(whole.population, resumed.population, strict=True):
        assert differing(tensors(one), tensors(two)) == []
        assert (one.index, one.fitness, one.steps, one.mut) == (
            two.index,
            two.fitness,
            two.steps,
            two.mut,
        )
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in state.history]
        for state in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]
    assert whole.best_fitness == resumed.best_fitness


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x: there is no run to go on with"):
        trained(config(tmp_path, resume=True), population())


def test_a_population_evolves_and_its_elite_goes_on_unchanged(tmp_path: Path) -> None:
    _, seen = trained(config(tmp_path, population=evolving(4)), population(4, ILQL))
    labels = {row["mutation"] for g in seen[1:] for row in g.rows}
    assert "elite" in labels
    assert len(labels) > 2
    for earlier, later in pairwise(seen):
        assert later.rows[0]["mutation"] == "elite"
        assert later.rows[0]["index"] == earlier.best.index
    kinds = {label.split()[0].split("(")[0] for label in labels if label}
    assert kinds & {"add_layer", "add_node", "add_head", "remove_layer", "remove_node"}


def test_an_unchanged_child_learns_something_else_than_its_parent(tmp_path: Path) -> None:
    (parent,) = population()
    children = [parent.clone(), parent.clone(index=7)]
    task = LanguageTask(dataset(), Arena(), config(tmp_path).train)
    weights = []
    for agent in (parent, *children):
        task.train_episode(agent, None, Streams(0, 0, 0))
        weights.append([p.detach().clone() for p in agent.lm.parameters()])
    same, other = (
        all(torch.equal(x, y) for x, y in zip(weights[0], child, strict=True))
        for child in weights[1:]
    )
    assert same, "one index reads one order"
    assert not other


def test_ctrl_c_ends_the_run_with_what_was_reached(tmp_path: Path) -> None:
    def interrupt(generation: Generation) -> None:
        if generation.number == 1:
            raise KeyboardInterrupt

    state, seen = trained(config(tmp_path), population(), interrupt)
    assert len(seen) == 2
    assert state.generation == 2


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"report_every: 3 does not divide eval_every=10"):
        check_train(TrainConfig(eval_every=10, report_every=3))
    with pytest.raises(ConfigError, match=r"train.updates"):
        check_train(TrainConfig(updates=0))
    assert check_train(TrainConfig(eval_every=5, report_every=20)).report_every == 5


def test_small_networks_train_on_one_thread_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    learn = BC_LM.learn

    def noted(agent: BC_LM, experiences: Any) -> float:
        used.append(torch.get_num_threads())
        return learn(agent, experiences)

    monkeypatch.setattr(BC_LM, "learn", noted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for threads in (None, 2):
            settings = config(tmp_path / str(threads), train={"updates": 2, "threads": threads})
            train_population(settings, population(), dataset(), Arena(), verbose=True)
        assert used == [1, 1, 2, 2]
        told = capsys.readouterr().err
        assert told.count("torch threads 1, for networks of 0.0M parameters (train.threads)") == 1
        monkeypatch.setattr(language_run, "SMALL", 10)  # now they are large
        assert language_run.threads_for(None, population()) == 2
        with pytest.raises(ConfigError, match=r"train\.threads"):
            language_run.threads_for(0, population())
    finally:
        torch.set_num_threads(before)
