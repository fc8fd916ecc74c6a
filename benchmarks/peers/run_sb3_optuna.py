"""Train stable-baselines3 until an environment is solved: tuned by Optuna, or with known settings.

The ranges, the sampler (multivariate TPE), the pruner (median, after a third of a trial) and the
five greedy episodes of an evaluation are those of RL Baselines3 Zoo. Its ten trials before sampler
and pruner begin would take more steps than a run is given; here they begin after three. A trial is
evaluated ten times, and its network as it is then has to confirm each evaluation that reaches the
target. Every environment step counts, those of evaluations and confirmations as well.

With ``--tuned`` nothing is searched: every trial has the settings that RL Zoo has found for the
environment, and its length, with another seed each time.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import confirm
import gymnasium
import measure
import numpy as np
import optuna
from stable_baselines3 import DDPG, DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise

PACKAGES = ("stable-baselines3", "optuna", "torch", "numpy", "gymnasium")
EVALUATIONS = 10
EVALUATION_EPISODES = 5
STARTUP_TRIALS = 3
CHOICES: dict[str, tuple[float, ...]] = {
    "gamma": (0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999),
    "batch_size": (16, 32, 64, 100, 128, 256, 512),
    "buffer_size": (10_000, 50_000, 100_000, 1_000_000),
    "target_update_interval": (1, 1_000, 5_000, 10_000, 15_000, 20_000),
    "learning_starts": (0, 1_000, 5_000, 10_000, 20_000),
    "train_freq": (1, 4, 8, 16, 128, 256, 1_000),
}
SUBSAMPLE_STEPS = (1, 2, 4, 8)
NETWORKS = {"tiny": [64], "small": [64, 64], "medium": [256, 256]}
#: What RL Zoo has found for DQN on LunarLander, and on Acrobot.
LANDER: dict[str, Any] = {
    "learning_rate": 6.3e-4,
    "batch_size": 128,
    "buffer_size": 50_000,
    "learning_starts": 0,
    "gamma": 0.99,
    "target_update_interval": 250,
    "train_freq": 4,
    "gradient_steps": -1,
    "exploration_fraction": 0.12,
    "exploration_final_eps": 0.1,
    "policy_kwargs": {"net_arch": [256, 256]},
}
CARTPOLE: dict[str, Any] = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
PENDULUM: dict[str, Any] = {
    "learning_rate": 1e-3,
    "buffer_size": 200_000,
    "learning_starts": 10_000,
    "gamma": 0.98,
    "train_freq": 1,
    "gradient_steps": 1,
    "action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.1)),
    "policy_kwargs": {"net_arch": [400, 300]},
}
#: Algorithm and settings of each environment.
ZOO: dict[str, tuple[type[DQN | DDPG], dict[str, Any]]] = {
    "CartPole-v1": (DQN, CARTPOLE),
    "Acrobot-v1": (DQN, LANDER),
    "LunarLander-v3": (DQN, LANDER),
    "Pendulum-v1": (DDPG, PENDULUM),
}


def settings_of(trial: optuna.Trial) -> dict[str, Any]:
    """Return the arguments of DQN that are tried."""
    chosen: dict[str, Any] = {
        name: trial.suggest_categorical(name, values) for name, values in CHOICES.items()
    }
    subsample = trial.suggest_categorical("subsample_steps", SUBSAMPLE_STEPS)
    network = trial.suggest_categorical("net_arch", tuple(NETWORKS))
    return {
        **chosen,
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1.0, log=True),
        "exploration_final_eps": trial.suggest_float("exploration_final_eps", 0.0, 0.2),
        "exploration_fraction": trial.suggest_float("exploration_fraction", 0.0, 0.5),
        "gradient_steps": max(1, chosen["train_freq"] // subsample),
        "policy_kwargs": {"net_arch": NETWORKS[network]},
    }


@dataclass
class Search:
    """Counts what a run spends, and notes whether it has solved its environment."""

    flags: argparse.Namespace
    steps: int = 0
    solved: bool = False
    solved_at: int = 0
    check: float | None = None
    start: float = field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        """Make the environments in which episodes are played side by side."""
        self.envs = [gymnasium.make(self.flags.env) for _ in range(confirm.LOOK)]
        self.rng = np.random.default_rng([self.flags.seed, 1])

    @property
    def processor(self) -> float:
        """Processor seconds since the start."""
        return time.process_time() - self.start

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, or to do it with."""
        spent = self.steps >= self.flags.steps or self.processor >= self.flags.limit
        return self.solved or spent

    def play(self, model: DQN | DDPG, episodes: int) -> list[float]:
        """Return the returns of greedy episodes, each from a new seed in its own environment."""
        envs = self.envs[:episodes]
        states = [env.reset(seed=int(self.rng.integers(2**31)))[0] for env in envs]
        returns, live = [0.0] * episodes, list(range(episodes))
        while live:
            actions, _ = model.predict(np.stack([states[i] for i in live]), deterministic=True)
            self.steps += len(live)
            going_on = []
            for i, action in zip(live, actions, strict=True):
                states[i], reward, terminated, truncated, _ = envs[i].step(action)
                returns[i] += float(reward)
                if not (terminated or truncated):
                    going_on.append(i)
            live = going_on
        return returns

    def evaluate(self, model: DQN | DDPG) -> float:
        """Return the mean of an evaluation; one that reaches the target is confirmed."""
        mean = float(np.mean(self.play(model, EVALUATION_EPISODES)))
        if mean >= self.flags.target:
            before = self.steps
            self.solved, self.check = confirm.confirm(
                lambda episodes: self.play(model, episodes), self.flags.target
            )
            if self.solved:
                self.solved_at = before
        return mean


class Watch(BaseCallback):
    """Counts training steps, evaluates, and ends the trial when it is hopeless or all is over.

    ``hopeless`` takes the mean of an evaluation and its number.
    """

    def __init__(self, search: Search, hopeless: Callable[[float, int], bool]) -> None:
        super().__init__()
        self.search, self.hopeless = search, hopeless
        self.mean = math.nan
        self.ended = False

    def _on_step(self) -> bool:
        self.search.steps += 1
        every = self.search.flags.trial_steps // EVALUATIONS
        if self.num_timesteps % every == 0 and not self.search.over:
            self.mean = self.search.evaluate(self.model)
            self.ended = self.hopeless(self.mean, self.num_timesteps // every)
        return not (self.ended or self.search.over)


def train(search: Search, number: int, model: Callable[..., DQN | DDPG], watch: Watch) -> None:
    """Make a model, with the seed of a trial, and train it."""
    seed = 1_000 * search.flags.seed + number
    # Left alone, make_vec_env asks for pictures, with which LunarLander is 4x slower.
    env = make_vec_env(search.flags.env, n_envs=1, seed=seed, env_kwargs={"render_mode": None})
    try:
        model("MlpPolicy", env, seed=seed, device="cpu").learn(
            search.flags.trial_steps, callback=watch, log_interval=None
        )
    except (AssertionError, ValueError) as error:  # NaN, from settings that are too wild
        print(f"Trial {number} failed: {error}", file=sys.stderr)
        watch.ended = True
    env.close()


def objective(search: Search, trial: optuna.Trial) -> float:
    """Train with the settings of a trial; return the mean of its last evaluation."""

    def hopeless(mean: float, number: int) -> bool:
        trial.report(mean, number)
        return trial.should_prune()

    watch = Watch(search, hopeless)
    train(search, trial.number, partial(DQN, **settings_of(trial)), watch)
    if search.over:
        trial.study.stop()
    if watch.ended or math.isnan(watch.mean):
        raise optuna.TrialPruned
    return watch.mean


def search_settings(search: Search) -> dict[str, Any]:
    """Go from trial to trial until all is over; return what is to be said of them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(
            n_startup_trials=STARTUP_TRIALS, multivariate=True, seed=search.flags.seed
        ),
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=STARTUP_TRIALS, n_warmup_steps=EVALUATIONS // 3
        ),
    )
    study.optimize(lambda trial: objective(search, trial))
    states = [trial.state.name.lower() for trial in study.trials]
    facts = {"trials": len(states), "pruned": states.count("pruned")}
    return {**facts, "settings": study.trials[-1].params} if search.solved else facts


def repeat_tuned(search: Search) -> dict[str, Any]:
    """Train with the settings of RL Zoo until all is over; return how often it was begun."""
    cls, settings = ZOO[search.flags.env]
    trials = 0
    while not search.over:
        train(search, trials, partial(cls, **settings), Watch(search, lambda *_: False))
        trials += 1
    return {"trials": trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True, help="Gymnasium id")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True, help="of all trials together")
    parser.add_argument("--trial-steps", type=int, required=True, help="training steps of a trial")
    parser.add_argument("--limit", type=float, default=math.inf, help="processor seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tuned", action="store_true", help="with the settings of RL Zoo")
    flags = measure.parse(parser)
    search = Search(flags)
    facts = repeat_tuned(search) if flags.tuned else search_settings(search)
    line = {
        "system": "sb3_tuned" if flags.tuned else "sb3_optuna",
        "env": flags.env,
        "seed": flags.seed,
        "given": flags.steps,
        "solved": search.solved,
        "steps": search.solved_at if search.solved else search.steps,
        "total": search.steps,
        "processor": round(search.processor, 1),
        "check": search.check,
        **facts,
        "versions": measure.versions(PACKAGES),
    }
    if not search.solved and search.steps < flags.steps:
        line["cut"] = True
    measure.say(line)


if __name__ == "__main__":
    main()
