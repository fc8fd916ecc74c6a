"""The two scripts, one after the other, on a tiny word list."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import run_bc_lm
import run_ilql
from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.wordle.vocabulary import Vocabulary

WORDS = ("crane", "slate", "mount", "buddy", "fifth", "gloom")


def small(directory: Path, name: str, *more: str) -> list[str]:
    """Return overrides for a run of seconds."""
    (directory / "words.txt").write_text("\n".join(WORDS))
    return [
        f"out={directory}/runs",
        f"name={name}",
        "data.words=null",
        f"data.vocabulary={directory}/words.txt",
        f"data.path={directory}/data.h5",
        "data.games=400",
        "data.format=plain",
        "train.updates=6",
        "train.eval_every=3",
        "train.report_every=1",
        "agent.batch_size=8",
        "evaluate.games=6",
        "evaluate.final_games=30",
        "evaluate.temperatures=[1.0]",
        *more,
    ]


TINY = ("model.n_layer=1", "model.n_embd=16", "model.n_head=2")


def test_both_scripts_run_in_turn_and_leave_what_people_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_bc_lm.main(small(tmp_path, "bc", *TINY)) == 0
    out, err = capsys.readouterr()
    assert "there is no such file yet" in err
    assert (tmp_path / "data.h5").is_file()
    for row in ("random", "data", "BC, greedy", "BC, temperature 1", "information gain"):
        assert f"| {row} " in out
    assert out.count("reward -") == 3  # sample games

    load = f"model.load={tmp_path}/runs/bc/best.pt"
    betas = "evaluate.betas=[1, 8]"
    assert run_ilql.main(small(tmp_path, "ilql", load, betas)) == 0
    out, err = capsys.readouterr()
    assert "there is no such file yet" not in err
    for row in ("BC, greedy", "ILQL, beta 0 ", "ILQL, beta 1", "ILQL, beta 8", "(chosen)"):
        assert row in out

    for name in ("bc", "ilql"):
        directory = tmp_path / "runs" / name
        assert (directory / "curve.png").read_bytes().startswith(b"\x89PNG")
        table = (directory / "results.md").read_text()
        assert "| mean reward, 95 % |" in table
        for line in table.splitlines()[2:]:  # games of greedy players repeat: no interval
            drawn = line.startswith(("| random", "| data", "| BC, temperature"))
            assert (" +- " in line) == drawn, line
        with (directory / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["updates"] for row in rows] == ["3", "6"]
        assert all(-6 <= float(row["fitness"]) <= 0 for row in rows)
    assert ILQL.load(tmp_path / "runs" / "ilql" / "best.pt").beta in (1, 4, 8)


def test_a_population_evolves_from_the_command_line(tmp_path: Path) -> None:
    overrides = small(tmp_path, "pop", *TINY, "population.size=2", "population.tournament=2")
    assert run_bc_lm.main(overrides) == 0
    with (tmp_path / "runs" / "pop" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert rows[2]["mutation"] == "elite"


def test_the_history_of_a_run_that_goes_on_keeps_its_beginning(tmp_path: Path) -> None:
    overrides = small(tmp_path, "long", *TINY)
    assert run_bc_lm.main(overrides) == 0
    assert run_bc_lm.main([*overrides, "train.updates=12", "resume=true"]) == 0
    with (tmp_path / "runs" / "long" / "history.csv").open() as file:
        assert [row["updates"] for row in csv.DictReader(file)] == ["3", "6", "9", "12"]


def test_a_run_that_ends_before_an_evaluation_shows_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(BC_LM, "learn", interrupt)
    caplog.clear()
    with caplog.at_level("WARNING", "agilerl"):
        assert run_bc_lm.main(small(tmp_path, "ended", *TINY)) == 0
    assert "there is no result to show" in caplog.text
    assert not (tmp_path / "runs" / "ended" / "results.md").exists()


def test_a_run_of_a_name_that_is_taken_is_refused_and_resume_minds_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = small(tmp_path, "taken", *TINY)
    assert run_bc_lm.main(overrides) == 0
    files = {
        p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.suffix in (".pt", ".md")
    }
    capsys.readouterr()
    assert run_bc_lm.main(overrides) == 2
    assert "holds a run; resume=True" in capsys.readouterr().err
    assert run_bc_lm.main([*overrides, "resume=true", "agent.lr=0.5"]) == 2
    assert "agent was" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["agent.lrr=1"], "Did you mean 'lr'"),
        (["model.load=absent/best.pt"], "absent/best.pt: no such checkpoint"),
        (["data.vocabulary=absent.txt"], "absent.txt"),
        (["resume=true", "name=nobody"], "there is no run to go on with"),
    ],
)
def test_bad_input_ends_with_one_line_that_names_it(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_bc_lm.main([*small(tmp_path, "bad", *TINY), *overrides]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_data_of_another_vocabulary_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = small(tmp_path, "bc", *TINY)
    assert run_bc_lm.main(overrides) == 0
    assert Vocabulary.of(WORDS[:5]).digest != Vocabulary.of(WORDS).digest
    (tmp_path / "five.txt").write_text("\n".join(WORDS[:5]))
    assert run_bc_lm.main([*overrides, f"data.vocabulary={tmp_path}/five.txt"]) == 2
    assert "choose its words under data:" in capsys.readouterr().err
