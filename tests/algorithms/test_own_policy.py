"""A torch module of the user's own as the policy: it learns, travels, comes back, evolves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agilerl import checkpoint
from agilerl.algorithms import AGENTS, DDPG, DQN
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import CheckpointError, ConfigError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.selection import TruncationSelection
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.algorithms.cases import assert_same, digest
from tests.envs import PayEnv
from tests.runs import FIELDS

pytestmark = pytest.mark.global_rng  # modules of one's own draw their weights there


class Own(nn.Module):
    """Two layers with a skip connection, which no ``net_config`` describes."""

    def __init__(self, inputs: int = 1, outputs: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 8), nn.Linear(8, outputs)
        self.skip = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.second(torch.relu(self.first(x))) + self.skip(x))


HP = {"LR": 1e-2, "BATCH_SIZE": 16, "LEARN_STEP": 1}


def population(algo: str = "DQN", policy: Any = Own, count: int = 3) -> list[Any]:
    return initialPopulation(
        algo, (1,), 3, False, {"arch": "mlp"}, HP, count, policy=policy, seed=1
    )


def run(**more: Any) -> tuple[list[Any], list[list[float]]]:
    """Train three agents with all kinds of mutation."""
    mutations = Mutations(
        "DQN", 0, 1, 0.5, 1, 1, 1, ["lr", "batch_size"], 0.1, rand_seed=1
    )  # fmt: skip
    settings = {
        "env": makeVectEnvs(lambda: PayEnv(length=10, actions=3), num_envs=2),
        "env_name": "pay",
        "algo": "DQN",
        "pop": population(),
        "memory": ReplayBuffer(3, 1_000, FIELDS, seed=1),
        "n_episodes": 6,
        "max_steps": 30,
        "evo_epochs": 1,
        "target": None,
        "tournament": TruncationSelection(3, seed=1),
        "mutation": mutations,
        "seed": 1,
        "verbose": False,
    }
    return train(**{**settings, **more})


@pytest.mark.parametrize("algo", sorted(AGENTS))
def test_every_algorithm_trains_a_copy_of_it(algo: str) -> None:
    given = Own()
    before = {name: p.clone() for name, p in given.named_parameters()}
    (agent,) = population(algo, given, 1)
    assert type(agent.actor) is Own
    assert agent.actor is not given
    for name, p in agent.actor.named_parameters():
        assert torch.equal(p, before[name]), name
    discrete = agent.discrete
    rng = np.random.default_rng(0)
    states, next_states = torch.rand(16, 1), torch.rand(16, 1)
    actions = rng.integers(3, size=(16, 1)) if discrete else rng.uniform(-1, 1, (16, 3))
    batch = [states, torch.as_tensor(actions), torch.rand(16, 1), next_states, torch.zeros(16, 1)]
    for _ in range(4):
        assert np.isfinite(agent.learn(batch))
    for name, p in agent.actor.named_parameters():
        assert not torch.equal(p, before[name]), name
    for name, p in given.named_parameters():
        assert torch.equal(p, before[name]), name
    assert "Own, " in agent.architecture


def test_a_class_gives_each_agent_weights_of_its_own_from_the_seed() -> None:
    state = torch.get_rng_state()
    first, second = population(), population()
    assert torch.equal(torch.get_rng_state(), state)
    weights = [agent.actor.first.weight for agent in first]
    assert not torch.equal(weights[0], weights[1])
    for own, other in zip(first, second, strict=True):
        assert_same(own.state_dict(), other.state_dict())


def test_the_kernel_s_own_numbers_come_out() -> None:
    """A module that is what net_config describes learns as the network of net_config does."""
    plain = DQN((1,), 3, False, net_config={"arch": "mlp", "h_size": [8]}, lr=1e-2, seed=0)
    layers = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for own, other in zip(layers.parameters(), plain.actor.parameters(), strict=True):
            own.copy_(other)
    agent = DQN((1,), 3, False, policy=layers, lr=1e-2, seed=0)
    batch = [torch.rand(16, 1), torch.zeros(16, 1), torch.rand(16, 1)]
    batch += [torch.rand(16, 1), torch.zeros(16, 1)]
    for _ in range(5):
        assert agent.learn(batch) == pytest.approx(plain.learn(batch), rel=1e-4)


def test_it_evolves_and_repeats_on_workers() -> None:
    pop, fitnesses = run()
    other, same = run(workers=2)
    assert fitnesses == same
    assert len(fitnesses) == 6
    assert [digest(a) for a in pop] == [digest(a) for a in other]
    assert all(type(agent.actor) is Own for agent in pop)


def test_a_run_with_it_goes_on(tmp_path: Path) -> None:
    pop, whole = run()
    run(n_episodes=3, checkpoint=1, checkpoint_path=tmp_path / "run")
    again, fitnesses = run(checkpoint=1, checkpoint_path=tmp_path / "run", resume=True)
    assert fitnesses == whole
    assert [digest(a) for a in again] == [digest(a) for a in pop]


def test_a_checkpoint_holds_its_weights_and_asks_for_the_rest(tmp_path: Path) -> None:
    (agent,) = population(count=1)
    agent.saveCheckpoint(tmp_path / "agent.pt")
    with pytest.raises(CheckpointError, match=r"agent\.pt: .*module of your own, Own.*policy=Own"):
        DQN.load(tmp_path / "agent.pt")
    again = DQN.load(tmp_path / "agent.pt", policy=Own())
    assert_same(again.state_dict(), agent.state_dict())
    other = population(count=1)[0]
    other.lr, other.averaged_policy = 0.5, True  # not built alike
    other.loadCheckpoint(tmp_path / "agent.pt")
    assert_same(other.state_dict(), agent.state_dict())
    with pytest.raises(CheckpointError, match="expected"):
        DQN.load(tmp_path / "agent.pt", policy=nn.Linear(1, 3))
    assert checkpoint.load(tmp_path / "agent.pt")["settings"]["policy"] == "Own"


def test_images_reach_it_as_floats() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 3), nn.Tanh())
    agent = DDPG((3, 4, 4), 3, False, net_config={"arch": "cnn", "c_size": [2], "k_size": [2],
                 "s_size": [1], "h_size": [4]}, policy=network, seed=0)  # fmt: skip
    image = np.full((2, 3, 4, 4), 255, np.uint8)
    expected = network(torch.full((2, 3, 4, 4), 255.0)).detach().numpy()
    np.testing.assert_allclose(agent.getAction(image), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Own, r"policy: expected a torch\.nn\.Module, got type; call the class"),
        (nn.Linear(2, 3), r"policy: expected Linear to map float observations \[N, 1\] to"
         r" \[N, 3\]; it raised RuntimeError"),
        (nn.Linear(1, 2), r"to \[N, 3\]; for N = 2 it returned \[2, 2\]"),
        (nn.LSTM(1, 3), r"for N = 2 it returned tuple"),
        (nn.Flatten(), r"Flatten has no parameter that can be trained"),
        (nn.Sequential(nn.Linear(1, 3), nn.Dropout(0.5)), r"policy: Dropout draws"),
        (nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3)), r"policy: BatchNorm1d draws"),
    ],
)  # fmt: skip
def test_what_can_not_be_a_policy_is_refused(policy: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DQN((1,), 3, False, policy=policy)
