"""Offline training: what is learnt, from what, and how often."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from agilerl.algorithms import AGENTS
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.data.collect import collect, random_policy
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import ConfigError, DatasetError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.run import Generation
from agilerl.training.train_offline import train
from tests.envs import CatchEnv, CorridorEnv, PayEnv, ReachEnv

FIELDS = ["state", "action", "reward", "next_state", "done"]
HP = {"batch_size": 32, "lr": 5e-3, "tau": 5e-2, "gamma": 0.9}
MLP = {"arch": "mlp", "h_size": [16]}
CNN = {"arch": "cnn", "h_size": [32], "c_size": [8], "k_size": [3], "s_size": [2]}


def recorded(make: Any, rows: int) -> OfflineDataset:
    env = InProcessVectorEnv([make() for _ in range(4)])
    data = collect(env, random_policy(env, 0), rows, seed=0)
    return OfflineDataset.from_dict(data, attributes={"policy": "random"})


def corridor(algo: str = "CQN", count: int = 1, **settings: Any) -> list[Any]:
    hp = {**HP, **settings}
    return [AGENTS[algo](5, 2, True, index=i, net_config=MLP, seed=i, **hp) for i in range(count)]


def buffer(size: int = 1000) -> ReplayBuffer:
    return ReplayBuffer(2, size, FIELDS, seed=0)


def run(pop: list[Any], dataset: Any, env: Any = None, **options: Any) -> Any:
    memory = options.pop("memory", None)
    memory = buffer() if memory is None else memory
    settings = {"n_episodes": 2, "max_steps": 50, "evo_epochs": 1, "target": None, "seed": 0}
    settings.update(options)
    env = CorridorEnv() if env is None else env
    return train(env, "Corridor", dataset, "CQN", pop, memory, verbose=False, **settings)


@pytest.fixture(scope="module")
def walks() -> OfflineDataset:
    return recorded(CorridorEnv, 600)


# ----------------------------------------------------------------------------------- what is learnt


@pytest.mark.parametrize("algo", ["CQN", "DQN"])
def test_the_way_is_learnt_from_random_walks(algo: str, walks: OfflineDataset) -> None:
    assert walks.report.mean_return is not None
    assert walks.report.mean_return < 0.9
    pop, fitnesses = run(corridor(algo, 2), walks, n_episodes=4, max_steps=100)
    assert fitnesses[-1] == [1.0, 1.0]
    assert [agent.getAction(state) for agent in pop for state in range(4)] == [1] * 8


def test_torques_are_learnt_from_random_ones() -> None:
    reaches = recorded(ReachEnv, 1000)
    agent = AGENTS["DDPG"]((2,), 1, False, net_config=MLP, seed=0, **HP)
    memory = ReplayBuffer(1, 1000, FIELDS, seed=0)
    _, fitnesses = run([agent], reaches, ReachEnv(), memory=memory, n_episodes=4, max_steps=150)
    assert reaches.report.mean_return is not None
    assert reaches.report.mean_return < -14
    assert fitnesses[-1][0] > -5


def test_images_are_learnt_from_in_either_layout() -> None:
    catches = recorded(CatchEnv, 900)
    weights = []
    turned = OfflineDataset.from_dict(
        {
            "observations": np.moveaxis(catches.observations, -1, 1),
            "next_observations": np.moveaxis(catches.next_observations, -1, 1),
            "actions": catches.actions,
            "rewards": catches.rewards,
            "terminals": catches.terminated,
        }
    )
    for dataset in (catches, turned):
        agent = AGENTS["CQN"]((3, 10, 10), 3, False, net_config=CNN, seed=0, **HP)
        memory = ReplayBuffer(3, 1000, FIELDS, seed=0)
        run(
            [agent],
            dataset,
            CatchEnv(),
            memory=memory,
            swap_channels=True,
            n_episodes=1,
            max_steps=10,
        )
        assert memory._fields[0].shape == (1000, 3, 10, 10)
        weights.append([p.detach().clone() for p in agent.actor.parameters()])
    assert all((a == b).all() for a, b in zip(*weights, strict=True))


# --------------------------------------------------------------------------------------- how often


def counted(agents: list[Any]) -> list[int]:
    calls = [0] * len(agents)
    for place, agent in enumerate(agents):
        learn = agent.learn

        def count(batch: Any, place: int = place, learn: Any = learn) -> Any:
            calls[place] += 1
            return learn(batch)

        agent.learn = count
    return calls


def test_an_episode_is_max_steps_learn_calls_whatever_learn_step(walks: OfflineDataset) -> None:
    agents = corridor(count=2, learn_step=7)
    calls = counted(agents)
    run(agents, walks, n_episodes=3, max_steps=20, evo_epochs=2)
    assert calls == [60, 60]


def test_the_environment_is_stepped_to_evaluate_only(walks: OfflineDataset) -> None:
    seen: list[Generation] = []
    env = PayEnv(length=7, actions=2)
    data = recorded(lambda: PayEnv(length=7, actions=2), 100)
    agents = [AGENTS["CQN"]((1,), 2, False, net_config=MLP, seed=i, **HP) for i in range(3)]
    before = env.episodes
    run(agents, data, env, n_episodes=4, evo_epochs=2, evo_loop=2, callbacks=[seen.append])
    assert [g.train_steps for g in seen] == [0, 0]
    assert [g.global_steps for g in seen] == [3 * 2 * 7, 2 * 3 * 2 * 7]
    # each evaluation resets twice (seeded, then by the test itself) and after each episode
    assert env.episodes - before == 2 * 3 * 4
    assert [agent.steps for agent in agents] == [[0, 0]] * 3


def test_the_run_stops_when_the_target_is_reached(walks: OfflineDataset) -> None:
    _, fitnesses = run(corridor(count=2), walks, n_episodes=40, max_steps=100, target=1.0)
    assert len(fitnesses) < 40
    assert max(fitnesses[-1]) == 1.0


def test_the_population_evolves_and_the_elite_stays(walks: OfflineDataset) -> None:
    tournament = TournamentSelection(2, True, 4, 1, seed=0)
    mutation = Mutations("CQN", 0.2, 0.2, 0.2, 0.2, 0, 0.2, ["lr", "alpha"], 0.1, rand_seed=0)
    seen: list[Generation] = []
    pop, fitnesses = run(
        corridor(count=4),
        walks,
        n_episodes=6,
        tournament=tournament,
        mutation=mutation,
        callbacks=[seen.append],
    )
    assert len(fitnesses) == 6
    assert len({row["mutation"] for g in seen[1:] for row in g.rows}) > 2
    assert pop[0].fitness[-1] == max(fitnesses[-1])


def evolved_run() -> list[Any]:
    """Return the fitnesses and the weights of a short run with evolution on."""
    pop, fitnesses = run(
        corridor(count=3),
        recorded(CorridorEnv, 200),
        n_episodes=3,
        max_steps=10,
        tournament=TournamentSelection(2, True, 3, 1, seed=0),
        mutation=Mutations("CQN", 0.1, 0.3, 0.5, 0.2, 0, 0.2, ["lr"], 0.1, rand_seed=0),
    )
    return [fitnesses, [p.detach().tolist() for a in pop for p in a.actor.parameters()]]


def test_one_seed_gives_the_same_run_in_another_process() -> None:
    root = str(Path(__file__).parents[2])
    program = (
        f"import json, sys; sys.path.insert(0, {root!r});"
        " from tests.training.test_train_offline import evolved_run;"
        " print(json.dumps(evolved_run()))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == evolved_run()


# ----------------------------------------------------------------------------------- from what


def test_a_path_an_open_file_and_a_value_train_alike(walks: OfflineDataset, tmp_path: Path) -> None:
    path = tmp_path / "walks.h5"
    walks.save(path)
    results = []
    with h5py.File(path, "r") as file:
        for dataset in (walks, path, str(path), file):
            pop, fitnesses = run(corridor(), dataset)
            weights = [float(p.detach().sum()) for p in pop[0].actor.parameters()]
            results.append((fitnesses, weights))
        assert file["rewards"].shape == (600,)
    assert results == [results[0]] * 4


def test_a_single_environment_of_gymnasium_will_do() -> None:
    data = recorded(lambda: gym.make("CartPole-v1"), 200)
    agent = AGENTS["CQN"]((4,), 2, False, net_config=MLP, seed=0, **HP)
    _, fitnesses = run([agent], data, gym.make("CartPole-v1"))
    assert len(fitnesses) == 2


def test_a_small_buffer_warns_and_all_rows_takes_everything(
    walks: OfflineDataset, caplog: pytest.LogCaptureFixture
) -> None:
    memory = buffer(100)
    run(corridor(), walks, memory=memory)
    assert len(memory) == 100
    assert "500 of 600 transitions left out" in caplog.text
    caplog.clear()
    memory = buffer(100)
    run(corridor(), walks, memory=memory, all_rows=True)
    assert len(memory) == memory.memory_size == 600
    assert caplog.text == ""


def test_verbose_says_what_was_kept_and_what_is_to_beat(
    walks: OfflineDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    attributes = {"policy": "random", "policy_mean_return": 0.5}
    data = OfflineDataset.from_dict(
        {
            "observations": walks.observations,
            "actions": walks.actions,
            "rewards": walks.rewards,
            "terminals": walks.terminated,
            "timeouts": walks.ended & ~walks.terminated,
        },
        attributes=attributes,
    )
    train(CorridorEnv(), "Corridor", data, "CQN", corridor(), buffer(), n_episodes=1, max_steps=1)
    told = capsys.readouterr().err
    assert str(data.report) in told
    assert f"data set {data.report.mean_return:.1f}, the random policy that made it 0.5" in told


def test_a_mistake_is_told_before_the_data_is_read(walks: OfflineDataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_episodes"):
        run(corridor(), tmp_path / "none.h5", n_episodes=0)
    with pytest.raises(DatasetError, match="no such file"):
        run(corridor(), tmp_path / "none.h5")
    with pytest.raises(DatasetError, match=r"observations.*another environment"):
        run(corridor(), walks, gym.make("CartPole-v1"))


def test_a_batch_larger_than_the_data_is_refused(walks: OfflineDataset) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        run(corridor(batch_size=601), walks)
