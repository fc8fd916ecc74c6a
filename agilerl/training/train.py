"""Online evolutionary training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from agilerl.components.transitions import TransitionStream
from agilerl.errors import ConfigError, check_float, check_int
from agilerl.training.executors import Executor
from agilerl.training.run import Generation
from agilerl.training.settings import Settings
from agilerl.training.tasks import Exploration, OnlineTask


def train(
    env: Any,
    env_name: str,
    algo: Any,
    pop: Sequence[Any],
    memory: Any,
    swap_channels: bool = False,
    n_episodes: int = 2000,
    max_steps: int = 500,
    evo_epochs: int | Literal["auto"] = 5,
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
    callbacks: Sequence[Callable[[Generation], Any]] = (),
    eval_env: Any = None,
    eval_max_steps: int | None = None,
    resume: bool | Literal["auto", "force"] = False,
    keep: int = 2,
    learning_starts: int | None = None,
    verbose: bool = True,
    workers: int | Literal["auto"] = 0,
    executor: Executor | None = None,
    env_timeout: float | None = 60.0,
    threads: int = 1,
    select_every: int = 1,
    total_steps: int | None = None,
    time_limit: float | None = None,
    race: int = 0,
    confidence: float | None = None,
    env_restarts: int = 0,
    store_evaluation: bool = False,
    gradient_steps: int = 1,
) -> tuple[list[Any], list[list[float]]]:
    """Train a population in an environment, and evolve it.

    Episode e of an agent sees the replay buffer as it stood when episode e began, and what the
    agent itself stores.  When all agents are done, their transitions are merged by vector step, so
    that the order in which agents train does not matter.  A buffer that is not exactly a
    ``ReplayBuffer`` is shared as it is: agents see at once what those before them stored.

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
        evo_epochs: episodes between evaluations; "auto" evaluates when training has taken as many
            steps as the evaluation before it.
        evo_loop: evaluation episodes of each sub-environment.
        eps_start: epsilon of the first episode.
        eps_end: lowest epsilon.
        eps_decay: factor on epsilon after each episode.
        target: the run ends when the best agent's mean return over 100 fresh episodes reaches it;
            None never ends early.
        tournament: selects parents; None trains without evolution.
        mutation: changes the agents after selection; None leaves them.
        checkpoint: episodes between checkpoints of the whole run; None makes none.
        checkpoint_path: directory of the run, a new one in "runs" if not given.
        wb: log to Weights & Biases.
        accelerator: must be None.
        seed: of all that is drawn in training and evaluation: the environment's episodes,
            exploration, minibatches.  None draws one, and says it.
        callbacks: each is called with every ``Generation``; one that returns True ends the run.
        eval_env: evaluate here, and not in ``env``.
        eval_max_steps: longest evaluation episode, if it is not ``max_steps``.
        resume: True goes on with the run in ``checkpoint_path``, "auto" begins one if there is none
            yet, "force" goes on though settings differ.  The run then equals one that was never
            stopped, bit for bit; ``n_episodes`` and ``target`` may be others.
        keep: checkpoints to keep.
        learning_starts: transitions that the buffer holds before learning starts, at least a batch.
        verbose: show progress on stderr.
        workers: processes on this machine that train and evaluate the agents side by side; 0
            does it in this process, "auto" takes one for each core that is there, as far as there
            are agents.  The numbers are the same, bit for bit, for any of them.
        executor: where agents train and are evaluated, in place of ``workers``; see
            ``agilerl.training.executors``.
        env_timeout: seconds without a vector step or learn step after which a worker is taken to
            hang; what it did is then done again by another.  None waits for ever.
        env_restarts: how often, in one episode or evaluation of an agent, an environment that
            raises or returns what it must not is made anew, and the episode begun again; after that
            the ``EnvError`` ends the run.  What the abandoned episodes stepped is not counted.
        threads: of torch and NumPy in each episode and evaluation, wherever it is done: more than
            one pays for large networks only, and where cores are left beside the workers.
        select_every: evaluations between selections: frequent evaluation catches an agent at its
            best, rare selection lets settings show their worth.
        total_steps: the run ends at the first episode at which all agents together have taken so
            many steps, evaluation included.
        time_limit: the run ends at the first episode after so many seconds of this call, or where
            another evaluation would not fit.
        race: rounds of evaluation at most, after the first, for agents that may still be the best;
            an agent's fitness is the mean over its rounds.
        confidence: the run ends when the lower bound of the mean of the 100 episodes, at this level
            (0.9, say), reaches the target; None takes the mean as it is.
        gradient_steps: learn calls, each on a batch of its own, at every learn step; with a
            population of n agents each agent sees n times as many new transitions as it collects.
        store_evaluation: agents learn from the transitions of evaluations, too (as in SEARL, Franke
            et al. 2021).

    Returns:
        The population as last evaluated, fittest first, and the fitnesses of each generation.

    Raises:
        ConfigError: on arguments that can't be used.
        CheckpointError: if there is no run to go on with, or it is damaged or of other settings.
        EnvError: if the environment can't be used, or returns what it must not.  The population as
            last evaluated is in the exception's ``population``.
    """
    settings = Settings.of(locals())
    starts = check_int("learning_starts", learning_starts or 1)
    if hasattr(memory, "memory_size"):
        settings.fit_batches(memory.memory_size)
        if starts > memory.memory_size:
            raise ConfigError(
                f"learning_starts: the buffer never holds {starts} transitions"
                f" (memory_size={memory.memory_size}); lower it, or enlarge the buffer."
            )
    epsilon = Exploration(
        check_float("eps_start", eps_start, 0.0),
        check_float("eps_end", eps_end, 0.0),
        check_float("eps_decay", eps_decay, 0.0, 1.0),
    )
    stream = TransitionStream(settings.env, swap_channels)
    task = OnlineTask(
        **settings.task_arguments(),
        stream=stream,
        learning_starts=starts,
        epsilon=epsilon,
        gradient_steps=check_int("gradient_steps", gradient_steps),
    )
    more = {"learning_starts": starts, "gradient_steps": gradient_steps, **asdict(epsilon)}
    return settings.run(task, more)
