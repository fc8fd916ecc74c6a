"""An agent's checkpoint: complete, of one algorithm, and nothing is lost when it does not fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from agilerl.algorithms.cqn import CQN
from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.errors import CheckpointError
from agilerl.networks import mlp_kernel
from tests.algorithms.cases import CASES, assert_learns, differing, tensors

CASE = CASES["DQN, MLP, kernel"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "agent.pt"


def saved_agent(path: Path) -> Any:
    agent = CASE.agent()
    agent.learn(CASE.batch())
    agent.saveCheckpoint(path)
    return agent


# ------------------------------------------------------------------------------------------ agents


@pytest.mark.parametrize(("cls", "other"), [(DQN, CQN), (CQN, DQN), (DDPG, DQN)])
def test_a_checkpoint_of_another_algorithm_is_refused_by_name(
    cls: type[Any], other: type[Any], path: Path
) -> None:
    cls(4, 2, False).saveCheckpoint(path)
    with pytest.raises(CheckpointError, match=rf"of '{cls.algo}', expected '{other.algo}'"):
        other.load(path)


HUGE = 10**9
OPTIONS = ("networks", "actor", "optimizer", "options")
BIAS = ("networks", "actor", "optimizer", "moments", "layers.output.bias")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("settings",), [1]),
        (("settings", "net_config"), {"arch": "mlp", "h_size": [HUGE, HUGE]}),
        (("settings", "net_config"), {"arch": "rnn"}),
        (("settings", "batch_size"), 0),
        (("settings", "gamma"), float("nan")),
        (("settings", "surprise"), 1),
        (("settings", "device"), "cuda"),
        (("networks",), []),
        (("networks", "actor"), 3),
        (("networks", "actor", "shapes", "", "hidden_size"), [HUGE, HUGE]),
        (("networks", "actor", "shapes", "", "hidden_size"), [-1]),
        (("networks", "actor", "shapes", "", "activation"), "swish"),
        (("networks", "actor", "module", "layers.output.bias"), "zero"),
        (("networks", "actor", "module", "layers.output.bias"), torch.zeros(9)),
        (("networks", "actor", "target"), {}),
        (("networks", "actor", "target", "layers.output.bias"), torch.zeros(9)),
        (("networks", "actor", "frozen"), ["layers.nobody"]),
        (("networks", "actor", "optimizer"), {}),
        (("networks", "actor", "optimizer", "moments"), "none"),
        (("networks", "actor", "optimizer", "moments", "layers.nobody"), {}),
        (("networks", "actor", "optimizer", "moments", "layers.output.bias"), {}),
        ((*BIAS, "exp_avg"), torch.zeros(9)),
        ((*BIAS, "exp_avg"), torch.zeros(3, dtype=torch.long)),
        ((*BIAS, "step"), torch.tensor(-1.0)),
        ((*BIAS, "step"), torch.tensor(float("nan"))),
        ((*BIAS, "surprise"), torch.zeros(3)),
        ((*OPTIONS, "lr"), float("nan")),
        ((*OPTIONS, "lr"), -1.0),
        ((*OPTIONS, "lr"), "fast"),
        ((*OPTIONS, "betas"), (0.9, 1.0)),
        ((*OPTIONS, "betas"), (-0.1, 0.9)),
        ((*OPTIONS, "betas"), (0.9,)),
        ((*OPTIONS, "eps"), float("inf")),
        ((*OPTIONS, "weight_decay"), -1.0),
        ((*OPTIONS, "maximize"), True),
        ((*OPTIONS, "amsgrad"), True),
        ((*OPTIONS, "momentum"), 1.0),
        (("history",), None),
        (("streams",), []),
        (("streams",), ["{", "{"]),
        (("streams",), ["{}", "{}"]),
    ],
    ids=str,
)
def test_an_inconsistent_checkpoint_is_a_checkpoint_error_and_loses_nothing(
    where: tuple[str, ...], value: Any, path: Path
) -> None:
    agent = saved_agent(path)
    payload = torch.load(path, weights_only=True)
    part = payload
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    torch.save(payload, path)
    before, attributes = tensors(agent), agent.settings()
    with pytest.raises(CheckpointError, match=r"agent\.pt: "):
        agent.loadCheckpoint(path)
    assert differing(before, tensors(agent)) == []
    assert agent.settings() == attributes
    assert_learns(agent, CASE.batch(1))


@pytest.mark.parametrize("key", ["algo", "settings", "networks", "history", "streams"])
def test_a_checkpoint_without_one_of_its_parts_is_a_checkpoint_error(key: str, path: Path) -> None:
    saved_agent(path)
    payload = torch.load(path, weights_only=True)
    del payload[key]
    torch.save(payload, path)
    with pytest.raises(CheckpointError):
        DQN.load(path)


@pytest.mark.parametrize("name", ["DQN, MLP, kernel", "DDPG, CNN", "CQN, one-hot, autograd"])
def test_an_agent_is_rebuilt_from_its_checkpoint_alone(
    name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    monkeypatch.setattr(mlp_kernel, "enabled", case.kernel)
    agent = case.agent(gamma=0.7, learn_step=3)
    agent.actor.add_layer() if name.startswith("DQN") else agent.actor.change_activation("gelu")
    agent.learn(case.batch())
    agent.saveCheckpoint(path)
    loaded = case.cls.load(path)
    assert loaded.architecture == agent.architecture
    assert loaded.settings() == agent.settings()
    agent.learn(case.batch(1))
    loaded.learn(case.batch(1))
    assert differing(tensors(agent), tensors(loaded)) == []


@pytest.mark.parametrize("name", ["DQN, MLP, kernel", "DDPG, MLP, kernel"])
def test_an_agent_in_double_precision_comes_back_in_it(name: str, path: Path) -> None:
    case = CASES[name]
    agent = case.agent()
    for owned in agent.networks.values():
        owned.module.to(torch.float64)
    agent.learn(case.batch())
    agent.saveCheckpoint(path)
    loaded = case.cls.load(path)
    assert {x.dtype for x in loaded.actor.parameters()} == {torch.float64}
    assert differing(tensors(agent), tensors(loaded)) == []
    agent.learn(case.batch(1))
    loaded.learn(case.batch(1))
    assert differing(tensors(agent), tensors(loaded)) == []


def test_frozen_layers_and_settings_of_adam_come_back(path: Path) -> None:
    agent = CASE.agent()
    agent.actor.layers["linear_0"].requires_grad_(False)
    agent.optimizer.param_groups[0].update(weight_decay=0.1, betas=(0.5, 0.9))
    agent.learn(CASE.batch())
    agent.saveCheckpoint(path)
    loaded = DQN.load(path)
    assert [p.requires_grad for p in loaded.actor.parameters()] == [
        p.requires_grad for p in agent.actor.parameters()
    ]
    for one in (agent, loaded):
        one.learn(CASE.batch(1))
    assert differing(tensors(agent), tensors(loaded)) == []


def test_load_checkpoint_takes_over_everything_and_keeps_the_device(path: Path) -> None:
    agent = saved_agent(path)
    other = DQN(9, 5, False, index=8, gamma=0.1, double=True)
    other.loadCheckpoint(path)
    assert other.settings() == agent.settings()
    assert other.index == agent.index
    assert other.device == torch.device("cpu")
    twin = copy.deepcopy(other)
    assert_learns(twin, CASE.batch(1))


@pytest.mark.parametrize("sizes", [[20_000] * 3, [64] * 5_000])
def test_settings_that_ask_for_far_more_than_is_stored_are_refused_before_they_are_built(
    sizes: list[int],
) -> None:
    state = DQN(4, 2, False).state_dict()
    state["settings"]["net_config"]["h_size"] = sizes
    with pytest.raises(CheckpointError):
        DQN.from_state_dict(state)
