"""The front door: environments, populations, and a look at them."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import torch
from gymnasium.vector import VectorEnv
from torch import nn

from agilerl.algorithms import AGENTS
from agilerl.algorithms.settings import setting_names
from agilerl.components.fast_env import fast_env
from agilerl.components.make_env import env_maker
from agilerl.components.vector_env import InProcessVectorEnv, ProcessVectorEnv
from agilerl.errors import check_choice, check_int, check_keys
from agilerl.hpo.starts import drawn_net_configs, drawn_settings
from agilerl.seeding import derive
from agilerl.training.pictures import population_score, save_or_show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agilerl.algorithms import CQN, DDPG, DQN, TD3

#: Arguments of agents that ``initialPopulation`` takes itself.
OWN_ARGUMENTS = ("state_dim", "action_dim", "one_hot", "net_config")
#: INIT_HP keys that describe an agent, and the arguments that they set.
AGENT_KEYS = {
    name.upper(): name
    for agent_class in AGENTS.values()
    for name in setting_names(agent_class)
    if name not in OWN_ARGUMENTS
}
#: INIT_HP keys that describe a run; they are for the caller's own use.
RUN_KEYS = (
    "ENV_NAME",
    "ALGO",
    "DATASET",
    "CHANNELS_LAST",
    "EPISODES",
    "TARGET_SCORE",
    "MEMORY_SIZE",
    "TOURN_SIZE",
    "ELITISM",
    "POP_SIZE",
    "EVO_EPOCHS",
    "WANDB",
)


def makeVectEnvs(
    env_name: str | Callable[..., Any],
    num_envs: int = 1,
    seed: int | None = None,
    workers: int = 0,
    backend: Literal["gymnasium", "vector", "envpool"] = "gymnasium",
    **kwargs: Any,
) -> VectorEnv[Any, Any, Any]:
    """Return a vector environment of ``num_envs`` copies.

    An episode that ends is reset within the same step (SAME_STEP); its last observation is in
    ``info["final_obs"]``.  Transitions are the same with and without workers.  The other backends
    reset it in the next step (NEXT_STEP), which ``train()`` and ``test()`` know.

    Args:
        env_name: a gymnasium id, or a class or function that makes an environment.  A retired id
            resolves to its successor, with a warning.
        num_envs: number of sub-environments.
        seed: of the first reset; every sub-environment gets its own.
        workers: 0 steps in this process; with any other number each sub-environment steps in a
            process of its own (gymnasium's ``AsyncVectorEnv``), which pays where a step takes
            milliseconds.  To use all cores, pass ``workers`` to ``train()``.
        backend: what steps the copies: "vector" is gymnasium's own vectorised version, which few
            environments have (CartPole), "envpool" is EnvPool, in C++ (extra ``envpool``).
        kwargs: for ``gymnasium.make``, or for the class or function.

    Raises:
        ConfigError: on numbers that can't be used.
        EnvError: if there is no such environment, or a package that it needs is missing.
    """
    check_int("num_envs", num_envs)
    if check_choice("backend", backend, ("gymnasium", "vector", "envpool")) != "gymnasium":
        return fast_env(env_name, num_envs, seed, workers, backend, **kwargs)
    makers = [env_maker(env_name, **kwargs)] * num_envs
    if check_int("workers", workers, minimum=0):
        return ProcessVectorEnv(makers, seed)
    return InProcessVectorEnv.made_by(makers, seed)


class PopulationOptions(TypedDict, total=False):
    """The arguments of ``initialPopulation`` that are given by name."""

    device: str | torch.device
    accelerator: None
    min_action: float | Sequence[float] | None
    max_action: float | Sequence[float] | None
    seed: int | None
    policy: nn.Module | Callable[[], nn.Module] | None


@overload
def initialPopulation(
    algo: Literal["DQN"],
    state_dim: int | Sequence[int],
    action_dim: int,
    one_hot: bool,
    net_config: Mapping[str, Any] | None,
    INIT_HP: Mapping[str, Any],
    population_size: int = 1,
    **options: Unpack[PopulationOptions],
) -> list[DQN]: ...


@overload
def initialPopulation(
    algo: Literal["CQN"],
    state_dim: int | Sequence[int],
    action_dim: int,
    one_hot: bool,
    net_config: Mapping[str, Any] | None,
    INIT_HP: Mapping[str, Any],
    population_size: int = 1,
    **options: Unpack[PopulationOptions],
) -> list[CQN]: ...


@overload
def initialPopulation(
    algo: Literal["DDPG"],
    state_dim: int | Sequence[int],
    action_dim: int,
    one_hot: bool,
    net_config: Mapping[str, Any] | None,
    INIT_HP: Mapping[str, Any],
    population_size: int = 1,
    **options: Unpack[PopulationOptions],
) -> list[DDPG]: ...


@overload
def initialPopulation(
    algo: Literal["TD3"],
    state_dim: int | Sequence[int],
    action_dim: int,
    one_hot: bool,
    net_config: Mapping[str, Any] | None,
    INIT_HP: Mapping[str, Any],
    population_size: int = 1,
    **options: Unpack[PopulationOptions],
) -> list[TD3]: ...


@overload
def initialPopulation(
    algo: str,
    state_dim: int | Sequence[int],
    action_dim: int,
    one_hot: bool,
    net_config: Mapping[str, Any] | None,
    INIT_HP: Mapping[str, Any],
    population_size: int = 1,
    **options: Unpack[PopulationOptions],
) -> list[Any]: ...


def initialPopulation(
    algo: str,
    state_dim: int | Sequence[int],
    action_dim: int,
    one_hot: bool,
    net_config: Mapping[str, Any] | None,
    INIT_HP: Mapping[str, Any],
    population_size: int = 1,
    device: str | torch.device = "cpu",
    accelerator: None = None,
    min_action: float | Sequence[float] | None = None,
    max_action: float | Sequence[float] | None = None,
    seed: int | None = None,
    policy: nn.Module | Callable[[], nn.Module] | None = None,
) -> list[Any]:
    """Return a population of agents with different weights, and settings given or drawn for each.

    Args:
        algo: "DQN", "CQN", "DDPG" or "TD3".
        state_dim: number of discrete states, or the shape of an observation (channels first).
        action_dim: number of discrete actions, or width of a continuous one.
        one_hot: observations are integers and are encoded one-hot.
        net_config: shape of the networks, None for the default; ``h_size`` may be drawn for each
            agent: ``{"layers": (1, 3), "units": (32, 256)}``.
        INIT_HP: hyper-parameters, upper-case as in the README; a missing one takes its default,
            and those that this algorithm does not use are fine.  A value may be a range ``(low,
            high)`` or a list of choices, from which each agent draws its own; see ``hpo.starts``.
        population_size: number of agents.
        device: where the networks live.
        accelerator: must be None.
        min_action: lowest action of a DDPG or TD3 agent; else the environment's.
        max_action: highest action of a DDPG or TD3 agent; else the environment's.
        seed: of weights, exploration, and the draws.
        policy: a torch module in place of the policy network of ``net_config``, of which each agent
            trains a copy, or a class or function that makes one, with other weights for each agent;
            see ``EvolvableAgent``.  Evolution leaves its shape as it is.

    Raises:
        ConfigError: on an unknown algorithm or key, or a value that can't be used.
    """
    agent_class: Any = AGENTS[check_choice("algo", algo, AGENTS)]
    check_keys("INIT_HP", INIT_HP, (*AGENT_KEYS, *RUN_KEYS))
    used = setting_names(agent_class)
    settings: dict[str, Any] = {
        name: INIT_HP[key] for key, name in AGENT_KEYS.items() if name in used and key in INIT_HP
    }
    count = check_int("population_size", population_size)
    bounds = {"min_action": min_action, "max_action": max_action}
    given = {k: settings.pop(k, None) if v is None else v for k, v in bounds.items()}
    fixed = {k: v for k, v in given.items() if k in used and v is not None}
    starts = drawn_settings(agent_class, settings, count, seed)
    return [
        agent_class(
            state_dim,
            action_dim,
            one_hot,
            index=index,
            net_config=config,
            device=device,
            accelerator=accelerator,
            seed=None if seed is None else derive(seed, "agent", index),
            policy=made_policy(policy, None if seed is None else derive(seed, "policy", index)),
            **start,
            **fixed,
        )
        for index, (start, config) in enumerate(
            zip(starts, drawn_net_configs(net_config, count, seed), strict=True)
        )
    ]


def made_policy(policy: nn.Module | Callable[[], nn.Module] | None, seed: int | None) -> Any:
    """Return a module that was given as it is, or the one that a class or function makes.

    Its weights come from ``seed``; torch's own stream is left as it was.
    """
    if isinstance(policy, nn.Module) or not callable(policy):
        return policy
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return policy()


def printHyperparams(pop: Sequence[Any]) -> None:
    """Print a line for each agent: its fitness, hyper-parameters, architecture and mutation.

    On a terminal, what does not fit in is continued below.
    """
    head = f"{'agent':>5}  {'fitness':>9}  {'lr':>8}  {'batch':>5}  {'learn':>5}  "
    room = shutil.get_terminal_size().columns - len(head) if sys.stdout.isatty() else 10**6
    print(f"{head}network / mutation")
    for agent in pop:
        fitness = f"{agent.fitness[-1]:.2f}" if agent.fitness else "-"
        lr = f"{agent.lr:.2e}" if hasattr(agent, "lr") else "-"
        network = getattr(agent, "architecture", type(agent).__name__)
        last = textwrap.wrap(f"{network} / {getattr(agent, 'mut', None)}", max(20, room))
        print(
            f"{agent.index:>5}  {fitness:>9}  {lr:>8}  {agent.batch_size:>5}"
            f"  {agent.learn_step:>5}  " + ("\n" + " " * len(head)).join(last)
        )


def plotPopulationScore(pop: Sequence[Any], path: str | Path | None = None) -> Figure:
    """Draw the fitness of each agent and its ancestors against their training steps.

    Args:
        pop: agents that were evaluated.
        path: save the picture there; otherwise it is shown, where there is a screen.

    Returns:
        The matplotlib figure.
    """
    return save_or_show(population_score(pop), path)
