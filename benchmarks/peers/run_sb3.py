"""Time stable-baselines3: one DQN agent, one gradient step a vector step."""

from __future__ import annotations

import contextlib

import measure
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

PACKAGES = ("stable-baselines3", "torch", "numpy", "gymnasium")


class Watch(BaseCallback):
    """Reports every vector step, and the gradient steps taken since the one before."""

    def __init__(self, meter: measure.Meter) -> None:
        super().__init__()
        self._meter = meter
        self._updates = 0

    def _on_step(self) -> bool:
        updates = self.model._n_updates  # no public name holds the count
        self._meter.step(self.training_env.num_envs, updates - self._updates)
        self._updates = updates
        return True


def main() -> None:
    flags = measure.parse(measure.parser(__doc__))
    # Left alone, make_vec_env asks for pictures. LunarLander then simulates more and more particles
    # and the loop is 4x slower, for nothing that is measured here.
    env_kwargs = {"render_mode": None}
    env = make_vec_env(flags.env, n_envs=flags.num_envs, seed=0, env_kwargs=env_kwargs)
    model = DQN(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        buffer_size=flags.memory_size,
        learning_starts=flags.memory_size,
        batch_size=flags.batch_size,
        tau=1e-3,
        gamma=0.99,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=1,
        exploration_initial_eps=flags.epsilon,
        exploration_final_eps=flags.epsilon,
        policy_kwargs={"net_arch": flags.hidden},
        seed=0,
        device="cpu",
    )
    meter = measure.Meter(flags.seconds)
    with contextlib.suppress(measure.TimeUp):
        model.learn(total_timesteps=10**9, callback=Watch(meter), log_interval=None)
    env.close()
    measure.report("sb3", "train", PACKAGES, algo="DQN", **meter.rates(), **measure.settings(flags))


if __name__ == "__main__":
    main()
