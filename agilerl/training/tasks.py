"""Training on transitions: online, in an environment, and offline, on data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from agilerl.algorithms import AGENTS
from agilerl.algorithms.base import EvolvableAgent
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import CountedEnv, TransitionStream, evaluate
from agilerl.lifeline import beat
from agilerl.seeding import Streams
from agilerl.training.jobs import CHECK_EPISODES, EpisodeResult, Evaluation
from agilerl.training.pickling import maker_of

Array = np.ndarray[Any, np.dtype[Any]]

#: Episodes between looks at whether a check can still succeed.
LOOK_EPISODES = 10
#: It can't where the mean of all episodes is this many standard errors too low: in 1 of 50 cases.
HOPE = 2.05


@dataclass(frozen=True)
class Exploration:
    """Epsilon by episode: ``max(end, start * decay**episode)``."""

    start: float
    end: float
    decay: float

    def __call__(self, episode: int) -> float:
        """Return the epsilon of an episode, counted from 0."""
        return max(self.end, self.start * self.decay**episode)


@dataclass
class EnvironmentTask(ABC):
    """Evaluates agents in an environment.

    All agents of a generation see the same episodes, so that they are compared like with like.
    Only ``restart`` changes a task: it exchanges environments that failed.

    Attributes:
        eval_env: a vector environment to evaluate in.
        swap_channels: images come as [H, W, C].
        max_steps: vector steps or learn calls of a training episode.
        eval_max_steps: longest evaluation episode.
        evo_loop: evaluation episodes of each sub-environment.
        store_evaluation: bring home the transitions of evaluations.
        env_restarts: how often environments that fail are made anew, in one episode or evaluation.
        confidence: how sure a check has to be; None takes its mean as it is.

    Raises:
        EnvError: if they are to be, and can't.
    """

    eval_env: Any
    swap_channels: bool
    max_steps: int
    eval_max_steps: int
    evo_loop: int
    store_evaluation: bool = field(default=False, kw_only=True)
    env_restarts: int = field(default=0, kw_only=True)
    confidence: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Note how the environments are made, while they are whole."""
        self._makers: dict[str, Callable[[], Any]] = {}
        self._made: list[Any] = []
        if self.env_restarts:
            self._makers = {name: maker_of(env) for name, env in self.environments().items()}

    @abstractmethod
    def train_episode(self, agent: Any, memory: Any, streams: Streams) -> EpisodeResult:
        """Train ``agent`` for episode ``streams.number``; ``memory`` is what it sees and fills."""

    def environments(self) -> dict[str, Any]:
        """Return the environments by what they are for; one that serves twice is there once."""
        return {"evaluation": self.eval_env}

    def take(self, environments: Mapping[str, Any]) -> None:
        """Go on in these environments, which are as ``environments()`` gives them."""
        self.eval_env = environments["evaluation"]

    def restart(self) -> None:
        """Make all environments anew; the old ones are closed, as well as they can be."""
        new = {name: make() for name, make in self._makers.items()}
        for env in self.environments().values():
            with suppress(Exception):  # it has failed already
                env.close()
        self.take(new)
        self._made = list(new.values())

    def close(self) -> None:
        """Close the environments that were made here; the first ones are the user's."""
        for env in self._made:
            with suppress(Exception):  # the environment's own affair
                env.close()

    def _restarted(self, seed: int) -> CountedEnv:
        env = CountedEnv(self.eval_env)
        env.reset(seed=seed)
        return env

    def evaluate(self, agent: Any, streams: Streams) -> Evaluation:
        """Return what the agent's own ``test`` gives, which appends it to ``fitness``."""
        env = self._restarted(streams.derive_shared("evaluation"))
        more: dict[str, Any] = {}
        steps: list[tuple[Array, ...]] = []
        if self.store_evaluation and isinstance(agent, EvolvableAgent):
            more["seen"] = lambda step: steps.append(step.transitions)
        fitness = agent.test(env, self.swap_channels, self.eval_max_steps, self.evo_loop, **more)
        se = getattr(agent, "fitness_se", None)
        return Evaluation(float(fitness), env.count, se, EpisodeResult.of(steps))

    def check(self, agent: Any, streams: Streams, target: float) -> Evaluation:
        """Return the mean return over fresh episodes, the first of each sub-environment.

        They are 100, or fewer where these leave little hope that the target is reached: a failed
        check costs steps as well.
        """
        env = self._restarted(streams.derive_shared("check"))
        returns = np.zeros(0)
        while len(returns) < CHECK_EPISODES:
            missing = min(LOOK_EPISODES, CHECK_EPISODES - len(returns))
            loop = -(-missing // env.num_envs)
            returns = np.append(returns, self._returns(agent, env, loop))[:CHECK_EPISODES]
            if not self._hopeful(returns, target):
                break
        mean, se = mean_and_error(returns)
        return Evaluation(mean, env.count, se)

    def _hopeful(self, returns: Array, target: float) -> bool:
        """Return whether 100 episodes that begin with these may show that the target is reached."""
        mean, se = mean_and_error(returns)
        if not se > 0:  # all the same, or NaN
            return mean >= target
        count = len(returns)
        deviation = se * math.sqrt(count)
        doubt = 0.0 if self.confidence is None else NormalDist().inv_cdf(self.confidence)
        needed = target + doubt * deviation / math.sqrt(CHECK_EPISODES)
        left = deviation * math.sqrt(1 / count - 1 / CHECK_EPISODES)
        return mean >= needed - HOPE * left or count >= CHECK_EPISODES

    def _returns(self, agent: Any, env: Any, loop: int) -> Array:
        """Return the returns of greedy episodes, the first of each sub-environment first."""
        returns = evaluate(
            lambda states: agent.getAction(states, 0),
            env,
            loop,
            self.eval_max_steps,
            self.swap_channels,
        )
        return returns.T.ravel()


def mean_and_error(returns: Array) -> tuple[float, float]:
    """Return the mean of returns, and its standard error."""
    return float(returns.mean()), float(returns.std(ddof=1) / np.sqrt(len(returns)))


def drawing(agent: Any, memory: Any) -> Callable[[int], Any]:
    """Return what draws a batch: as arrays, unless the agent or the buffer is of the user's own."""
    plain = type(agent) in AGENTS.values() and type(memory) is ReplayBuffer
    patched = "learn" in vars(agent) or "sample" in vars(memory)
    draw: Callable[[int], Any] = memory.draw if plain and not patched else memory.sample
    return draw


@dataclass
class OnlineTask(EnvironmentTask):
    """An episode is ``max_steps`` vector steps from a reset.

    In each, the agent acts, the environment starts to step, the agent learns from what the buffer
    holds so far, and the step is collected and stored.

    Attributes:
        stream: of the environment to train in.
        learning_starts: transitions in the buffer before learning starts, at least a batch.
        epsilon: exploration by episode.
        gradient_steps: learn calls at every learn step.
    """

    stream: TransitionStream
    learning_starts: int
    epsilon: Exploration
    gradient_steps: int = 1

    def environments(self) -> dict[str, Any]:
        """Return the environments by what they are for; one that serves twice is there once."""
        if self.eval_env is self.stream.env:
            return {"training": self.stream.env}
        return {"training": self.stream.env, **super().environments()}

    def take(self, environments: Mapping[str, Any]) -> None:
        """Go on in these environments, which are as ``environments()`` gives them."""
        self.stream = TransitionStream(environments["training"], self.swap_channels)
        self.eval_env = environments.get("evaluation", self.stream.env)

    def train_episode(self, agent: Any, memory: Any, streams: Streams) -> EpisodeResult:
        """Train ``agent``; what it sees is stored in ``memory``."""
        stream, epsilon = self.stream, self.epsilon(streams.number)
        state = stream.reset(streams.derive("episode"))
        running = np.zeros(stream.num_envs)
        finished: list[float] = []
        # the stream has checked what a buffer of the user's own checks, or not, for itself
        plain, draw = type(memory) is ReplayBuffer, drawing(agent, memory)
        store = memory.append if plain else lambda fields: memory.save2memoryVectEnvs(*fields)
        counts = np.zeros(self.max_steps, int)
        first = streams.number * self.max_steps  # learn_step counts through all episodes
        for step_index in range(self.max_steps):
            stream.begin(agent.getAction(state, epsilon))
            enough = max(agent.batch_size, self.learning_starts)
            if (first + step_index + 1) % agent.learn_step == 0 and len(memory) >= enough:
                for _ in range(self.gradient_steps):
                    agent.learn(draw(agent.batch_size))
            step = stream.finish()
            state = stream.state
            fields = step.transitions
            counts[step_index] = len(fields[0])
            if len(fields[0]):
                store(fields)
            running += step.reward * step.valid
            ended = step.ended
            if ended.any():
                finished += running[ended].tolist()
                running[ended] = 0.0
        agent.scores.append(float(np.mean(finished or running)))
        return EpisodeResult(int(counts.sum()), counts)


@dataclass
class OfflineTask(EnvironmentTask):
    """An episode is ``max_steps`` learn calls on samples of the data."""

    def train_episode(self, agent: Any, memory: Any, streams: Streams) -> EpisodeResult:
        """Train ``agent``; no environment step is taken."""
        draw = drawing(agent, memory)
        for _ in range(self.max_steps):
            agent.learn(draw(agent.batch_size))
            beat()
        return EpisodeResult(0)
