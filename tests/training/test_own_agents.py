"""A user's own environment and own agents: through ``train()``, and through a loop of their own."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms.dqn import DQN
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.run import Generation
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, plotPopulationScore, printHyperparams
from tests.agents import (
    ACTOR_CRITIC_LAYOUT,
    Q_LAYOUT,
    OwnActorCritic,
    OwnAgent,
    OwnQAgent,
    evolvable,
    plain_module,
)
from tests.envs import CorridorEnv, CountingEnv, ReachEnv

FIELDS = ["state", "action", "reward", "next_state", "done"]

MAKERS: dict[str, tuple[Callable[[int], Any], Any, dict[str, float]]] = {
    "evolvable networks": (
        lambda i: OwnQAgent(i, 4, 5, evolvable),
        Q_LAYOUT,
        {"architecture": 1, "parameters": 1, "activation": 1, "rl_hp": 1},
    ),
    "one optimiser for two networks": (
        lambda i: OwnActorCritic(i, 4, 5),
        ACTOR_CRITIC_LAYOUT,
        {"architecture": 1, "parameters": 1, "activation": 1, "rl_hp": 1},
    ),
    "plain modules and SGD": (
        lambda i: OwnQAgent(i, 4, 5, plain_module, torch.optim.SGD),
        Q_LAYOUT,
        {"parameters": 1, "rl_hp": 1},
    ),
}


def evolution(name: str) -> tuple[list[Any], TournamentSelection, Mutations]:
    make, layout, chances = MAKERS[name]
    kinds = ("no_mutation", "architecture", "parameters", "activation", "rl_hp")
    mutations = Mutations(
        layout,
        **{kind: float(chances.get(kind, 0)) for kind in kinds},  # type: ignore[arg-type]
        new_layer_prob=0.5,
        rl_hp_selection=["lr", "batch_size", "learn_step"],
        mutation_sd=0.1,
        rand_seed=2,
    )
    return [make(i) for i in range(3)], TournamentSelection(2, True, 3, 1, seed=2), mutations


def weights(agent: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in agent.actor.parameters()]


def differ(before: list[torch.Tensor], agent: Any) -> bool:
    after = weights(agent)
    return [p.shape for p in after] != [p.shape for p in before] or any(
        not torch.equal(a, b) for a, b in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("name", MAKERS)
def test_own_agents_train_through_train(name: str) -> None:
    pop, tournament, mutations = evolution(name)
    first = weights(pop[0])
    seen: list[Generation] = []
    with redirect_stderr(io.StringIO()) as progress:  # the line copes with what the agents lack
        final, fitnesses = train(
            CountingEnv(),
            "own",
            "own",
            pop,
            ReplayBuffer(5, 500, FIELDS, seed=2),
            n_episodes=4,
            max_steps=15,
            evo_epochs=1,
            target=None,
            tournament=tournament,
            mutation=mutations,
            callbacks=[seen.append],
        )
    assert np.shape(fitnesses) == (4, 3)
    assert "ep 4/4" in progress.getvalue()
    assert all(agent.learnt > 10 for agent in final)
    assert all(differ(first, agent) for agent in final)
    labels = {row["mutation"] for generation in seen for row in generation.rows}
    assert "elite" in labels
    assert len(labels) > 3


@pytest.mark.parametrize("name", MAKERS)
def test_own_agents_train_through_a_loop_of_one_s_own(name: str) -> None:
    pop, tournament, mutations = evolution(name)
    env = InProcessVectorEnv([CountingEnv(i) for i in range(2)])
    memory = ReplayBuffer(5, 500, FIELDS, seed=2)
    for _ in range(4):
        for agent in pop:
            state = env.reset()[0]
            for _ in range(20):
                action = agent.getAction(state, 0.2)
                next_state, reward, done, _, _ = env.step(action)
                memory.save2memoryVectEnvs(state, action, reward, next_state, done)
                if memory.counter % agent.learn_step == 0 and len(memory) >= agent.batch_size:
                    before = weights(agent)
                    agent.learn(memory.sample(agent.batch_size))
                    assert differ(before, agent), f"frozen after {getattr(agent, 'mut', None)}"
                state = next_state
        for agent in pop:
            agent.test(env, max_steps=5)
        _, pop = tournament.select(pop)
        pop = mutations.mutation(pop)
    assert pop[0].mut == "elite"
    assert all(len(agent.fitness) == 4 for agent in pop)


def test_a_population_with_no_more_than_is_needed_trains_and_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Bare(OwnAgent):
        networks = ("its", "own")  # a name that the library's agents use too

    pop = [Bare(i) for i in range(2)]
    final, _ = train(
        CountingEnv(),
        "own",
        "own",
        pop,
        ReplayBuffer(5, 500, FIELDS),
        n_episodes=2,
        max_steps=5,
        evo_epochs=1,
        target=None,
        tournament=TournamentSelection(2, True, 2, 1),
    )
    capsys.readouterr()
    printHyperparams(final)
    assert capsys.readouterr().out.count("Bare") == 2
    assert len(plotPopulationScore(final).axes[0].lines) == 2


def test_a_user_s_own_continuous_env_trains_ddpg_in_its_own_units() -> None:
    hp = {"BATCH_SIZE": 16, "LEARN_STEP": 1, "POLICY_FREQ": 1}
    pop = initialPopulation("DDPG", (2,), 1, False, {"arch": "mlp", "h_size": [16]}, hp, 2, seed=1)
    memory = ReplayBuffer(1, 500, FIELDS, seed=1)
    final, _ = train(
        ReachEnv(-2.0, 3.0), "reach", "DDPG", pop, memory, n_episodes=2, max_steps=50,
        evo_epochs=2, target=None, seed=1, verbose=False,
    )  # fmt: skip
    actions = memory.sample(len(memory))[1]
    assert actions.shape == (200, 1)
    assert -2.0 <= actions.min() < -1.0 < 2.0 < actions.max() <= 3.0
    assert [final[0].min_action, final[0].max_action] == [[-2.0], [3.0]]


@pytest.mark.parametrize("start", [0, 4])
def test_discrete_observations_work_end_to_end_wherever_they_start(start: int) -> None:
    pop = initialPopulation(
        "DQN", np.int64(5), 2, True, {"arch": "mlp", "h_size": [16]},
        {"BATCH_SIZE": 16, "LR": 5e-3, "LEARN_STEP": 1, "TAU": 0.05, "GAMMA": 0.9}, 1, seed=1,
    )  # fmt: skip
    memory = ReplayBuffer(2, 500, FIELDS, seed=1)
    final, fitnesses = train(
        CorridorEnv(start), "corridor", "DQN", pop, memory, n_episodes=12, max_steps=40,
        evo_epochs=12, eps_decay=0.9, target=None, seed=1, verbose=False,
    )  # fmt: skip
    assert fitnesses == [[1.0]]
    assert final[0].getAction(np.arange(4)).tolist() == [1, 1, 1, 1]
    assert set(memory.sample(400)[0].ravel().tolist()) <= {0.0, 1.0, 2.0, 3.0}


class ClampedRewards(DQN):
    """An agent that reads its batches as tensors, as those of ``sample`` are."""

    def unpack(self, experiences: Any) -> tuple[Any, ...]:
        states, actions, rewards, next_states, dones = experiences
        return super().unpack((states, actions, rewards.clamp(-1e6, 1e6), next_states, dones))


def trained_weights(pop: list[Any], memory: ReplayBuffer) -> list[Any]:
    """Return the weights after a short run."""
    env = InProcessVectorEnv([CountingEnv(i) for i in range(2)])
    final, _ = train(
        env, "own", "DQN", pop, memory, n_episodes=2, max_steps=30, evo_epochs=1, target=None,
        seed=1, verbose=False,
    )  # fmt: skip
    return [p.detach().clone() for agent in final for p in agent.actor.parameters()]


def test_own_agents_and_own_buffers_are_given_tensors_and_the_numbers_are_the_same() -> None:
    sampled: list[int] = []

    class OwnBuffer(ReplayBuffer):
        def sample(self, batch_size: int) -> Any:
            sampled.append(batch_size)
            return super().sample(batch_size)

    def pop(cls: Any) -> list[Any]:
        config = {"arch": "mlp", "h_size": [8]}
        return [cls(4, 5, False, net_config=config, batch_size=8, learn_step=1, seed=1)]

    trained_weights(pop(DQN), OwnBuffer(5, 500, FIELDS, seed=1))
    assert len(sampled) > 10
    patched = ReplayBuffer(5, 500, FIELDS, seed=1)
    sample, count = patched.sample, len(sampled)
    patched.sample = lambda size: sampled.append(size) or sample(size)  # type: ignore[method-assign]
    weights = trained_weights(pop(DQN), patched)
    assert len(sampled) == 2 * count
    for cls in (DQN, ClampedRewards):  # arrays, and tensors
        found = trained_weights(pop(cls), ReplayBuffer(5, 500, FIELDS, seed=1))
        assert all(torch.equal(a, b) for a, b in zip(found, weights, strict=True))
