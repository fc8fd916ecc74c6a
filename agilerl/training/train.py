"""Online evolutionary training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agilerl.components.transitions import TransitionStream, as_vector_env
from agilerl.errors import ConfigError, check_float, check_int
from agilerl.seeding import derive
from agilerl.training.observers import Observer
from agilerl.training.session import Settings, run


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
class OnlineEpisode:
    """Spends one episode of one agent: ``max_steps`` vector steps from a reset.

    In each, the agent acts, the environment starts to step, the agent learns from what the buffer
    holds so far, and the step is collected and stored.
    """

    stream: TransitionStream
    memory: Any
    max_steps: int
    learning_starts: int
    epsilon: Exploration
    seed: int | None

    def __call__(self, agent: Any, episode: int, place: int) -> int:
        """Train ``agent`` and return the environment steps taken."""
        stream, memory = self.stream, self.memory
        epsilon = self.epsilon(episode)
        state = stream.reset(
            None if self.seed is None else derive(self.seed, "episode", episode, place)
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


def train(
    env: Any,
    env_name: str,
    algo: Any,
    pop: Sequence[Any],
    memory: Any,
    swap_channels: bool = False,
    n_episodes: int = 2000,
    max_steps: int = 500,
    evo_epochs: int = 5,
    evo_loop: int = 1,
    eps_start: float = 1.0,
    eps_end: float = 0.1,
    eps_decay: float = 0.995,
    target: float | None = 200.0,
    tournament: Any = None,
    mutation: Any = None,
    checkpoint: int | None = None,
    checkpoint_path: str | Path | None = None,
    wb: bool = False,
    accelerator: Any = None,
    seed: int | None = None,
    callbacks: Sequence[Observer] = (),
    eval_env: Any = None,
    eval_max_steps: int | None = None,
    learning_starts: int | None = None,
    verbose: bool = True,
) -> tuple[list[Any], list[list[float]]]:
    """Train a population in an environment, and evolve it.

    Args:
        env: a vector environment in any autoreset mode, or a single environment.
        env_name: a label.
        algo: a label.
        pop: the agents.
        memory: the replay buffer that they share; transitions are stored as state, action, reward,
            next state, done.
        swap_channels: images come as [H, W, C].
        n_episodes: episodes of each agent at most.
        max_steps: vector steps of an episode, and longest evaluation episode.
        evo_epochs: episodes between evaluations.
        evo_loop: evaluation episodes of each sub-environment.
        eps_start: epsilon of the first episode.
        eps_end: lowest epsilon.
        eps_decay: factor on epsilon after each episode.
        target: the run ends when the best agent's mean return over 100 fresh episodes reaches it;
            None never ends early.
        tournament: selects parents; None trains without evolution.
        mutation: changes the agents after selection; None leaves them.
        checkpoint: episodes between checkpoints of the population; None makes none.
        checkpoint_path: directory of the checkpoints, "checkpoints" if not given.
        wb: log to Weights & Biases.
        accelerator: must be None.
        seed: of the environment's episodes, in training and in evaluation.
        callbacks: each is called with every ``Generation``.
        eval_env: evaluate here, and not in ``env``.
        eval_max_steps: longest evaluation episode, if it is not ``max_steps``.
        learning_starts: transitions that the buffer holds before learning starts, at least a batch.
        verbose: show progress on stderr.

    Returns:
        The population as last evaluated, fittest first, and the fitnesses of each generation.

    Raises:
        ConfigError: on arguments that can't be used.
        EnvError: if the environment can't be used, or returns what it must not.  The population as
            last evaluated is in the exception's ``population``.
    """
    env = as_vector_env(env)
    settings = Settings(
        env=env,
        env_name=env_name,
        algo=algo,
        pop=pop,
        memory=memory,
        swap_channels=swap_channels,
        n_episodes=n_episodes,
        max_steps=max_steps,
        evo_epochs=evo_epochs,
        evo_loop=evo_loop,
        target=target,
        tournament=tournament,
        mutation=mutation,
        checkpoint=checkpoint,
        checkpoint_path=checkpoint_path,
        wb=wb,
        accelerator=accelerator,
        seed=seed,
        callbacks=callbacks,
        eval_env=eval_env,
        eval_max_steps=eval_max_steps,
        verbose=verbose,
    )
    settings.check()
    learning_starts = check_int("learning_starts", learning_starts or 1)
    if hasattr(memory, "memory_size"):
        settings.fit_batches(memory.memory_size)
        if learning_starts > memory.memory_size:
            raise ConfigError(
                f"learning_starts: the buffer never holds {learning_starts} transitions"
                f" (memory_size={memory.memory_size}); lower it, or enlarge the buffer."
            )
    spend_episode = OnlineEpisode(
        stream=TransitionStream(env, swap_channels),
        memory=memory,
        max_steps=max_steps,
        learning_starts=learning_starts,
        epsilon=Exploration(
            check_float("eps_start", eps_start, 0.0),
            check_float("eps_end", eps_end, 0.0),
            check_float("eps_decay", eps_decay, 0.0, 1.0),
        ),
        seed=seed,
    )
    return run(settings, spend_episode)
