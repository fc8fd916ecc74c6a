"""Arguments that only look right: each is an error before training, or is said."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import TransitionStream
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import AgileRLError, ConfigError, EnvError
from agilerl.hpo.selection import TruncationSelection
from agilerl.hpo.tournament import TournamentSelection
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.agents import OwnAgent
from tests.envs import CorridorEnv, PayEnv
from tests.runs import FIELDS, run, small_population


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": None}, "memory: expected a ReplayBuffer, got None"),
        ({"tournament": "yes"}, "tournament: expected a TournamentSelection.*got 'yes'"),
        (
            {"tournament": TruncationSelection(2), "mutation": "yes"},
            "mutation: expected Mutations or None, got 'yes'",
        ),
        ({"callbacks": ["yes"]}, "callbacks: expected functions of a Generation, got 'yes'"),
        ({"eval_max_steps": 0}, "eval_max_steps: expected an integer >= 1, got 0"),
    ],
)
def test_parts_that_cannot_be_used_are_named_before_training(
    changes: dict[str, Any], message: str
) -> None:
    pop = [OwnAgent(0), OwnAgent(1)]
    with pytest.raises(ConfigError, match=message):
        run(pop, **changes)
    assert pop[0].steps == [0]


def test_a_single_agent_is_no_population() -> None:
    with pytest.raises(ConfigError, match=r"pop: expected a list of agents.*in a list"):
        run(OwnAgent(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("env", [None, 3, "CartPole-v1"])
def test_what_is_no_environment_is_named(env: Any) -> None:
    with pytest.raises(EnvError, match="env: expected"):
        TransitionStream(env)


def test_one_environment_cannot_be_several() -> None:
    env = PayEnv()
    with pytest.raises(EnvError, match="more than once"):
        InProcessVectorEnv([env, env])


@pytest.mark.parametrize(
    ("other", "what"), [(PayEnv(actions=3), "action"), (CorridorEnv(), "observation")]
)
def test_sub_environments_have_equal_spaces(other: Any, what: str) -> None:
    with pytest.raises(EnvError, match=f"the {what} space of sub-environment 1"):
        InProcessVectorEnv([PayEnv(), other])


@pytest.mark.parametrize("select", [TournamentSelection(2, True, 2, 1), TruncationSelection(2)])
def test_nobody_is_selected_before_an_evaluation(select: Any) -> None:
    with pytest.raises(AgileRLError, match=r"no agent was evaluated yet; call agent.test\(env\)"):
        select.select([OwnAgent(0), OwnAgent(1)])


def test_elitism_is_true_or_false() -> None:
    with pytest.raises(ConfigError, match="elitism: expected True or False, got 'no'"):
        TournamentSelection(2, "no", 2, 1)  # type: ignore[arg-type]
    assert TournamentSelection(2, np.bool_(True), 2, 1).elitism is True  # type: ignore[arg-type]


def test_an_integer_that_no_float_holds_is_out_of_range() -> None:
    with pytest.raises(ConfigError, match="lr: expected a finite number"):
        small_population(1, LR=10**400)


@pytest.mark.parametrize(
    ("key", "meant"),
    [("learning_rate", "LR"), ("train_freq", "LEARN_STEP"), ("buffer_size", "MEMORY_SIZE")],
)
def test_names_of_other_libraries_are_known(key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{key}'. Did you mean '{meant}'?"):
        small_population(1, **{key: 1})


def test_so_are_those_of_a_network() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'net_arch'. Did you mean 'h_size'"):
        initialPopulation("DQN", (4,), 2, False, {"arch": "mlp", "net_arch": [8]}, {}, 1)


def test_a_missing_mujoco_is_installed_by_gymnasiums_extra(monkeypatch: Any) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise gym.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(EnvError, match=r"pip install 'gymnasium\[mujoco\]'"):
        makeVectEnvs("Ant-v5", num_envs=1)


# ------------------------------------------------------------------------------------ the buffer


def rows(**changes: Any) -> list[Any]:
    values = {
        "state": np.zeros((3, 2), np.float32),
        "action": np.zeros(3, int),
        "reward": np.zeros(3),
        "next_state": np.zeros((3, 2), np.float32),
        "done": np.zeros(3, bool),
    }
    return list({**values, **changes}.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": np.full((3, 2), np.nan, np.float32)}, "state: expected finite numbers"),
        ({"reward": np.array([0.0, np.inf, 0.0])}, "reward: expected finite numbers"),
        ({"action": np.array([0, -1, 1])}, "action: expected numbers of actions, from 0, got -1"),
    ],
)
def test_the_buffer_takes_nothing_from_which_nothing_can_be_learnt(
    changes: dict[str, Any], message: str
) -> None:
    memory = ReplayBuffer(2, 10, FIELDS)
    memory.save2memoryVectEnvs(*rows())
    with pytest.raises(ConfigError, match=message):
        memory.save2memoryVectEnvs(*rows(**changes))
    with pytest.raises(ConfigError, match=message):
        memory.save2memory(*(value[1] for value in rows(**changes)))
    assert len(memory) == memory.counter == 3


# ------------------------------------------------------------------------------- whole numbers


class WholeEnv(PayEnv):
    """Actions are a Box of whole numbers; the reward is the first action that was executed."""

    def __init__(self) -> None:
        super().__init__(length=3)
        self.action_space = gym.spaces.Box(-5, 5, (2,), np.int32)

    def step(self, action: Any) -> Any:
        assert action.dtype == np.int32
        return super().step(action[0])


def test_what_is_stored_of_whole_actions_is_what_was_executed() -> None:
    config, settings = {"arch": "mlp", "h_size": [8]}, {"BATCH_SIZE": 8}
    pop = initialPopulation("DDPG", (1,), 2, False, config, settings, 1, seed=1)
    memory = ReplayBuffer(2, 1000, FIELDS)
    run(pop, makeVectEnvs(WholeEnv, num_envs=4), memory=memory, n_episodes=2, max_steps=40)
    _, actions, rewards, *_ = memory.sample(len(memory))
    assert len(memory) > 100
    assert (actions == actions.round()).all()
    assert (actions[:, :1] == rewards).all()
    assert len(actions[:, 0].unique()) > 5


# --------------------------------------------------------------------------- nothing is learnt


@pytest.mark.parametrize(
    "settings", [{"LEARN_STEP": 10**6, "BATCH_SIZE": 4}, {"BATCH_SIZE": 900, "LEARN_STEP": 1}]
)
def test_a_run_whose_agents_do_not_learn_says_so(
    settings: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    env = makeVectEnvs("CartPole-v1", num_envs=2)
    with caplog.at_level(logging.WARNING, "agilerl"):
        run(small_population(2, **settings), env, max_steps=10)
    (record,) = caplog.records
    assert "no agent has made a single learn step in 2 episodes" in record.getMessage()
    assert str(settings["LEARN_STEP"]) in record.getMessage()


def test_one_whose_agents_do_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    env = makeVectEnvs("CartPole-v1", num_envs=2)
    with caplog.at_level(logging.WARNING, "agilerl"):
        run(small_population(2, BATCH_SIZE=4, LEARN_STEP=1), env, max_steps=10)
    assert not caplog.records
