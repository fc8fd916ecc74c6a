"""The generation loop: its order, what counts as a step, what it gives back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from agilerl.algorithms.dqn import DQN
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import AgileRLError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.history import lineage
from agilerl.training.run import Generation, fittest_first
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.agents import OwnAgent
from tests.envs import CountingEnv, PayEnv
from tests.runs import INF, NAN, Recorder, run


def test_generations_are_evaluated_shown_selected_and_mutated_in_this_order() -> None:
    recorder = Recorder()
    pop = [OwnAgent(i, fitnesses=[1.0, 2.0, 3.0]) for i in range(2)]

    def observe(generation: Generation) -> None:
        recorder.log.append(("seen", [agent.index for agent in generation.population]))

    final, fitnesses, seen = run(
        pop,
        n_episodes=5,
        evo_epochs=2,
        tournament=recorder,
        mutation=recorder,
        callbacks=[observe],
    )
    names = [0, 1]
    expected: list[Any] = []
    for step in range(3):
        now = [index + 10 * step for index in names]
        expected += [("seen", now)]
        if step < 2:  # the run ends with an evaluation and no selection after it
            expected += [("select", now), ("mutate", [index + 10 for index in now])]
    assert recorder.log == expected
    assert [generation.episode for generation in seen] == [2, 4, 5]
    assert [generation.number for generation in seen] == [0, 1, 2]
    assert fitnesses == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert [agent.index for agent in final] == [20, 21]


@pytest.mark.parametrize("count", [1, 3])
def test_global_steps_are_every_transition_of_any_agent_in_any_sub_environment(count: int) -> None:
    env = InProcessVectorEnv([PayEnv(length=2) for _ in range(count)])
    _, _, seen = run(
        [DQN(1, 100, False, index=i, seed=i) for i in range(2)], env, max_steps=5, evo_loop=3
    )
    assert [generation.train_steps for generation in seen] == [20 * count, 40 * count]
    assert [generation.eval_steps for generation in seen] == [12 * count, 24 * count]
    assert seen[-1].global_steps == 64 * count


def test_agents_count_their_own_and_their_ancestors_steps() -> None:
    pop, _, _ = run(
        [OwnAgent(i, fitnesses=[float(i)]) for i in range(2)],
        InProcessVectorEnv([PayEnv() for _ in range(3)]),
        tournament=TournamentSelection(2, True, 2, 1, seed=0),
    )
    assert all(agent.steps == [18, 36] for agent in pop)


@pytest.mark.parametrize("num_envs", [1, 4])
def test_learn_step_counts_vector_steps_of_the_agent_whatever_num_envs_is(num_envs: int) -> None:
    pop = [OwnAgent(0, fitnesses=[0.0], learn_step=4, batch_size=1)]
    pop.append(OwnAgent(1, fitnesses=[0.0], learn_step=1, batch_size=1))
    env = InProcessVectorEnv([PayEnv() for _ in range(num_envs)])
    final, _, _ = run(pop, env, max_steps=10, n_episodes=4)
    learnt = {agent.index: agent.learnt for agent in final}
    assert learnt[0] == 40 // 4
    assert learnt[1] in (40, 39)  # nothing is learnt before the first transition is there


def test_learning_waits_for_a_batch_and_for_learning_starts() -> None:
    for starts, batch, expected in ((None, 7, 13), (12, 7, 8), (3, 7, 13)):
        pop = [OwnAgent(0, fitnesses=[0.0], batch_size=batch)]
        final, _, _ = run(pop, max_steps=20, n_episodes=1, learning_starts=starts)
        assert final[0].learnt == expected


def test_an_episode_is_max_steps_vector_steps_from_a_reset() -> None:
    env = CountingEnv()
    run([OwnAgent(0, fitnesses=[0.0])], env, max_steps=7, n_episodes=3, evo_epochs=3)
    assert env.steps_taken == 21


def test_the_environment_is_reseeded_per_episode_and_agent() -> None:
    def seeds(seed: int | None) -> list[int | None]:
        env = CountingEnv()
        pop = [OwnAgent(i, fitnesses=[0.0]) for i in range(2)]
        run(pop, env, max_steps=1, n_episodes=3, evo_epochs=9, seed=seed)
        return env.seeds

    given = [seed for seed in seeds(5) if seed is not None]
    assert len(given) >= 6
    training = given[:6]
    assert len(set(training)) == 6
    assert seeds(5) == seeds(5)
    assert seeds(5) != seeds(6)
    without = [seed for seed in seeds(None) if seed is not None]
    assert len(without) >= 6, "a run without a seed draws one"
    assert without != [seed for seed in seeds(None) if seed is not None]


def test_all_agents_of_a_generation_are_tested_on_the_same_episodes() -> None:
    pop = [
        DQN(4, 2, False, index=i, seed=1, net_config={"arch": "mlp", "h_size": [8]})
        for i in range(3)
    ]
    env = makeVectEnvs("CartPole-v1", num_envs=2, seed=0)
    _, fitnesses, _ = run(pop, env, seed=3, n_episodes=2, max_steps=20)
    assert len(set(fitnesses[0])) == 1  # equal agents that have not learnt yet
    assert (
        fitnesses[0]
        == run(
            [pop[0].clone()], makeVectEnvs("CartPole-v1", 2), seed=3, n_episodes=2, max_steps=20
        )[1][0]
        * 3
    )


def test_the_population_comes_back_as_last_evaluated_fittest_first() -> None:
    pop = [OwnAgent(i, fitnesses=[f]) for i, f in enumerate((3.0, NAN, 7.0, -INF, 5.0))]
    final, fitnesses, seen = run(pop, tournament=Recorder(), mutation=None)
    assert [agent.index % 10 for agent in final] == [2, 4, 0, 3, 1]
    assert {id(agent) for agent in final} == {id(agent) for agent in seen[-1].population}
    assert len(fitnesses) == 2
    np.testing.assert_equal(fitnesses[-1], [3.0, NAN, 7.0, -INF, 5.0])


def test_the_order_is_that_of_the_latest_fitness() -> None:
    pop = [OwnAgent(0, fitnesses=[9.0, 1.0]), OwnAgent(1, fitnesses=[0.0, 2.0])]
    assert [agent.index for agent in run(pop)[0]] == [1, 0]


def test_nan_and_infinity_come_last() -> None:
    assert fittest_first([NAN, 1.0, INF, 3.0, -INF]) == [3, 1, 4, 0, 2]


def test_a_population_that_has_diverged_altogether_is_an_error_that_loses_nothing() -> None:
    pop = [OwnAgent(i, fitnesses=[NAN]) for i in range(2)]
    with pytest.raises(AgileRLError, match="no agent has a finite fitness") as caught:
        run(pop, tournament=TournamentSelection(2, True, 2, 1))
    assert len(caught.value.population) == 2  # type: ignore[attr-defined]


def test_an_agent_whose_weights_diverged_is_replaced_and_the_run_goes_on() -> None:
    pop = [DQN(4, 2, False, index=i, seed=i, batch_size=8) for i in range(3)]
    with_nan = next(pop[1].actor.parameters())
    with_nan.data[:] = NAN
    final, fitnesses, seen = run(
        pop,
        makeVectEnvs("CartPole-v1", seed=1),
        tournament=TournamentSelection(2, True, 3, 1, seed=1),
        max_steps=10,
    )
    assert fitnesses[0][1] == -INF
    assert np.isfinite(fitnesses[1]).all()
    assert {row["parent"] for row in seen[1].rows} <= {0, 2}
    assert all(net.is_finite() for agent in final for net in agent.networks.values())


def test_the_list_of_the_caller_stays_as_it_was() -> None:
    pop = [OwnAgent(i, fitnesses=[1.0]) for i in range(3)]
    kept = list(pop)
    run(pop, tournament=TournamentSelection(2, True, 3, 1, seed=1))
    assert pop == kept


def test_the_history_holds_the_lineage_of_every_agent() -> None:
    pop = initialPopulation("DQN", (4,), 2, False, {"arch": "mlp", "h_size": [8]}, {}, 3, seed=1)
    final, _, seen = run(
        pop,
        makeVectEnvs("CartPole-v1", seed=1),
        n_episodes=6,
        max_steps=10,
        tournament=TournamentSelection(2, True, 3, 1, seed=1),
        mutation=Mutations("DQN", 0, 1, 0.5, 1, 0, 1, ["lr", "batch_size"], 0.1, rand_seed=1),
    )
    history = [row for generation in seen for row in generation.rows]
    for agent in final:
        last = next(row for row in seen[-1].rows if row["index"] == agent.index)
        line = lineage(history, last)
        assert [row["generation"] for row in line] == [0, 1, 2]
        for child, parent in pairwise(reversed(line)):
            assert child["parent"] == parent["index"]
        assert line[-1] is last
        assert {name: last[name] for name in agent.hyperparameters} == agent.hyperparameters
        assert last["architecture"] == agent.architecture
        assert last["mutation"] == agent.mut
        assert last["fitness"] == agent.fitness[-1]
        assert last["steps"] == agent.steps[-1]
        assert line[0]["parent"] is None
    assert "elite" in {row["mutation"] for row in seen[1].rows}


def test_an_agent_that_was_not_selected_from_is_its_own_ancestor() -> None:
    def row(generation: int, index: int, parent: int | None) -> dict[str, int | None]:
        return {"generation": generation, "index": index, "parent": parent}

    rows = [row(0, 0, None), row(0, 1, None), row(1, 0, 0), row(1, 2, 1), row(2, 0, 0)]
    rows += [row(2, 2, 1), row(3, 2, 2), row(3, 3, 0)]
    assert lineage(rows, rows[-2]) == [rows[1], rows[3], rows[5], rows[6]]
    assert lineage(rows, rows[-1]) == [rows[0], rows[2], rows[4], rows[7]]


def test_a_callback_that_returns_true_ends_the_run_after_all_have_seen_it() -> None:
    ends = [lambda generation: "yes", lambda generation: generation.number == 1]
    _, fitnesses, seen = run(
        [OwnAgent(0, fitnesses=[1.0])], n_episodes=40, callbacks=[*ends, lambda generation: None]
    )
    assert len(fitnesses) == len(seen) == 2


def test_the_best_agent_that_ever_was_is_kept_as_it_was() -> None:
    pop = [OwnAgent(i, fitnesses=f) for i, f in enumerate(([1.0, 9.0, 2.0], [NAN, 3.0, 3.0]))]
    _, _, seen = run(pop, n_episodes=6)
    kept = [(generation.best_ever.index, generation.best_ever.fitness) for generation in seen]
    assert kept == [(0, [1.0]), (0, [1.0, 9.0]), (0, [1.0, 9.0])]
    assert seen[-1].best_ever is not pop[0]
