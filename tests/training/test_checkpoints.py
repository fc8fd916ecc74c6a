"""Whole-run checkpoints: a run that was stopped goes on bit for bit; files that are damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agilerl.algorithms.dqn import DQN
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import CheckpointError, ConfigError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.networks import mlp_kernel
from agilerl.training import checkpoints, train_offline
from agilerl.training.checkpoints import CheckpointStore, load_population
from agilerl.training.run import Generation
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.agents import OwnAgent
from tests.runs import FIELDS, run, small_population

ROOT = Path(__file__).parents[2]
TRAINERS = ("DQN", "DDPG", "CQN")


def start(algo: str, path: Path | None, **changes: Any) -> tuple[Any, ...]:
    """Run a trainer with evolution; return population, fitnesses, memory and evolution."""
    name = "Pendulum-v1" if algo == "DDPG" else "CartPole-v1"
    env = makeVectEnvs(name, 2)
    action = env.single_action_space
    pop = initialPopulation(
        algo,
        env.single_observation_space.shape or (),
        1 if algo == "DDPG" else int(action.n),
        False,
        {"arch": "mlp", "h_size": [8, 8], "min_mlp_nodes": 4},
        {"BATCH_SIZE": 8, "LEARN_STEP": 2},
        3,
        seed=1,
    )
    memory = ReplayBuffer(1, 150, FIELDS, seed=2)
    arguments: dict[str, Any] = {
        "n_episodes": 7,
        "max_steps": 12,
        "evo_epochs": 2,
        "target": None,
        "seed": 4,
        "verbose": False,
        "tournament": TournamentSelection(2, True, 3, 1, seed=5),
        "mutation": Mutations(
            algo, 0.1, 0.4, 0.5, 0.2, 0.1, 0.2, ["lr", "batch_size"], 0.1, rand_seed=6
        ),
        "checkpoint_path": path,
        "checkpoint": None if path is None else 1,
        **changes,
    }
    if algo == "CQN":
        rng = np.random.default_rng(0)
        data = {
            "observations": rng.standard_normal((100, 4)).astype(np.float32),
            "actions": rng.integers(2, size=100),
            "rewards": rng.standard_normal(100).astype(np.float32),
            "terminals": rng.random(100) < 0.1,
        }
        data.update(arguments.pop("data", {}))
        result = train_offline.train(env, name, data, algo, pop, memory, **arguments)
    else:
        result = train(env, name, algo, pop, memory, **arguments)
    return *result, memory, arguments["tournament"], arguments["mutation"]


def digest(result: tuple[Any, ...]) -> str:
    """Return a hash of everything that a run leaves."""
    pop, fitnesses, memory, tournament, mutation = result
    found = hashlib.sha256(repr([[float(f) for f in row] for row in fitnesses]).encode())
    states = [agent.state_dict() for agent in pop]
    for state in (*states, memory.state_dict(), tournament.state_dict(), mutation.state_dict()):
        plain, tensors = checkpoints.packed(state)
        found.update(json.dumps(plain, sort_keys=True).encode())
        for tensor in tensors.values():
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def whole() -> Callable[[str], str]:
    known: dict[str, str] = {}

    def of(algo: str) -> str:
        if algo not in known:
            known[algo] = digest(start(algo, None))
        return known[algo]

    return of


@pytest.mark.parametrize("algo", TRAINERS)
@pytest.mark.parametrize("where", [1, 3, 4, 6])
def test_a_run_that_was_stopped_anywhere_goes_on_bit_for_bit(
    algo: str, where: int, tmp_path: Path, whole: Callable[[str], str]
) -> None:
    start(algo, tmp_path / "x", n_episodes=where)
    assert digest(start(algo, tmp_path / "x", resume=True)) == whole(algo)


@pytest.mark.parametrize("algo", TRAINERS)
def test_ctrl_c_in_the_middle_of_an_episode_or_evaluation_loses_nothing(
    algo: str, tmp_path: Path, whole: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from agilerl.algorithms.base import EvolvableAgent

    for name, calls in (("unpack", 40), ("getAction", 200), ("test", 5)):
        original = getattr(EvolvableAgent, name)
        left = [calls]

        def interrupted(
            self: Any, *args: Any, _own: Any = original, _left: Any = left, **kwargs: Any
        ) -> Any:
            _left[0] -= 1
            if _left[0] == 0:
                raise KeyboardInterrupt
            return _own(self, *args, **kwargs)

        monkeypatch.setattr(EvolvableAgent, name, interrupted)
        start(algo, tmp_path / name, checkpoint=100)
        monkeypatch.setattr(EvolvableAgent, name, original)
        assert digest(start(algo, tmp_path / name, resume="auto")) == whole(algo), name


def test_a_run_goes_on_with_more_episodes_or_another_target(tmp_path: Path) -> None:
    expected = start("DQN", None, n_episodes=9)
    start("DQN", tmp_path / "x", n_episodes=5, target=1.0)
    solved = start("DQN", tmp_path / "x", n_episodes=5, target=1.0, resume=True)
    assert len(solved[1]) >= 1
    assert digest(start("DQN", tmp_path / "x", n_episodes=9, resume=True)) == digest(expected)


def test_a_finished_run_comes_back_untrained_and_fittest_first(tmp_path: Path) -> None:
    first = start("DQN", tmp_path / "x", n_episodes=4)
    again = start("DQN", tmp_path / "x", n_episodes=4, resume="auto")
    assert digest(first) == digest(again)


def test_auto_begins_where_there_is_none_and_true_does_not(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no run to go on with"):
        start("DQN", tmp_path / "x", resume=True)
    pop, fitnesses, *_ = start("DQN", tmp_path / "x", resume="auto")
    assert len(pop) == 3
    assert len(fitnesses) == 4


def test_a_directory_that_holds_a_run_is_not_begun_again(tmp_path: Path) -> None:
    start("DQN", tmp_path / "x", n_episodes=1)
    with pytest.raises(ConfigError, match=r"holds a run; resume=True .* resume='force'"):
        start("DQN", tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 13}, "max_steps was 12, is 13"),
        ({"evo_loop": 2}, "evo_loop was 1, is 2"),
        ({"eps_decay": 0.9}, "decay was 0.995, is 0.9"),
        ({"seed": 5}, "seed was 4, is 5"),
        (
            {"tournament": TournamentSelection(3, True, 3, 1)},
            "tournament was .*'tournament_size': 2",
        ),
        ({"mutation": None}, "mutation was"),
    ],
)
def test_other_settings_are_refused_by_name(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    start("DQN", tmp_path / "x", n_episodes=2)
    with pytest.raises(CheckpointError, match=message):
        start("DQN", tmp_path / "x", resume=True, **changes)
    start("DQN", tmp_path / "x", resume="force", **changes)


def test_no_seed_takes_the_recorded_one(tmp_path: Path, whole: Callable[[str], str]) -> None:
    start("DQN", tmp_path / "x", n_episodes=3)
    assert digest(start("DQN", tmp_path / "x", resume=True, seed=None)) == whole("DQN")


def test_other_versions_or_passes_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("DQN", tmp_path / "x", n_episodes=4)
    monkeypatch.setattr(mlp_kernel, "enabled", False)
    with pytest.warns(UserWarning, match="other numbers: MLP passes was '.*', is 'by autograd'"):
        start("DQN", tmp_path / "x", n_episodes=4, resume=True)


def test_other_data_are_refused(tmp_path: Path) -> None:
    start("CQN", tmp_path / "x", n_episodes=2)
    with pytest.raises(CheckpointError, match="learnt from other data"):
        start("CQN", tmp_path / "x", resume=True, data={"rewards": np.zeros(100, np.float32)})


def test_the_population_and_the_best_agent_of_a_run_can_be_loaded(tmp_path: Path) -> None:
    seen: list[Generation] = []
    start("DQN", tmp_path / "x", callbacks=[seen.append])
    agents = load_population(tmp_path / "x")
    assert [type(agent) for agent in agents] == [DQN] * 3
    assert all(agent.learn_count > 0 for agent in agents)
    best = DQN.load(tmp_path / "x" / "elite" / "agent.pt")
    assert best.fitness[-1] == max(f for generation in seen for f in generation.fitnesses)


def test_a_run_has_a_directory_of_its_own_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        start("DQN", None, n_episodes=1, checkpoint=1, seed=None)
    names = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("CartPole-v1-DQN-") for name in names)


# ------------------------------------------------------------------------------------- the format


def files(path: Path) -> list[Path]:
    return sorted(x for x in path.rglob("*") if x.is_file() and not x.name.startswith("."))


def test_a_checkpoint_writes_the_new_rows_only_and_keeps_what_is_needed(tmp_path: Path) -> None:
    start("DQN", tmp_path / "x", n_episodes=6, keep=2)
    segments = [path.name for path in (tmp_path / "x" / "buffer").iterdir()]
    rows = 2 * 12 * 3
    assert sorted(segments) == [
        f"rows_{i * rows:015d}_{(i + 1) * rows:015d}.safetensors" for i in (2, 3, 4, 5)
    ]
    folders = sorted(path.name for path in (tmp_path / "x" / "checkpoints").iterdir())
    assert folders == ["episode_000000005", "episode_000000006"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, whole: Callable[[str], str]
) -> None:
    for name in ("state.json", "tensors.safetensors", "manifest.json"):
        start("DQN", tmp_path / name, n_episodes=4)
        damaged = tmp_path / name / "checkpoints" / "episode_000000004" / name
        damaged.write_bytes(damaged.read_bytes()[:-9])
        with pytest.warns(UserWarning, match=f"{name}.*The checkpoint before it is used"):
            result = start("DQN", tmp_path / name, resume=True)
        assert digest(result) == whole("DQN")


def test_one_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    start("DQN", tmp_path / "x", n_episodes=2, keep=1)
    rng = np.random.default_rng(0)
    original = json.dumps(checkpoints.packed(CheckpointStore(tmp_path / "x").read())[0])
    members = [path for path in files(tmp_path / "x") if path.parent.name != "elite"]
    for path in members:
        content = path.read_bytes()
        for _ in range(4):
            spoilt = bytearray(content)
            spoilt[int(rng.integers(len(spoilt)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(spoilt))
            store = CheckpointStore(tmp_path / "x")
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                with contextlib.suppress(CheckpointError):
                    # not noticed only where it is a blank of the manifest
                    assert json.dumps(checkpoints.packed(store.read())[0]) == original
            assert all(path.name in str(warning.message) for warning in said)
        path.write_bytes(content)


def test_if_all_are_damaged_it_does_not_begin_anew(tmp_path: Path) -> None:
    start("DQN", tmp_path / "x", n_episodes=3)
    for path in (tmp_path / "x" / "checkpoints").rglob("state.json"):
        path.unlink()
    with (
        pytest.warns(UserWarning, match=r"state.json: can't be read"),
        pytest.raises(CheckpointError, match="all 2 checkpoints"),
    ):
        start("DQN", tmp_path / "x", resume="auto")


def test_a_member_that_is_a_link_is_refused(tmp_path: Path) -> None:
    start("DQN", tmp_path / "x", n_episodes=1)
    path = next((tmp_path / "x" / "checkpoints").rglob("state.json"))
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with (
        pytest.warns(UserWarning, match=r"state.json: damaged"),
        pytest.raises(CheckpointError, match="all 1 checkpoints"),
    ):
        CheckpointStore(tmp_path / "x").read()


# -------------------------------------------------------------------------------------- accidents


def test_two_runs_in_one_directory_are_refused_naming_the_first(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "x")
    store.open()
    with pytest.raises(ConfigError, match=rf"in use by process {os.getpid()} on \S+"):
        start("DQN", tmp_path / "x")
    store.close()
    start("DQN", tmp_path / "x", n_episodes=1)


def test_a_path_that_cannot_be_written_to_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"checkpoint_path: .* can't be written to"):
        start("DQN", tmp_path / "file" / "x")


def test_a_full_disk_is_a_warning_at_each_save_and_an_error_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start("DQN", tmp_path / "x", n_episodes=2)
    before = {path: path.read_bytes() for path in files(tmp_path / "x")}

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(CheckpointError, match=r"not saved beyond episode 2 .*No space") as caught:
        start("DQN", tmp_path / "x", resume=True)
    assert capsys.readouterr().err.count("was not saved") >= 5
    assert caught.value.population[0].learn_count > 0  # type: ignore[attr-defined]
    after = {path: path.read_bytes() for path in files(tmp_path / "x")}
    assert {path: after[path] for path in before if "elite" not in path.parts} == {
        path: content for path, content in before.items() if "elite" not in path.parts
    }
    assert not list((tmp_path / "x").rglob("*.tmp"))
    monkeypatch.undo()
    assert len(start("DQN", tmp_path / "x", resume=True)[1]) == 4


def test_what_cannot_be_saved_is_named_before_training(tmp_path: Path) -> None:
    class OwnBuffer(ReplayBuffer):
        pass

    with pytest.raises(ConfigError, match=r"OwnAgent has no state_dict\(\)"):
        run([OwnAgent(0)], checkpoint=1, checkpoint_path=tmp_path)
    with pytest.raises(ConfigError, match="a OwnBuffer can't be saved"):
        run(small_population(), memory=OwnBuffer(5, 100, FIELDS), checkpoint=1)
    with pytest.raises(ConfigError, match="resume: expected False, True"):
        run(small_population(), makeVectEnvs("CartPole-v1"), resume="yes", checkpoint_path=tmp_path)
    with pytest.raises(ConfigError, match="resume: pass checkpoint_path"):
        run(small_population(), resume=True)
