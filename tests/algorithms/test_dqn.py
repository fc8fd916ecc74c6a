"""DQN and CQN, on cases computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms.cqn import CQN
from agilerl.algorithms.dqn import DQN
from agilerl.errors import EnvError
from tests.algorithms.cases import CNN
from tests.algorithms.known import one_row, put_out

ONLINE, TARGET = (1.0, 5.0, 2.0), (10.0, 20.0, 30.0)


def known(cls: type[DQN] = DQN, **settings: Any) -> Any:
    """Return an agent whose networks say ``ONLINE`` and ``TARGET``, of discount 0.5."""
    agent = cls(1, 3, False, gamma=0.5, seed=0, **settings)
    put_out(agent.actor, *ONLINE)
    put_out(agent.actor_target, *TARGET)
    return agent


@pytest.mark.parametrize(
    ("double", "next_value"),
    [(False, 30.0), (True, 20.0)],
    ids=["max of the target", "double: the online network picks, the target values"],
)
def test_double_q_the_online_network_picks_and_the_target_values(
    double: bool, next_value: float
) -> None:
    loss = known(double=double).learn(one_row([0], reward=1.0))
    assert loss == pytest.approx((1.0 - (1.0 + 0.5 * next_value)) ** 2)


@pytest.mark.parametrize("double", [False, True])
def test_a_terminated_row_has_the_reward_alone_as_its_target(double: bool) -> None:
    loss = known(double=double).learn(one_row([1], reward=2.0, done=1.0))
    assert loss == pytest.approx((5.0 - 2.0) ** 2)


def test_the_loss_is_the_mean_over_the_batch() -> None:
    rows = [one_row([0], done=1.0), one_row([1], done=1.0)]
    batch = [torch.cat(parts) for parts in zip(*rows, strict=True)]
    assert known().learn(batch) == pytest.approx((1.0 + 25.0) / 2)


def test_the_gradient_is_not_clipped() -> None:
    agent = known()
    agent.learn(one_row([0], reward=-1e4, done=1.0))
    moment = agent.optimizer.state[agent.actor.layers["output"].bias]["exp_avg"]
    assert moment.tolist() == pytest.approx([0.1 * 2 * (1 + 1e4), 0.0, 0.0])


@pytest.mark.parametrize("cls", [DQN, CQN])
def test_with_hubers_loss_it_is(cls: type[DQN]) -> None:
    agent = known(cls, huber=True, **({"alpha": 0.0} if cls is CQN else {}))
    assert agent.learn(one_row([0], reward=-1e4, done=1.0)) == 1e4 + 0.5
    moment = agent.optimizer.state[agent.actor.layers["output"].bias]["exp_avg"]
    assert moment.tolist() == pytest.approx([0.1, 0.0, 0.0])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
def test_the_conservative_penalty_has_its_own_coefficient(alpha: float) -> None:
    loss = known(CQN, alpha=alpha).learn(one_row([0], reward=1.0, done=1.0))
    logsumexp = math.log(sum(math.exp(q) for q in ONLINE))
    assert loss == pytest.approx(0.0 + alpha * (logsumexp - 1.0))


def test_the_penalty_counts_once_by_default() -> None:
    assert CQN(1, 3, False).alpha == 1.0


def test_the_penalty_pushes_down_what_the_data_does_not_show() -> None:
    agent = known(CQN, lr=0.1)
    for _ in range(50):
        agent.learn(one_row([0], reward=1.0, done=1.0))
    values = agent.actor(torch.zeros(1, 1))[0].tolist()
    assert values[0] > max(values[1:])
    assert values[1] < ONLINE[1] - 1


@pytest.mark.parametrize("cls", [DQN, CQN])
def test_actions_come_back_as_an_array(cls: type[DQN]) -> None:
    actions = known(cls).getAction(np.zeros((4, 1), np.float32))
    assert type(actions) is np.ndarray
    assert actions.dtype.kind == "i"
    assert actions.tolist() == [1, 1, 1, 1]


def test_epsilon_is_drawn_per_environment_not_once_per_batch() -> None:
    actions = known().getAction(np.zeros((6000, 1), np.float32), epsilon=0.3)
    counts = np.bincount(actions, minlength=3) / 6000
    assert counts == pytest.approx([0.1, 0.8, 0.1], abs=0.02)
    assert set(known().getAction(np.zeros((200, 1), np.float32), epsilon=1.0)) == {0, 1, 2}


@pytest.mark.parametrize("config", [None, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("cls", [DQN, CQN])
def test_heads_are_linear_for_q_values(cls: type[DQN], config: Any) -> None:
    agent = cls((3, 8, 8) if config else 4, 3, False, net_config=config)
    put_out(agent.actor, -7.0, 0.0, 300.0)
    state = torch.zeros(1, *agent.state_dim)
    assert agent.actor(state).tolist() == [[-7.0, 0.0, 300.0]]


@pytest.mark.parametrize("cls", [DQN, CQN])
def test_the_target_moves_by_tau_at_each_learn_call(cls: type[DQN]) -> None:
    agent = known(cls, tau=0.25)
    agent.learn(one_row([0], done=1.0))
    online = agent.actor.layers["output"].bias.detach()
    expected = torch.tensor(TARGET) + 0.25 * (online - torch.tensor(TARGET))
    torch.testing.assert_close(agent.actor_target.layers["output"].bias.detach(), expected)


def test_an_environment_of_other_actions_is_refused() -> None:
    gym = pytest.importorskip("gymnasium")
    agent = DQN(4, 3, False)
    with pytest.raises(EnvError, match="2 actions, the agent 3; pass action_dim=2"):
        agent.test(gym.make("CartPole-v1"))
    with pytest.raises(EnvError, match="use DDPG"):
        DQN(3, 1, False).test(gym.make("Pendulum-v1"))
    assert agent.fitness == []
