"""Settings are declared once, and all that hangs on them follows."""

from __future__ import annotations

import inspect
import re
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import pytest
import torch

from agilerl.algorithms import AGENTS, ALGORITHMS
from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.algorithms.settings import hyperparameter, hyperparameters_of, setting_names
from agilerl.errors import ConfigError
from tests.algorithms.cases import CASES, differing, tensors

SHARED = "state_dim action_dim one_hot index net_config batch_size lr learn_step gamma tau mutation"


@dataclass(eq=False, repr=False)
class Momentum(DQN):
    """DQN with one more hyper-parameter, declared in one line."""

    algo: ClassVar[str] = "Momentum"
    _: KW_ONLY
    momentum: float = hyperparameter(0.9, high=1.0, range=(0.5, 0.99))


def test_one_line_declares_a_hyper_parameter() -> None:
    agent = Momentum(4, 2, False, momentum=0.8)
    assert (
        agent.momentum == agent.hyperparameters["momentum"] == agent.settings()["momentum"] == 0.8
    )
    assert Momentum(4, 2, False).momentum == 0.9
    for wrong in (-0.1, 1.1, "much", float("nan"), None):
        with pytest.raises(ConfigError, match="momentum"):
            agent.momentum = wrong  # type: ignore[assignment]
        with pytest.raises(ConfigError, match="momentum"):
            Momentum(4, 2, False, momentum=wrong)  # type: ignore[arg-type]
    assert agent.momentum == agent.clone().momentum == 0.8
    assert Momentum.from_state_dict(agent.state_dict()).momentum == 0.8
    other = Momentum(4, 2, False)
    other.load_state_dict(agent.state_dict())
    assert other.momentum == 0.8
    declared = hyperparameters_of(Momentum)["momentum"]
    assert (declared.range, declared.log, declared.integer) == ((0.5, 0.99), False, False)
    assert "momentum" not in hyperparameters_of(DQN)


@pytest.mark.parametrize(
    ("algo", "own"),
    [("DQN", "double"), ("CQN", "double"), ("DDPG", "policy_freq"), ("TD3", "policy_freq")],
)
def test_the_positional_order_of_the_readme_stays(algo: str, own: str) -> None:
    parameters = inspect.signature(AGENTS[algo]).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [*SHARED.split(), own, "device", "accelerator"]
    assert [p.name for p in parameters if p.default is p.empty] == positional[:3]
    values = ((4,), 2, False, 3, None, 32, 1e-3, 2, 0.9, 0.01, "first", 3, "cpu", None)
    agent: Any = AGENTS[algo](*values)
    assert (agent.index, agent.batch_size, agent.lr, agent.learn_step) == (3, 32, 1e-3, 2)
    assert (agent.gamma, agent.tau, agent.mut, agent.device.type) == (0.9, 0.01, "first", "cpu")
    assert getattr(agent, own) == (3 if own == "policy_freq" else True)


def test_defaults_stand_in_the_signature() -> None:
    defaults = {name: p.default for name, p in inspect.signature(DDPG).parameters.items()}
    assert (defaults["lr"], defaults["batch_size"], defaults["policy_freq"]) == (1e-4, 64, 2)
    assert (defaults["device"], defaults["accelerator"], defaults["seed"]) == ("cpu", None, None)
    assert inspect.signature(DDPG).parameters["gamma"].annotation == "float"


def test_a_language_agent_takes_no_argument_that_means_nothing_to_it() -> None:
    cloning, values = (set(inspect.signature(ALGORITHMS[a]).parameters) for a in ("BC_LM", "ILQL"))
    assert not cloning & {"gamma", "tau", "state_dim", "one_hot", "learn_step", "double"}
    assert {"gamma", "tau", "expectile"} <= values


@pytest.mark.parametrize("algo", AGENTS)
def test_every_network_is_clipped_and_none_is_off(algo: str) -> None:
    case = next(c for c in CASES.values() if c.cls.algo == algo)
    learnt = {}
    for limit in (None, 1e9, 1e-3):
        agent = case.agent(max_grad_norm=limit)
        agent.learn(case.batch())
        learnt[limit] = tensors(agent)
        for name in agent.networks:  # the first mean is a tenth of the gradient
            means = [v for k, v in learnt[limit].items() if re.match(f"{name} .* exp_avg$", k)]
            norm = 10 * float(torch.cat([mean.flatten() for mean in means]).norm())
            assert (norm == pytest.approx(1e-3, rel=1e-2)) == (limit == 1e-3), name
    assert differing(learnt[None], learnt[1e9]) == []


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_identity_is_no_setting(algo: str) -> None:
    names = setting_names(ALGORITHMS[algo])
    assert not {"index", "mutation", "device", "accelerator", "seed"} & set(names)
    assert list(hyperparameters_of(ALGORITHMS[algo])) == [
        name for name in names if name in hyperparameters_of(ALGORITHMS[algo])
    ]
