"""A short run of ``train()``, for the tests."""

from __future__ import annotations

from typing import Any

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.training.run import Generation
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation
from tests.envs import PayEnv

FIELDS = ["state", "action", "reward", "next_state", "done"]
NAN, INF = float("nan"), float("inf")


def run(pop: list[Any], env: Any = None, **changes: Any) -> Any:
    """Return population, fitnesses and generations of a short run."""
    seen: list[Generation] = []
    arguments: dict[str, Any] = {
        "env": PayEnv() if env is None else env,
        "env_name": "own",
        "algo": "own",
        "pop": pop,
        "memory": ReplayBuffer(5, 1000, FIELDS),
        "n_episodes": 4,
        "max_steps": 3,
        "evo_epochs": 2,
        "target": None,
        "verbose": False,
    }
    callbacks = (seen.append, *changes.pop("callbacks", ()))
    result = train(**{**arguments, **changes}, callbacks=callbacks)
    return *result, seen


def small_population(count: int = 3, **settings: Any) -> list[Any]:
    config = {"arch": "mlp", "h_size": [8]}
    return initialPopulation("DQN", (4,), 2, False, config, settings, count, seed=1)


class Recorder:
    """A tournament and mutation that keep everybody, and note who came."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def select(self, pop: Any) -> Any:
        self.log.append(("select", [agent.index for agent in pop]))
        return pop[0], [agent.clone(agent.index + 10) for agent in pop]

    def mutation(self, pop: Any) -> Any:
        self.log.append(("mutate", [agent.index for agent in pop]))
        return pop
