"""Agents whose losses, gradients, weights or outputs are not finite."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import AgileRLError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.selection import TruncationSelection
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.run import Generation
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.algorithms.language_cases import AGENTS, differing, random_games, trained
from tests.algorithms.language_cases import tensors as language_tensors
from tests.envs import ReachEnv
from tests.runs import FIELDS, run

INF = float("inf")


def population(algo: str = "DQN", count: int = 1, **net: Any) -> list[Any]:
    config = {"arch": "mlp", "h_size": [8], **net}
    discrete = algo in ("DQN", "CQN")
    settings = {"BATCH_SIZE": 8, "LEARN_STEP": 1, "POLICY_FREQ": 1, "LR": 1e-3}
    state, action = (4,) if discrete else (2,), 2 if discrete else 1
    return initialPopulation(algo, state, action, False, config, settings, count, seed=1)


def batch(agent: Any, reward: float = 1.0) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    states, next_states = torch.from_numpy(rng.normal(size=(2, 8, *agent.state_dim))).float()
    actions = torch.zeros(8, 1) if not agent.discrete else torch.zeros(8, 1, dtype=torch.long)
    return [states, actions, torch.full((8, 1), reward), next_states, torch.zeros(8, 1)]


def weights(agent: Any) -> list[Any]:
    networks = agent.networks.values()
    return [p.detach().clone() for net in networks for p in net.module.parameters()]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "autograd"])
@pytest.mark.parametrize("algo", ["DQN", "CQN", "DDPG", "TD3"])
@pytest.mark.parametrize("reward", [float("nan"), INF, 1e30], ids=["NaN", "infinite", "overflow"])
def test_a_bad_batch_changes_nothing_and_marks_the_agent(
    algo: str, reward: float, kernel: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (agent,) = population(algo, **({} if kernel else {"layer_norm": True}))
    assert agent.policy_network.on_kernel is kernel
    agent.learn(batch(agent))
    assert not agent.diverged
    critic = list(agent.networks)[-1] if algo in ("DDPG", "TD3") else "actor"
    before = [p.detach().clone() for p in agent.networks[critic].module.parameters()]
    moments = agent.networks[critic].state_dict()["optimizer"]
    with caplog.at_level(logging.WARNING, "agilerl"):
        agent.learn(batch(agent, reward))
        agent.learn(batch(agent, reward))
    assert agent.diverged
    assert same(before, list(agent.networks[critic].module.parameters()))
    after = agent.networks[critic].state_dict()["optimizer"]
    assert all(torch.equal(a, b) for a, b in zip(tensors(moments), tensors(after), strict=True))
    assert all(torch.isfinite(p).all() for p in weights(agent))
    (record,) = caplog.records  # it is said once
    assert "agent 0 has diverged (a loss or gradient is not finite)" in record.getMessage()


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [x for item in value.values() for x in tensors(item)]
    return [x for item in value for x in tensors(item)] if isinstance(value, list) else []


def test_a_marked_agent_has_fitness_minus_infinity_and_a_child_of_another_is_healthy() -> None:
    first, second = population(count=2)
    first.learn(batch(first, INF))
    env = makeVectEnvs("CartPole-v1", num_envs=2)
    assert first.test(env) == -INF
    assert second.test(env) > 0
    for chosen in (TournamentSelection(2, True, 2, 1, seed=1), TruncationSelection(2, seed=1)):
        elite, new = chosen.select([first, second])
        assert elite is second
        assert [agent.parent for agent in new] == [1, 1]
        assert not any(agent.diverged for agent in new)


def test_the_mark_is_part_of_the_state() -> None:
    one, other = population(count=2)
    one.learn(batch(one, INF))
    other.load_state_dict(one.state_dict())
    assert other.diverged


@pytest.mark.parametrize("algo", ["DDPG", "TD3"])
def test_actions_that_are_not_finite_never_reach_the_environment(algo: str) -> None:
    (agent,) = population(algo)
    env = makeVectEnvs(ReachEnv, num_envs=2)
    agent.adapt_to_env(env)
    with torch.no_grad():
        next(agent.actor.parameters()).fill_(float("nan"))
    actions = agent.getAction(np.zeros((2, 2), np.float32), 0.5)
    np.testing.assert_allclose(actions, 0.5)  # the middle of [-2, 3]
    assert agent.diverged


def test_q_values_that_are_not_finite_mark_the_agent() -> None:
    (agent,) = population()
    with torch.no_grad():
        next(agent.actor.parameters()).fill_(float("nan"))
    assert agent.getAction(np.zeros(4, np.float32), 0.5) in (0, 1)
    assert agent.diverged


def poison(agents: list[Any]) -> None:
    """Give agents weights that no update can mend."""
    for agent in agents:
        with torch.no_grad():
            next(agent.actor.parameters()).fill_(float("nan"))


def train(pop: list[Any], poisoned: dict[int, list[int]], **changes: Any) -> Any:
    """Train on CartPole; in each generation given, the agents in these slots are poisoned."""
    rows: list[Any] = []

    def spoil(generation: Generation) -> None:
        rows.append(generation.rows)
        poison([generation.population[i] for i in poisoned.get(generation.number, [])])

    settings: dict[str, Any] = {
        "env": makeVectEnvs("CartPole-v1", num_envs=2),
        "memory": ReplayBuffer(2, 1000, FIELDS, seed=1),
        "n_episodes": 4,
        "max_steps": 20,
        "evo_epochs": 1,
        "seed": 5,
        "callbacks": [spoil],
    }
    return *run(pop, **{**settings, **changes})[:2], rows


def mutations() -> Mutations:
    return Mutations("DQN", 1, 0, 0, 0, 0, 0, ["lr"], 0.1, rand_seed=1)


def test_a_ddpg_agent_that_is_nan_spoils_neither_the_buffer_nor_the_others() -> None:
    memory = ReplayBuffer(1, 1000, FIELDS, seed=1)
    _, fitnesses, rows = train(
        population("DDPG", 2), {0: [0]}, env=makeVectEnvs(ReachEnv, 2), memory=memory
    )
    assert [row["diverged"] for row in rows[1]] == [True, False]
    assert fitnesses[1][0] == -INF
    assert np.isfinite([f[1] for f in fitnesses]).all()
    stored = memory.sample(len(memory))
    assert all(torch.isfinite(field.float()).all() for field in stored)


def test_a_diverged_agent_is_replaced_at_the_next_selection() -> None:
    def spoil_the_best(generation: Generation) -> None:
        if generation.number == 0:  # it survives the selection, as it was
            poison([generation.best])

    pop, fitnesses, _ = train(
        population(count=3),
        {},
        tournament=TruncationSelection(3, seed=1),
        mutation=mutations(),
        callbacks=[spoil_the_best],
    )
    assert np.isfinite(fitnesses[0]).all()
    assert sum(np.isinf(fitness) for fitness in fitnesses[1]) == 1
    assert np.isfinite(fitnesses[2]).all()
    assert not any(agent.diverged for agent in pop)


def test_where_all_have_diverged_the_last_good_generation_goes_on_with_half_the_rates(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "agilerl"):
        pop, fitnesses, rows = train(population(count=2), {1: [0, 1]})
    assert [np.isfinite(f).all() for f in fitnesses] == [True, True, False, True]
    assert [r[0]["attempt"] for r in rows] == [0, 0, 0, 1]
    assert [r[0]["lr"] for r in rows] == [1e-3, 1e-3, 1e-3, 5e-4]
    assert any("go on as they were" in record.getMessage() for record in caplog.records)
    assert not any(agent.diverged for agent in pop)


def test_a_second_time_is_the_end() -> None:
    with pytest.raises(
        AgileRLError, match=r"all have diverged again, in generation 4.*Lower LR"
    ) as e:
        train(population(count=2), {1: [0, 1], 3: [0, 1]}, n_episodes=9)
    assert len(e.value.population) == 2  # type: ignore[attr-defined]


def test_so_is_a_first_time_without_a_good_generation() -> None:
    pop = population(count=2)
    poison(pop)
    with pytest.raises(AgileRLError, match="all have diverged before any evaluation"):
        train(pop, {})


def test_a_run_goes_on_after_it_was_killed_in_the_bad_generation(tmp_path: Path) -> None:
    def ended(path: Path, parts: list[int]) -> Any:
        for number, episodes in enumerate(parts):
            result = train(
                population(count=2),
                {1: [0, 1]},
                n_episodes=episodes,
                checkpoint=1,
                checkpoint_path=path,
                resume=number > 0,
            )
        return [w.tolist() for agent in result[0] for w in weights(agent)], result[1]

    assert ended(tmp_path / "a", [5]) == ended(tmp_path / "b", [3, 5])


@pytest.mark.parametrize("cls", AGENTS)
def test_a_language_agent_skips_the_update_too(
    cls: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = trained(cls)
    before, losses = language_tensors(agent), agent.losses
    monkeypatch.setattr(
        agent, "losses", lambda steps: {k: v * np.nan for k, v in losses(steps).items()}
    )
    monkeypatch.setattr(agent, "after_step", lambda: None)  # the target goes on to follow
    agent.learn(random_games())
    assert agent.diverged
    assert differing(before, language_tensors(agent)) == []
