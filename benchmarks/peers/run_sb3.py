"""Time stable-baselines3: one DQN agent, one gradient step a vector step."""

from __future__ import annotations

import contextlib
from typing import Any

import measure
import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

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


class Pool(VecEnv):
    """EnvPool's environments as stable-baselines3 takes them.

    EnvPool resets an environment at the step after its end; that step is passed on as one like the
    others, which costs nothing and changes no rate.
    """

    def __init__(self, name: str, num_envs: int) -> None:
        import envpool

        self.pool = envpool.make_gymnasium(name, num_envs=num_envs, seed=0, num_threads=1)
        super().__init__(num_envs, self.pool.observation_space, self.pool.action_space)

    def reset(self) -> Any:
        """Return the first states."""
        return self.pool.reset()[0]

    def step_async(self, actions: Any) -> None:
        """Keep the actions."""
        self.actions = actions

    def step_wait(self) -> Any:
        """Take the step."""
        states, rewards, terminated, truncated, _ = self.pool.step(self.actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(done):
            infos[index]["terminal_observation"] = states[index]
            infos[index]["TimeLimit.truncated"] = not terminated[index]
        return states, rewards, done, infos

    def close(self) -> None:
        """End the pool."""
        self.pool.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Say that there are no pictures, the only thing that is asked."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the copies are no Python objects."""
        raise AttributeError(
            f"EnvPool's environments have no {attr_name!r}; use backend='gymnasium'."
        )

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Refuse: the copies are no Python objects."""
        raise AttributeError(
            f"EnvPool's environments have no {method_name!r}; use backend='gymnasium'."
        )

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False for each."""
        return [False] * self.num_envs


def environments(name: str, num_envs: int, backend: str) -> Any:
    """Return the vector environment to train in."""
    if backend == "envpool":
        return Pool(name, num_envs)
    # Left alone, make_vec_env asks for pictures. LunarLander then simulates more and more particles
    # and the loop is 4x slower, for nothing that is measured here.
    return make_vec_env(name, n_envs=num_envs, seed=0, env_kwargs={"render_mode": None})


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--backend", choices=("gymnasium", "envpool"), default="gymnasium")
    parser.add_argument("--burst", type=int, default=1, help="vector steps, then as many learns")
    flags = measure.parse(parser)
    env = environments(flags.env, flags.num_envs, flags.backend)
    model = DQN(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        buffer_size=flags.memory_size,
        learning_starts=flags.memory_size,
        batch_size=flags.batch_size,
        tau=1e-3,
        gamma=0.99,
        train_freq=flags.burst,
        gradient_steps=flags.burst,
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
