"""How a population shares experience in ``train()``: views, merges, streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import TransitionStream
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.training.executors import InProcess
from agilerl.training.run import train_population
from agilerl.training.run_state import RunState
from agilerl.training.tasks import Exploration, OnlineTask
from agilerl.utils.utils import makeVectEnvs
from tests.agents import OwnAgent
from tests.envs import CountingEnv, PayEnv
from tests.runs import FIELDS, run, small_population


class Watching(OwnAgent):
    """Notes how many rows it could learn from, and acts by its index: its reward tells who."""

    def __init__(self, index: int, log: list[Any], memory: Any) -> None:
        super().__init__(index, fitnesses=[0.0], action=index, batch_size=1)
        self.log, self.memory = log, memory

    def learn(self, experiences: Any) -> None:
        rewards = self.memory.sample(len(self.memory))[2]
        self.log.append((self.index, len(rewards), set(rewards.ravel().tolist())))

    def clone(self, index: int | None = None) -> Any:
        return self


def test_an_agent_sees_the_buffer_as_it_was_when_the_episode_began_and_its_own_rows() -> None:
    log: list[Any] = []
    memory = ReplayBuffer(5, 1000, FIELDS)
    env = InProcessVectorEnv([PayEnv(length=99), PayEnv(length=99)])
    run([Watching(i, log, memory) for i in (1, 2)], env, memory=memory, n_episodes=2, max_steps=3)
    expected = [(i, 2 * steps, {i}) for i in (1, 2) for steps in (1, 2)]
    expected += [(i, 12 + 2 * steps, {1, 2}) for i in (1, 2) for steps in (0, 1, 2)]
    assert log == expected


def test_rows_lie_by_vector_step_then_slot_then_sub_environment() -> None:
    memory = ReplayBuffer(5, 1000, FIELDS)
    env = InProcessVectorEnv([PayEnv(length=99), PayEnv(length=99)])
    run([OwnAgent(i, [0.0], action=i) for i in (1, 2, 3)], env, memory=memory, n_episodes=1)
    assert memory.rows(0, 18)[2].ravel().tolist() == [1, 1, 2, 2, 3, 3] * 3


def test_a_small_ring_keeps_the_last_steps_of_all_agents() -> None:
    memory = ReplayBuffer(5, 6, FIELDS)
    pop = [OwnAgent(i, [0.0], action=i, batch_size=1) for i in (1, 2, 3)]
    run(pop, PayEnv(length=99), memory=memory, n_episodes=1, max_steps=10)
    assert memory.counter == 30
    assert memory.rows(24, 30)[2].ravel().tolist() == [1, 2, 3, 1, 2, 3]


def test_learning_starts_counts_the_rows_that_the_agent_can_see() -> None:
    log: list[Any] = []
    memory = ReplayBuffer(5, 1000, FIELDS)
    pop = [Watching(i, log, memory) for i in (1, 2)]
    run(pop, memory=memory, n_episodes=2, max_steps=4, learning_starts=6)
    assert [(index, rows) for index, rows, _ in log] == [
        (index, 8 + steps) for index in (1, 2) for steps in range(4)
    ]


def test_a_run_moves_no_stream_of_the_buffer_or_of_the_agents() -> None:
    pop, memory = small_population(2, BATCH_SIZE=4), ReplayBuffer(2, 500, FIELDS, seed=3)
    owners = [memory, *pop]
    before = [owner.rng.bit_generator.state for owner in owners]
    run(pop, makeVectEnvs("CartPole-v1", 2), memory=memory, max_steps=20)
    assert pop[0].learn_count > 10
    assert [owner.rng.bit_generator.state for owner in owners] == before


def test_what_an_agent_draws_does_not_depend_on_what_was_drawn_before() -> None:
    def weights(spoilt: bool) -> list[Any]:
        pop, memory = small_population(2, BATCH_SIZE=4), ReplayBuffer(2, 500, FIELDS)
        if spoilt:
            for owner in (memory, *pop):
                owner.rng.random(7)
        run(pop, makeVectEnvs("CartPole-v1", 2), memory=memory, max_steps=20, seed=3)
        return [p.tolist() for agent in pop for p in agent.actor.parameters()]

    assert weights(True) == weights(False)


def test_the_order_in_which_agents_train_does_not_matter() -> None:
    class Backwards(InProcess):
        def train(self, task: Any, population: Any, memory: Any, streams: Any) -> Any:
            return super().train(task, population[::-1], memory, streams[::-1])[::-1]

    finals = []
    for executor in (InProcess(), Backwards()):
        pop, memory = small_population(3, BATCH_SIZE=4), ReplayBuffer(2, 200, FIELDS)
        env = makeVectEnvs("CartPole-v1", 2)
        task = OnlineTask(
            eval_env=env,
            swap_channels=False,
            max_steps=30,
            eval_max_steps=30,
            evo_loop=1,
            stream=TransitionStream(env),
            learning_starts=1,
            epsilon=Exploration(1.0, 0.1, 0.9),
        )
        state = RunState(pop, memory, seed=5)
        for _ in range(4):
            train_population(task, state, executor)
        finals.append(
            (
                [p.tolist() for agent in pop for p in agent.actor.parameters()],
                [column.tolist() for column in memory.rows(memory.counter - 200, memory.counter)],
            )
        )
    assert finals[0] == finals[1]


def test_a_buffer_of_one_s_own_is_shared_at_once() -> None:
    class OwnBuffer(ReplayBuffer):
        pass

    log: list[Any] = []
    memory = OwnBuffer(5, 1000, FIELDS)
    run([Watching(i, log, memory) for i in (1, 2)], memory=memory, n_episodes=1, max_steps=3)
    assert log[-1] == (2, 5, {1, 2})
    assert memory.counter == 6


def test_a_run_without_a_seed_draws_one_says_it_and_it_repeats_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def final(seed: int | None) -> list[Any]:
        pop = small_population(2, BATCH_SIZE=4)
        run(pop, makeVectEnvs("CartPole-v1", 2), max_steps=20, seed=seed, verbose=True)
        return [p.tolist() for agent in pop for p in agent.actor.parameters()]

    first = final(None)
    seed = int(capsys.readouterr().err.split("seed ")[1].split()[0])
    assert final(seed) == first
    assert final(None) != first


def test_evaluation_leaves_streams_and_buffer_alone() -> None:
    class Drawing(OwnAgent):
        def test(self, *args: Any, **kwargs: Any) -> float:
            self.fitness.append(float(self.rng.random()))
            return self.fitness[-1]

        @property
        def rng_owners(self) -> list[Any]:
            return [self]

    pop = [Drawing(i, action=1) for i in range(2)]
    before = [agent.rng.bit_generator.state for agent in pop]
    _, fitnesses, _ = run(pop, CountingEnv(), seed=4)
    assert [agent.rng.bit_generator.state for agent in pop] == before
    assert len(np.unique(fitnesses)) == 4
