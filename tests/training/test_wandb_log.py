"""Logging to Weights & Biases: with the real package offline, and with a package of our own."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import wandb

from agilerl.errors import ConfigError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.wandb_log import WandbLogger
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.agents import OwnAgent
from tests.runs import run, small_population


class FakeRun:
    """Notes what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.finished = False

    def define_metric(self, name: str, **kwargs: Any) -> None:
        self.metrics = {**getattr(self, "metrics", {}), name: kwargs}

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.finished = True


class FakeWandb(types.ModuleType):
    """Stands in for wandb, with or without a login and a server."""

    class Error(Exception):
        """The base class of wandb's errors."""

    def __init__(self, logged_in: bool = True, failure: Exception | None = None) -> None:
        super().__init__("wandb")
        self.logged_in, self.failure = logged_in, failure
        self.calls: list[dict[str, Any]] = []
        self.runs: list[FakeRun] = []

    def login(self, **kwargs: Any) -> bool:
        assert kwargs.get("prompt") is False, "nobody may be there to answer"
        return self.logged_in

    @staticmethod
    def Settings(**kwargs: Any) -> dict[str, Any]:
        return kwargs

    def init(self, **kwargs: Any) -> FakeRun:
        self.calls.append(kwargs)
        if self.failure is not None and kwargs.get("mode") != "offline":
            raise self.failure
        self.runs.append(FakeRun())
        return self.runs[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(**kwargs: Any) -> FakeWandb:
        module = FakeWandb(**kwargs)
        monkeypatch.setitem(sys.modules, "wandb", module)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        return module

    return install


def pop() -> list[Any]:
    return [OwnAgent(i, fitnesses=[float(i)]) for i in range(2)]


def test_every_agent_s_fitness_settings_architecture_and_mutation_are_logged(fake: Any) -> None:
    package = fake()
    _, fitnesses, seen = run(
        small_population(),
        makeVectEnvs("CartPole-v1", seed=1),
        wb=True,
        tournament=TournamentSelection(2, True, 3, 1, seed=1),
        mutation=Mutations("DQN", 0, 1, 0.5, 1, 0, 1, ["lr"], 0.1, rand_seed=1),
    )
    rows = package.runs[0].rows
    assert len(rows) == 2
    assert package.runs[0].finished
    for row, values, gen in zip(rows, fitnesses, seen, strict=True):
        assert row["global_steps"] == gen.global_steps
        assert row["fitness/best"] == max(values)
        for slot, agent in enumerate(gen.rows):
            assert row[f"agent_{slot}/fitness"] == values[slot]
            for name in ("mutation", "architecture", "lr", "batch_size", "learn_step"):
                assert row[f"agent_{slot}/{name}"] == agent[name]
    assert rows[1]["agent_0/mutation"] == "elite"
    config = package.calls[0]["config"]
    assert (config["population_size"], config["max_steps"]) == (3, 3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"logged_in": False}, "not logged in"),
        ({"failure": FakeWandb.Error("timed out\nmore lines")}, "timed out"),
        ({"failure": ConnectionError("no route to host")}, "no route to host"),
    ],
)
def test_without_login_or_server_it_falls_back_to_offline_with_one_line(
    fake: Any, settings: dict[str, Any], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    package = fake(**settings)
    _, fitnesses, _ = run(pop(), wb=True)
    assert len(fitnesses) == 2
    assert package.calls[-1]["mode"] == "offline"
    assert len(package.runs[-1].rows) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert reason in lines[0]
    assert "offline" in lines[0]


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_mode_that_the_user_chose_is_kept_without_a_word(
    fake: Any, mode: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    package = fake(logged_in=False)
    monkeypatch.setenv("WANDB_MODE", mode)
    run(pop(), wb=True)
    assert len(package.calls) == 1
    assert "mode" not in package.calls[0]
    assert capfd.readouterr().err == ""


def test_the_run_is_finished_when_training_fails(fake: Any) -> None:
    package = fake()

    def fail(generation: Any) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(pop(), wb=True, callbacks=[fail])
    assert package.runs[0].finished


def test_a_missing_package_is_an_error_only_if_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it raises ImportError
    with pytest.raises(ConfigError, match="wandb is not installed; run `pip install wandb`"):
        run(pop(), wb=True)
    assert len(run(pop(), wb=False)[1]) == 2


@pytest.mark.global_rng
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_real_package_works_offline_and_disabled(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("WANDB_MODE", mode),
        ("WANDB_DIR", str(tmp_path)),
        ("WANDB_SILENT", "true"),
        ("WANDB_CONFIG_DIR", str(tmp_path / "config")),
        ("WANDB_CACHE_DIR", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    wandb.teardown()  # it reads the environment once a process
    try:
        _, fitnesses, _ = run(pop(), wb=True)
    finally:
        wandb.teardown()
    assert len(fitnesses) == 2
    written = list(tmp_path.rglob("*.wandb"))
    assert len(written) == (1 if mode == "offline" else 0)
    if written:
        assert b"agent_1/fitness" in written[0].read_bytes()


def test_global_steps_are_the_axis_and_the_config_says_what_ran(fake: Any) -> None:
    wandb = fake()
    env = makeVectEnvs("CartPole-v1", 2)
    population = initialPopulation(
        "DQN", (4,), 2, False, {"arch": "mlp", "h_size": [8]}, {"LR": 3e-4, "BATCH_SIZE": 9}, 2
    )
    run(population, env, env_name="CartPole-v0", wb=True, n_episodes=1)
    (started,) = wandb.calls
    config = started["config"]
    assert config["env_name"] == "CartPole-v1"  # what ran, whatever the label says
    assert config["agent"]["lr"] == 3e-4
    assert config["agent"]["net_config"]["h_size"] == [8]
    assert [agent["batch_size"] for agent in config["agents"]] == [9, 9]
    assert wandb.runs[0].metrics["*"] == {"step_metric": "global_steps"}


def test_the_project_may_be_chosen(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = fake()
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    WandbLogger("agilerl", {})
    assert wandb.calls[0]["project"] == "mine"


@pytest.mark.parametrize("broken", ["log", "finish", "define_metric"])
def test_nothing_that_fails_there_ends_a_run(
    fake: Any, broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **kwargs: Any) -> None:
        raise RuntimeError("the server is on fire")

    fake()
    monkeypatch.setattr(FakeRun, broken, fail)
    found, fitnesses, _ = run(pop(), wb=True)
    assert len(found) == len(fitnesses[0])
    assert capsys.readouterr().err.count("the server is on fire; nothing more is logged") == 1
