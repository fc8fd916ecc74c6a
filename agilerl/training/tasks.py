"""Training on transitions: online, in an environment, and offline, on data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from agilerl.components.transitions import CountedEnv, TransitionStream, evaluate
from agilerl.seeding import derive
from agilerl.training.run import CHECK_EPISODES, Evaluation


@dataclass(frozen=True)
class Exploration:
    """Epsilon by episode: ``max(end, start * decay**episode)``."""

    start: float
    end: float
    decay: float

    def __call__(self, episode: int) -> float:
        """Return the epsilon of an episode, counted from 0."""
        return max(self.end, self.start * self.decay**episode)


@dataclass(frozen=True)
class EnvironmentTask:
    """Evaluates agents in an environment.

    All agents of a generation see the same episodes where a seed is given, so that they are
    compared like with like.

    Attributes:
        memory: the replay buffer to learn from.
        eval_env: a vector environment to evaluate in.
        swap_channels: images come as [H, W, C].
        max_steps: vector steps or learn calls of a training episode.
        eval_max_steps: longest evaluation episode.
        evo_loop: evaluation episodes of each sub-environment.
        seed: of the environment's episodes.
    """

    memory: Any
    eval_env: Any
    swap_channels: bool
    max_steps: int
    eval_max_steps: int
    evo_loop: int
    seed: int | None

    def _restarted(self, *keys: int | str) -> CountedEnv:
        env = CountedEnv(self.eval_env)
        if self.seed is not None:
            env.reset(seed=derive(self.seed, *keys))
        return env

    def evaluate(self, agent: Any, generation: int) -> Evaluation:
        """Return what the agent's own ``test`` gives, which appends it to ``fitness``."""
        env = self._restarted("evaluation", generation)
        fitness = agent.test(env, self.swap_channels, self.eval_max_steps, self.evo_loop)
        return Evaluation(float(fitness), env.count)

    def check(self, agent: Any, generation: int) -> Evaluation:
        """Return the mean return over 100 fresh episodes, the first of each sub-environment."""
        env = self._restarted("check", generation)
        returns = evaluate(
            lambda states: agent.getAction(states, 0),
            env,
            -(-CHECK_EPISODES // env.num_envs),
            self.eval_max_steps,
            self.swap_channels,
        )
        return Evaluation(float(returns.T.ravel()[:CHECK_EPISODES].mean()), env.count)


@dataclass(frozen=True)
class OnlineTask(EnvironmentTask):
    """An episode is ``max_steps`` vector steps from a reset.

    In each, the agent acts, the environment starts to step, the agent learns from what the buffer
    holds so far, and the step is collected and stored.

    Attributes:
        stream: of the environment to train in.
        learning_starts: transitions in the buffer before learning starts, at least a batch.
        epsilon: exploration by episode.
    """

    stream: TransitionStream
    learning_starts: int
    epsilon: Exploration

    def train_episode(self, agent: Any, episode: int, slot: int) -> int:
        """Train ``agent`` and return the environment steps taken."""
        stream, memory = self.stream, self.memory
        epsilon = self.epsilon(episode)
        state = stream.reset(
            None if self.seed is None else derive(self.seed, "episode", episode, slot)
        )
        running = np.zeros(stream.num_envs)
        finished: list[float] = []
        taken = 0
        for step_index in range(episode * self.max_steps, (episode + 1) * self.max_steps):
            stream.begin(agent.getAction(state, epsilon))
            enough = max(agent.batch_size, self.learning_starts)
            if (step_index + 1) % agent.learn_step == 0 and len(memory) >= enough:
                agent.learn(memory.sample(agent.batch_size))
            step = stream.finish()
            state = stream.state
            fields = (step.state, step.action, step.reward, step.next_state, step.terminated)
            if not step.valid.all():
                fields = tuple(field[step.valid] for field in fields)  # type: ignore[assignment]
            taken += len(fields[0])
            if len(fields[0]):
                memory.save2memoryVectEnvs(*fields)
            running += step.reward * step.valid
            ended = step.ended
            if ended.any():
                finished += running[ended].tolist()
                running[ended] = 0.0
        agent.scores.append(float(np.mean(finished or running)))
        return taken


@dataclass(frozen=True)
class OfflineTask(EnvironmentTask):
    """An episode is ``max_steps`` learn calls on samples of the data."""

    def train_episode(self, agent: Any, episode: int, slot: int) -> int:
        """Train ``agent`` and return the environment steps taken: none."""
        for _ in range(self.max_steps):
            agent.learn(self.memory.sample(agent.batch_size))
        return 0
