"""Observers of a run: the progress line, history.csv, checkpoints."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest

from agilerl.algorithms.dqn import DQN
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.observers import (
    CSVLogger,
    Progress,
    short,
)
from agilerl.training.run import Generation, Plan, clock, describe_ending
from agilerl.training.run_state import RunState
from agilerl.utils.utils import makeVectEnvs
from tests.agents import OwnAgent
from tests.runs import INF, NAN, run, small_population

WIDE = {"arch": "cnn", "h_size": [99] * 3, "c_size": [8] * 4, "k_size": [2] * 4, "s_size": [1] * 4}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def generation(pop: list[Any], fitnesses: list[float], **changes: Any) -> Generation:
    values: dict[str, Any] = {
        "number": 3,
        "episode": 123_456,
        "train_steps": 1_234_567_890,
        "eval_steps": 98_765_432,
        "population": tuple(pop),
        "fitnesses": tuple(fitnesses),
        "rows": (),
        "check": -123456.7,
        "solved": False,
        "seconds": 123_456.7,
        "best_ever": None,
    }
    return Generation(**{**values, **changes})


def state_at(episode: int, global_steps: int) -> RunState:
    return RunState([], episode=episode, train_steps=global_steps)


# ---------------------------------------------------------------------------------------- progress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_at_most_80_columns(terminal: bool) -> None:
    pop: list[Any] = [
        DQN((3, 10, 10), 2, False, net_config=WIDE),
        OwnAgent(1),
    ]
    stream = Terminal() if terminal else io.StringIO()
    progress = Progress(Plan(1_000_000, 1), stream)
    for best in (0, 1):
        for value in (-123456.7, INF, NAN, 0.0):
            fitnesses = [value, value]
            fitnesses[best] = 12345.6
            gen = generation(pop, fitnesses)
            progress.after_episode(state_at(123_455, 1), False)
            progress(gen)
    progress.close(RunState(pop), describe_ending("all episodes spent", gen))
    lines = stream.getvalue().replace("\r", "\n").splitlines()
    assert len([line for line in lines if line.strip()]) >= 10
    assert max(len(line) for line in lines) <= 80


def test_progress_says_steps_fitness_target_exploration_rate_and_time_left() -> None:
    pop = small_population(2, LR=3e-4, BATCH_SIZE=48)
    progress = Progress(Plan(400, 1, 200.0), io.StringIO(), lambda episode: 0.05)
    progress.begin(RunState([]))
    progress.start -= 100.0
    progress.last = generation(pop, [1.0, 205.0], episode=100)
    line = progress.line(100, 1_250_000)
    for part in ("ep 100/400", "1.25M steps", "best 205.0/200 mean 103.0", "eps 0.05", "12.5k/s"):
        assert part in line
    assert line.endswith("left 5:00")  # 100 of 400 episodes in 100 s
    line = Progress(Plan(4, 1), io.StringIO()).line(0, 0)
    assert "first evaluation pending" in line


def test_a_target_that_comes_first_is_what_the_time_left_is_about() -> None:
    pop = small_population(1)
    progress = Progress(Plan(10_000, 1, 200.0), io.StringIO())
    progress.begin(RunState([]))
    progress.start -= 60.0
    for number in range(6):  # ten a generation, which takes ten seconds
        progress(generation(pop, [100.0 + 10 * number], episode=number, seconds=10.0 * number))
    assert progress.left(6, 1) == pytest.approx(40.0, abs=1.0)  # 200 is due at 100 s, it is 60 s
    progress.start -= 30.0  # no evaluation meanwhile
    assert progress.left(6, 1) == pytest.approx(10.0, abs=1.0)
    progress.start -= 30.0  # it should have been there
    assert progress.left(6, 1) > 90_000
    progress.start += 60.0
    for number in range(6):  # and none where fitness does not rise
        progress(generation(pop, [100.0 - number], episode=number, seconds=10.0 * number))
    assert progress.left(6, 1) > 90_000


def test_progress_says_lr_batch_and_architecture_where_there_is_room() -> None:
    pop = small_population(1, LR=3e-4, BATCH_SIZE=48)
    progress = Progress(Plan(4, 1), io.StringIO())
    progress.last = generation(pop, [1.0], episode=1)
    assert "lr 3e-04 b48" in progress.line(1, 1)
    assert pop[0].architecture.split()[0] in progress.line(1, 1)


def test_the_time_left_is_that_to_the_nearest_limit() -> None:
    progress = Progress(Plan(1000, 1, total_steps=200, time_limit=1e6), io.StringIO())
    progress.begin(RunState([], episode=10, train_steps=100))
    progress.start -= 30.0  # half of the steps that were left took 30 seconds
    assert progress.left(11, 150) == pytest.approx(30.0, rel=1e-2)
    assert progress.left(11, 200) == 0.0


def test_a_terminal_has_one_line_that_is_rewritten_and_a_file_one_line_a_generation() -> None:
    pop = small_population(1)
    for stream in (Terminal(), io.StringIO()):
        progress = Progress(Plan(4, 2), stream)
        for episode in (1, 2, 3, 4):
            progress.after_episode(state_at(episode, 10 * episode), False)
            if episode % 2 == 0:
                progress(generation(pop, [1.0], episode=episode))
        text = stream.getvalue()
        if stream.isatty():
            assert text.count("\r") >= 4
            assert "\n" not in text
        else:
            assert [line.split()[1] for line in text.splitlines()] == ["2/4", "4/4"]
            assert "\r" not in text
            assert "\x1b" not in text


def test_verbose_shows_progress_on_stderr_and_silence_is_silent(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pop: list[Any] = [OwnAgent(i, fitnesses=[float(i)]) for i in range(2)]
    run(pop, verbose=False)
    assert capfd.readouterr() == ("", "")
    run(pop, verbose=True, target=-5.0)
    out, err = capfd.readouterr()
    assert out == ""
    assert "ep 2/4" in err
    assert "solved: best fitness 1.0" in err


def test_the_last_line_says_how_the_run_ended(capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt(generation: Generation) -> None:
        raise KeyboardInterrupt

    for callbacks, text in (((), "all episodes spent"), ((interrupt,), "interrupted")):
        run([OwnAgent(0, fitnesses=[4.0])], verbose=True, callbacks=callbacks)
        assert f"{text}: best fitness 4.0" in capfd.readouterr().err
    assert describe_ending("interrupted", None) == "interrupted: nothing was evaluated yet"


def test_counts_and_durations_are_short() -> None:
    assert [short(n) for n in (7, 950, 12_345, 1_250_000, 2.5e9)] == [
        "7",
        "950",
        "12.3k",
        "1.25M",
        "2.50G",
    ]
    assert [clock(s) for s in (5, 65.9, 3725)] == ["0:05", "1:05", "1:02:05"]


# ------------------------------------------------------------------------------------- history.csv


def test_history_has_one_row_for_each_agent_and_generation(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "new" / "history.csv")
    rows_seen = []

    def count_rows(generation: Generation) -> None:
        with logger.path.open(newline="") as file:  # it is there while the run goes on
            rows_seen.append(len(list(csv.DictReader(file))))

    _, fitnesses, seen = run(
        small_population(),
        makeVectEnvs("CartPole-v1", 2, seed=1),
        n_episodes=6,
        max_steps=10,
        tournament=TournamentSelection(2, True, 3, 1, seed=1),
        mutation=Mutations("DQN", 0, 1, 0.5, 1, 0, 1, ["lr"], 0.1, rand_seed=1),
        callbacks=[logger, count_rows],
    )
    assert rows_seen == [3, 6, 9]
    with logger.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["generation"], row["index"]) for row in rows}) == 9
    for row, (gen, own) in zip(rows, [(g, r) for g in seen for r in g.rows], strict=True):
        assert int(row["generation"]) == gen.number
        assert int(row["global_steps"]) == gen.global_steps
        assert int(row["train_steps"]) + int(row["eval_steps"]) == gen.global_steps
        assert row == {name: "" if value is None else str(value) for name, value in own.items()}
    assert [float(row["fitness"]) for row in rows] == [f for row in fitnesses for f in row]


def test_history_of_own_agents_and_bad_fitnesses(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "history.csv")
    run([OwnAgent(i, fitnesses=[f]) for i, f in enumerate((NAN, -INF))], callbacks=[logger])
    with logger.path.open(newline="") as file:
        values = [float(row["fitness"]) for row in csv.DictReader(file)]
    assert math.isnan(values[0])
    assert values[1] == -INF
