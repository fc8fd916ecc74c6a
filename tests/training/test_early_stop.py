"""Early stop: the target over 100 fresh episodes; and what is left when a run is cut short."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agilerl.components.transitions import TransitionStream
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import EnvError
from agilerl.hpo.tournament import TournamentSelection
from agilerl.seeding import Streams
from agilerl.training.run import Generation
from agilerl.training.tasks import Exploration, OfflineTask, OnlineTask
from tests.agents import OwnAgent
from tests.envs import CountingEnv, PayEnv
from tests.runs import NAN, Recorder, run


def test_a_fitness_at_the_target_is_not_enough_if_100_episodes_fall_short() -> None:
    pop = [OwnAgent(0, fitnesses=[50.0], action=5), OwnAgent(1, fitnesses=[2.0], action=99)]
    _, fitnesses, seen = run(pop, target=10.0)
    assert len(fitnesses) == 2, "it goes on"
    assert [generation.check for generation in seen] == [5.0, 5.0]
    assert not any(generation.solved for generation in seen)


def test_it_stops_when_the_best_agent_reaches_the_target_over_100_episodes() -> None:
    env = PayEnv()
    pop = [OwnAgent(0, fitnesses=[2.0], action=5), OwnAgent(1, fitnesses=[50.0], action=12)]
    recorder = Recorder()
    final, fitnesses, seen = run(pop, env, target=12.0, tournament=recorder)
    assert len(fitnesses) == 1
    assert seen[0].solved
    assert seen[0].check == 12.0
    assert final[0] is pop[1], "no selection comes after it"
    assert recorder.log == []
    assert seen[0].eval_steps == 100, "exactly 100 episodes of one step"
    assert [len(agent.fitness) for agent in pop] == [1, 1], "the check is no fitness"


@pytest.mark.parametrize(("num_envs", "rounds"), [(3, 34), (16, 7), (100, 1), (130, 1)])
def test_the_check_tops_up_to_100_episodes_in_many_sub_environments(
    num_envs: int, rounds: int
) -> None:
    env = InProcessVectorEnv([PayEnv() for _ in range(num_envs)])
    _, _, seen = run([OwnAgent(0, fitnesses=[50.0], action=12)], env, target=12.0, n_episodes=1)
    assert seen[0].eval_steps == rounds * num_envs
    assert seen[0].check == 12.0


def test_the_check_is_the_mean_of_the_first_100_episodes_and_not_the_best_of_them() -> None:
    class Unsteady(OwnAgent):
        def getAction(self, state: Any, epsilon: float = 0) -> Any:
            return np.arange(len(state))  # sub-environment i gives the return i

    env = InProcessVectorEnv([PayEnv() for _ in range(30)])
    _, _, seen = run([Unsteady(0, fitnesses=[50.0])], env, target=14.0, n_episodes=2)
    returns = [float(i) for _ in range(4) for i in range(30)][:100]
    assert seen[0].check == sum(returns) / 100 == 13.5
    assert not seen[0].solved


@pytest.mark.parametrize(
    ("payments", "episodes"),
    [
        ([12] * 100, 100),  # all the same, and enough
        ([9] * 100, 10),  # all the same, and not
        ([0, 11] * 50, 10),  # 5.5 (standard error 1.8) can't become 10
        ([8, 12] * 50, 100),  # just the target
        ([12] * 20 + [0, 8] * 40, 40),  # it looked well until then
    ],
)
def test_a_check_without_hope_ends_early(payments: list[int], episodes: int) -> None:
    class Paying(OwnAgent):
        def getAction(self, state: Any, epsilon: float = 0) -> Any:
            return np.array([next(payment)])

    env = InProcessVectorEnv([PayEnv()])
    agent = Paying(0, fitnesses=[50.0])
    task = OnlineTask(
        eval_env=env,
        swap_channels=False,
        max_steps=5,
        eval_max_steps=5,
        evo_loop=1,
        stream=TransitionStream(env),
        learning_starts=1,
        epsilon=Exploration(0.0, 0.0, 1.0),
    )
    payment = iter(payments)  # episodes are of one step
    found = task.check(agent, Streams(1, 0, 0), 10.0)
    assert found.steps == episodes
    assert found.fitness == np.mean(payments[:episodes])


def test_confidence_makes_a_check_harder_to_hope_for() -> None:
    returns = np.array([8.0, 11.0] * 10)

    def hopeful(confidence: float | None) -> bool:
        env = InProcessVectorEnv([PayEnv()])
        task = OfflineTask(env, False, 5, 5, 1, confidence=confidence)
        return task._hopeful(returns, 10.0)

    # 9.5, standard deviation 1.54: the other 80 leave +- 0.63; at 99 % 10.36 is needed
    assert hopeful(None)
    assert not hopeful(0.99)


def test_a_fitness_below_the_target_costs_no_check() -> None:
    _, _, seen = run([OwnAgent(0, fitnesses=[9.9], action=50)], target=10.0)
    assert [generation.check for generation in seen] == [None, None]
    assert seen[-1].eval_steps == 0


def test_nan_touches_no_target() -> None:
    _, fitnesses, seen = run([OwnAgent(0, fitnesses=[NAN], action=50)], target=10.0)
    assert len(fitnesses) == 2
    assert seen[0].check is None


def test_the_check_uses_fresh_seeds() -> None:
    env = CountingEnv()
    pop = [OwnAgent(0, fitnesses=[50.0], action=1)]
    run(pop, env, target=10.0, seed=4, n_episodes=4, max_steps=1)
    seeds = [seed for seed in env.seeds if seed is not None]
    assert len(set(seeds)) == len(seeds) >= 8  # 4 episodes, 2 evaluations, 2 checks


@pytest.mark.parametrize("where", ["callback", "env", "learn", "test"])
def test_ctrl_c_returns_what_was_reached(where: str) -> None:
    class Interrupted(OwnAgent):
        def learn(self, experiences: Any) -> None:
            super().learn(experiences)
            if where == "learn" and self.steps[-1] >= 6:
                raise KeyboardInterrupt

        def test(self, *args: Any, **kwargs: Any) -> float:
            if where == "test" and self.fitness:
                raise KeyboardInterrupt
            return super().test(*args, **kwargs)

    class Interrupting(PayEnv):
        def step(self, action: Any) -> Any:
            if where == "env" and self.episodes > 15:
                raise KeyboardInterrupt
            return super().step(action)

    def callback(generation: Generation) -> None:
        if where == "callback":
            raise KeyboardInterrupt

    pop = [Interrupted(i, fitnesses=[float(i)], batch_size=1) for i in range(2)]
    final, fitnesses, seen = run(
        pop,
        Interrupting(),
        n_episodes=40,
        callbacks=[callback],
        tournament=TournamentSelection(1, True, 2, 1, seed=0),
    )
    assert fitnesses == [[0.0, 1.0]]
    assert final == [pop[1], pop[0]], "the population as last evaluated"
    assert len(seen) == 1


def test_ctrl_c_before_the_first_evaluation_returns_the_population() -> None:
    class Interrupting(PayEnv):
        def step(self, action: Any) -> Any:
            raise KeyboardInterrupt

    pop = [OwnAgent(0), OwnAgent(1)]
    assert run(pop, Interrupting()) == (pop, [], [])


def test_an_error_in_the_middle_carries_the_population_as_last_evaluated() -> None:
    class Failing(PayEnv):
        def step(self, action: Any) -> Any:
            if self.episodes > 15:
                raise OSError("the simulator is gone")
            return super().step(action)

    pop = [OwnAgent(i, fitnesses=[float(i)]) for i in range(2)]
    told = "agent 0, episode .*sub-environment 0, action 0.*OSError: the simulator is gone"
    with pytest.raises(EnvError, match=told) as caught:
        run(pop, Failing(), n_episodes=40)
    assert caught.value.population == [pop[1], pop[0]]  # type: ignore[attr-defined]
    assert isinstance(caught.value.__cause__, OSError)
    assert any(".population" in note for note in caught.value.__notes__)
