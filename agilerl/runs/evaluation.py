"""How good an agent is, and what an environment lacks."""

from __future__ import annotations

import os
import pickle
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
from gymnasium import spaces

from agilerl import checkpoint
from agilerl.algorithms import AGENTS
from agilerl.components.make_env import env_maker
from agilerl.components.spaces import check_action_space, check_observation_space, single_spaces
from agilerl.components.transitions import Played, as_vector_env, autoreset_mode, play
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import AgileRLError, CheckpointError, EnvError, check_int
from agilerl.seeding import derive

Array = np.ndarray[Any, np.dtype[Any]]

#: Sub-environments that are stepped side by side, where ``evaluate`` makes them.
ENVS = 8
#: Longest episode where the environment has no time limit, in steps.
LONGEST = 10_000
#: Half the width of a 95 % interval of a normal distribution, in standard deviations.
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Evaluation:
    """The returns of an agent over whole episodes, undiscounted.

    Attributes:
        mean: of the returns.
        std: their standard deviation.
        ci95: 95 % interval of the mean, (low, high), from the normal distribution.
        returns: of each episode, [episodes].
        lengths: of each episode in steps, likewise.
    """

    mean: float
    std: float
    ci95: tuple[float, float]
    returns: Array
    lengths: Array

    @classmethod
    def of(cls, returns: Array, lengths: Array) -> Evaluation:
        """Return the evaluation of these episodes."""
        mean, std = float(returns.mean()), float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
        half = NORMAL_95 * std / float(np.sqrt(len(returns)))
        return cls(mean, std, (mean - half, mean + half), returns, lengths)

    def __str__(self) -> str:
        """Return the mean with its interval, in words."""
        low, high = self.ci95
        return (
            f"{self.mean:.1f} (95 % interval {low:.1f} to {high:.1f}, {len(self.returns)} episodes)"
        )


def evaluate(
    agent: Any,
    env: Any,
    episodes: int = 100,
    seed: int | None = None,
    max_steps: int | None = None,
    seconds: float | None = None,
) -> Evaluation:
    """Let an agent act greedily for whole episodes, and return what they gave.

    The seeds of the episodes come from a stream of their own: they are none of those that a run
    with the same seed trains or evaluates on.

    Args:
        agent: an agent, or the path of its checkpoint.
        env: a gymnasium id, a class or function that makes an environment, or an environment,
            single or vector.
        episodes: exactly so many, unless ``seconds`` are too short; the first of each
            sub-environment's share.
        seed: of the episodes; None draws one.
        max_steps: an episode is cut there; None takes the environment's own limit, else 10,000.
        seconds: that it should take at most; there are fewer episodes where these are too short,
            but one of each sub-environment in any case.

    Raises:
        ConfigError: on numbers that can't be used.
        CheckpointError: if the checkpoint can't be read.
        EnvError: if the environment can't be used, or returns what it must not.
    """
    check_int("episodes", episodes)
    agent = load_agent(agent) if isinstance(agent, str | os.PathLike) else agent
    own = is_maker(env)
    vector = made(env, min(ENVS, episodes)) if own else as_vector_env(env)
    try:
        observation, _ = single_spaces(vector)
        if hasattr(agent, "adapt_to_env"):
            agent.adapt_to_env(vector)
        limit = getattr(getattr(vector, "spec", None), "max_episode_steps", None)
        vector.reset(seed=derive(secrets.randbelow(2**31) if seed is None else seed, "fresh"))
        played = in_time(
            seconds,
            -(-episodes // vector.num_envs),
            lambda count: play(
                lambda states: agent.getAction(states, 0),
                vector,
                count,
                max_steps or limit or LONGEST,
                channels_last(agent, observation),
            ),
        )
    finally:
        if own:
            vector.close()
    return Evaluation.of(*(values.T.ravel()[:episodes] for values in played))


def in_time(seconds: float | None, count: int, some: Callable[[int], Played]) -> Played:
    """Return ``count`` episodes of each sub-environment, or as many as there is time for.

    Args:
        seconds: that all of them should take at most; the first are played in any case.
        count: of episodes.
        some: plays so many.
    """
    if seconds is None or count == 1:
        return some(count)
    start = time.perf_counter()
    first = some(1)
    took = time.perf_counter() - start
    more = min(count - 1, int((seconds - took) / took))
    if more < 1:
        return first
    return Played(*(np.hstack(columns) for columns in zip(first, some(more), strict=True)))


def is_maker(env: Any) -> bool:
    """Return whether ``env`` is an id, a class or a function, and not an environment itself."""
    return isinstance(env, str | type) or not hasattr(env, "step")


def made(env: Any, count: int) -> InProcessVectorEnv:
    """Return a vector environment of copies of what an id, a class or a function makes."""
    return InProcessVectorEnv.made_by([env_maker(env)] * count, None)


def load_agent(path: str | os.PathLike[str]) -> Any:
    """Return the agent of a checkpoint file, of whichever algorithm."""
    algo = checkpoint.load(path).get("algo")
    if algo not in AGENTS:
        raise CheckpointError(
            f"{path}: a checkpoint of {algo!r}, expected one of {', '.join(AGENTS)}."
        )
    return AGENTS[algo].load(path)


def channels_last(agent: Any, space: Any) -> bool:
    """Return whether images come as [H, W, C] to an agent that reads [C, H, W]."""
    shape: tuple[int, ...] = tuple(space.shape or ())
    own = tuple(getattr(agent, "observation_shape", ()))
    return len(shape) == 3 and own != shape and own == (shape[2], *shape[:2])


# ------------------------------------------------------------------------------------ environments


def check_env(env: Any) -> list[str]:
    """Return what in an environment will not work here, each with the cure; nothing if all is well.

    It is reset and stepped a few times with random actions, and its copies are compared.

    Args:
        env: a gymnasium id, a class or function that makes an environment, or an environment.
    """
    try:
        vector = made(env, 2) if is_maker(env) else as_vector_env(env)
        autoreset_mode(vector)
        observation, action = single_spaces(vector)
    except AgileRLError as error:
        return [str(error)]
    except Exception as error:  # whatever a maker may raise
        return [f"env: could not be made ({type(error).__name__}: {error}); call it once yourself."]
    found = []
    for check, space in ((check_observation_space, observation), (check_action_space, action)):
        try:
            check(space)
        except EnvError as error:
            found.append(str(error))
    if found:
        return found
    if isinstance(action, spaces.Box) and not np.isfinite([action.low, action.high]).all():
        found.append(
            f"action space: {action} is unbounded; wrap the environment in"
            " gymnasium.wrappers.RescaleAction or ClipAction with finite bounds."
        )
        return found
    found += [message for message in (faults(vector, action), seeding_fault(vector)) if message]
    return found + [message for message in (copying_fault(env, vector),) if message]


def faults(vector: Any, action: Any) -> str | None:
    """Return what is wrong with what ``reset`` and ``step`` give, or None."""
    first = int(action.start) if isinstance(action, spaces.Discrete) else 0
    action.seed(0)

    def act(states: Array) -> Array:
        return np.stack([np.asarray(action.sample()) - first for _ in range(len(states))])

    try:
        play(act, vector, 1, 200)
    except AgileRLError as error:
        return str(error)
    except Exception as error:  # whatever an environment may raise
        return f"env: step() or reset() raised {type(error).__name__}: {error}; fix it there."
    return None


def seeding_fault(vector: Any) -> str | None:
    """Return what is wrong with seeds, or None: two resets with one seed must be equal."""
    try:
        (first, _), (again, _) = (vector.reset(seed=11) for _ in range(2))
    except Exception as error:  # whatever an environment may raise
        return f"reset(seed=11) raised {type(error).__name__}: {error}; accept seed and options."
    if np.array_equal(np.asarray(first), np.asarray(again)):
        return None
    return (
        "seed: two resets with the same seed begin differently, so no run can be repeated; draw"
        " from self.np_random, which super().reset(seed=seed) seeds."
    )


def copying_fault(env: Any, vector: Any) -> str | None:
    """Return why workers can't have copies, or None."""
    try:
        pickle.loads(cloudpickle.dumps(env if is_maker(env) else vector))
    except Exception as error:  # whatever an object may raise that can't be pickled
        return (
            f"workers: the environment can't be copied to another process ({type(error).__name__}:"
            f" {error}); give a class or function that makes one, or train with workers=0."
        )
    return None
