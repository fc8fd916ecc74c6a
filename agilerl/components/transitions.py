"""True transitions from any vector environment, and the returns of whole episodes.

This is the one place that knows the autoreset modes of gymnasium.  Whatever the mode, the
``next_state`` of a transition is its true successor: never the first observation of the next
episode, never a row whose action was ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from agilerl.components.spaces import check_action_space, check_observation_space, single_spaces
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import EnvError, check_int
from agilerl.finite import within
from agilerl.lifeline import beat

Array = np.ndarray[Any, np.dtype[Any]]


#: The largest number that the replay buffer can hold.
LARGEST = float(np.finfo(np.float32).max)


class Step(NamedTuple):
    """One vector step; every array has one row for each sub-environment."""

    state: Array
    action: Array
    reward: Array
    next_state: Array
    terminated: Array
    truncated: Array
    valid: Array

    @property
    def ended(self) -> Array:
        """Where an episode ended, by itself or by a time limit."""
        return self.terminated | self.truncated

    @property
    def transitions(self) -> tuple[Array, ...]:
        """State, action, reward, next state and terminated, of the rows whose action counted."""
        fields = (self.state, self.action, self.reward, self.next_state, self.terminated)
        return fields if self.valid.all() else tuple(field[self.valid] for field in fields)


def as_vector_env(env: Any) -> Any:
    """Return ``env`` if it is a vector environment, else one of this environment.

    Args:
        env: a vector environment, a single one, or a class or function that makes a single one.

    Raises:
        EnvError: if it is an id.
    """
    if isinstance(env, str):
        raise EnvError(
            f"env: expected an environment, got the id {env!r}; make it with"
            f" makeVectEnvs({env!r}, num_envs=8)."
        )
    if isinstance(env, type) or (callable(env) and not hasattr(env, "step")):
        return InProcessVectorEnv.made_by([env])
    if not (hasattr(env, "step") and hasattr(env, "reset")):
        raise EnvError(
            f"env: expected a gymnasium environment, got {type(env).__name__}; make one with"
            " makeVectEnvs('CartPole-v1', num_envs=8), say."
        )
    return env if hasattr(env, "num_envs") else InProcessVectorEnv([env])


def autoreset_mode(env: Any) -> AutoresetMode:
    """Return what ``env`` does when an episode ends.

    Raises:
        EnvError: if its metadata does not say.
    """
    mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise EnvError(
            f"env: {type(env).__name__} does not say when it resets an episode that has ended"
            f" (metadata['autoreset_mode'] is {mode!r}); set env.metadata['autoreset_mode'] to"
            " gymnasium.vector.AutoresetMode.NEXT_STEP, SAME_STEP or DISABLED, as it behaves."
        ) from None


def steps_asynchronously(env: Any) -> bool:
    """Return whether ``step_async`` and ``step_wait`` are what ``env.step`` itself does."""
    for cls in type(env).__mro__:
        defined = vars(cls)
        if "step_async" in defined and "step_wait" in defined:
            return "step" not in vars(env)
        if "step" in defined:
            return False
    return False


class TransitionStream:
    """Steps a vector environment and gives true transitions.

    Images are turned from [H, W, C] to [C, H, W] here, and discrete spaces that do not start at
    0 are shifted here, for acting, learning and testing alike.

    Args:
        env: a vector environment in any autoreset mode, or a single environment.
        swap_channels: images come as [H, W, C].

    Raises:
        EnvError: if a space can't be learnt on, or the autoreset mode is not known.
    """

    def __init__(self, env: Any, swap_channels: bool = False) -> None:
        self.env = as_vector_env(env)
        self.mode = autoreset_mode(self.env)
        self.num_envs = int(self.env.num_envs)
        self._swap = swap_channels
        self._async = steps_asynchronously(self.env)
        observation, action = single_spaces(self.env)
        check_observation_space(observation)
        check_action_space(action)
        self._shape = (self.num_envs, *(observation.shape or ()))
        if swap_channels and len(self._shape) != 4:
            raise EnvError(
                f"swap_channels (CHANNELS_LAST): expected images [H, W, C], got observations of"
                f" shape {observation.shape}; leave it False."
            )
        self._first_state = (
            int(observation.start) if isinstance(observation, spaces.Discrete) else 0
        )
        self._first_action = int(action.start) if isinstance(action, spaces.Discrete) else 0
        integers = isinstance(action, spaces.Box) and np.issubdtype(action.dtype, np.integer)
        #: what continuous actions become in a space of whole numbers
        self._whole = action.dtype if integers else None
        self._resetting = np.zeros(self.num_envs, bool)
        self._action: Array = np.empty(0)
        self._taken = 0
        self.state: Array = np.empty(0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Look at the environment anew: in another process it may step in another way."""
        self.__dict__.update(state)
        self._async = steps_asynchronously(self.env)

    def reset(self, seed: int | None = None) -> Array:
        """Start new episodes everywhere and return the first states [N, ...]."""
        self._taken = 0
        try:
            observation, _ = self.env.reset(seed=seed)
            self.state = self._observe(observation)
        except Exception as error:  # whatever an environment may raise
            blame(error, self.env, "reset()", "")
        self._resetting = np.zeros(self.num_envs, bool)
        return self.state

    def begin(self, action: Array) -> None:
        """Start a vector step with the agent's actions, [N] or [N, action_dim].

        In a space of whole numbers they are rounded: what is stored is what was executed.
        """
        self._action = np.asarray(action)
        if self._whole is not None:
            self._action = np.rint(self._action).astype(self._whole)
        if len(self._action) != self.num_envs:
            raise EnvError(
                f"action: expected {self.num_envs} rows, one for each sub-environment, got"
                f" {self._action.shape}; getAction must keep the batch axis."
            )
        self._taken += 1
        if self._async:
            try:
                self.env.step_async(self._action + self._first_action)
            except Exception as error:  # whatever an environment may raise
                blame(error, self.env, "step_async()", f"step {self._taken}")

    def finish(self) -> Step:
        """Return the step that ``begin`` started; ``state`` is now where the agent acts next.

        Raises:
            EnvError: if the environment raises, or returns what it must not; the message says in
                which step and, as far as is known, in which sub-environment and at which action.
        """
        try:
            return self._finished()
        except Exception as error:  # whatever an environment may raise
            blame(error, self.env, "step()", f"step {self._taken}")

    def _finished(self) -> Step:
        if self._async:
            result = self.env.step_wait()
        else:
            result = self.env.step(self._action + self._first_action)
        observation, reward, terminated, truncated, info = result
        observation = self._observe(observation)
        reward = np.array(reward, np.float64)
        if reward.shape != (self.num_envs,) or not within(reward, LARGEST):
            raise EnvError(
                f"reward: expected {self.num_envs} finite numbers that float32 can hold, got"
                f" {reward!r} from {self.env} after the actions {self._action.tolist()}; fix the"
                " environment's step()."
            )
        terminated = self._flags("terminated", terminated)
        truncated = self._flags("truncated", truncated)
        beat()
        valid = ~self._resetting
        before = self.state
        next_state, self.state = self._next_states(observation, terminated | truncated, info)
        return Step(before, self._action, reward, next_state, terminated, truncated, valid)

    def _flags(self, name: str, flags: Any) -> Array:
        """Return a copy of ``flags`` [N]; nothing is broadcast."""
        given = np.array(flags)
        if given.dtype == bool and given.shape == (self.num_envs,):
            return given
        kind = given.dtype.kind
        if kind not in "bui" or (kind != "b" and not np.isin(given, (0, 1)).all()):
            raise EnvError(
                f"{name}: expected True or False for each sub-environment, got {flags!r} from"
                f" {self.env}; fix the environment's step()."
            )
        values = given.astype(bool)
        if values.shape != (self.num_envs,):
            raise EnvError(
                f"{name}: expected {self.num_envs} flags, one for each sub-environment, got shape"
                f" {values.shape} from {self.env}; fix the environment's step()."
            )
        return values

    def _next_states(self, observation: Array, ended: Array, info: Any) -> tuple[Array, Array]:
        """Return the true next states, and the states to act in next."""
        if self.mode is AutoresetMode.NEXT_STEP:
            self._resetting = ended
            return observation, observation
        if not ended.any():
            return observation, observation
        if self.mode is AutoresetMode.SAME_STEP:
            return self._final(observation, ended, info), observation
        first, _ = self.env.reset(options={"reset_mask": ended})
        state = observation.copy()
        state[ended] = self._observe(first)[ended]
        return observation, state

    def _final(self, observation: Array, ended: Array, info: Any) -> Array:
        """Return ``observation`` with the last observation of each episode that ended."""
        final = info.get("final_obs")
        rows = np.flatnonzero(ended)
        if final is None or any(final[i] is None for i in rows):
            raise EnvError(
                "env: an episode ended in SAME_STEP mode without info['final_obs']; give the last"
                " observation there, or set metadata['autoreset_mode'] as the environment behaves."
            )
        next_state = observation.copy()
        last = np.stack([np.asarray(final[i]) for i in rows])
        next_state[rows] = self._observe(last, rows=len(rows))
        return next_state

    def _after(self, row: int) -> str:
        """Return in words what was done in a sub-environment just now."""
        if not self._taken or row >= len(self._action):
            return ""
        return f" after the action {self._action[row].tolist()}"

    def _observe(self, observation: Any, rows: int | None = None) -> Array:
        """Return observations as the agent reads them; raise ``EnvError`` if they can't be.

        They are a copy: an environment may write its next observations into the same array.
        """
        states = np.array(observation)
        shape = self._shape if rows is None else (rows, *self._shape[1:])
        if states.shape != shape:
            raise EnvError(
                f"observation: expected shape {shape} (sub-environments first, then the"
                f" observation space's), got {states.shape} from {self.env}; fix its reset() and"
                " step(), or its observation_space."
            )
        if states.dtype.kind == "f" and not within(states, LARGEST):
            row = int(np.argwhere(~(np.abs(states) <= LARGEST))[0][0])
            raise EnvError(
                f"observation: NaN or infinite value (as float32) in sub-environment {row} of"
                f" {self.env}: {states[row]!r}{self._after(row)}; fix the environment, nothing of"
                " this step was stored."
            )
        if self._first_state:
            states = states - self._first_state
        return np.moveaxis(states, 3, 1) if self._swap else states


def true_next_state(next_state: Array, info: Mapping[str, Any]) -> Array:
    """Return ``next_state`` with the last observation of each episode that ended.

    For training loops of one's own: a vector environment in SAME_STEP mode returns the first
    observation of the next episode; the last one of the episode that ended is in ``info``.  Store
    what this returns, and go on acting in ``next_state``.

    Args:
        next_state: observations [N, ...] of ``env.step``.
        info: its last return value.

    Returns:
        The true next states [N, ...]; ``next_state`` itself where no episode ended.
    """
    if "final_obs" not in info:
        return next_state
    true = next_state.copy()
    for row in np.flatnonzero(info["_final_obs"]):
        true[row] = info["final_obs"][row]
    return true


def blame(error: Exception, env: Any, method: str, where: str) -> NoReturn:
    """Raise ``EnvError`` about an environment that raised, or gave what it must not."""
    if isinstance(error, EnvError):
        raise error.located(where) if where else error
    told = f"{method} of {env} raised {type(error).__name__}: {error}"
    raise EnvError(f"{where}: {told}" if where else told) from error


class CountedEnv:
    """A vector environment that counts the transitions of every sub-environment.

    Whatever it raises is an ``EnvError`` about the step.

    A NEXT_STEP row that only resets an episode is no transition, and is not counted.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.count = 0
        self._next_step = autoreset_mode(env) is AutoresetMode.NEXT_STEP
        self._resetting = 0

    def reset(self, **kwargs: Any) -> Any:
        """Reset the environment."""
        self._resetting = 0
        try:
            return self.env.reset(**kwargs)
        except Exception as error:  # whatever an environment may raise
            blame(error, self.env, "reset()", "")

    def step(self, actions: Any) -> Any:
        """Step the environment and count."""
        try:
            result = self.env.step(actions)
        except Exception as error:  # whatever an environment may raise
            blame(error, self.env, "step()", "")
        beat()
        self.count += int(self.env.num_envs) - self._resetting
        if self._next_step:
            self._resetting = int(np.logical_or(result[2], result[3]).sum())
        return result

    def __getattr__(self, name: str) -> Any:
        """Return what the environment itself has under ``name``."""
        if name.startswith("__"):  # Python asks for these when it copies an object
            raise AttributeError(name)
        return getattr(self.env, name)


class Played(NamedTuple):
    """Whole episodes of every sub-environment.

    Attributes:
        returns: undiscounted, [num_envs, episodes].
        lengths: in steps, likewise.
    """

    returns: Array
    lengths: Array


def evaluate(
    act: Callable[[Array], Array],
    env: Any,
    episodes: int,
    max_steps: int,
    swap_channels: bool = False,
    seen: Callable[[Step], object] = lambda step: None,
) -> Array:
    """Return the undiscounted returns [num_envs, episodes] of whole episodes; see ``play``."""
    return play(act, env, episodes, max_steps, swap_channels, seen).returns


def play(
    act: Callable[[Array], Array],
    env: Any,
    episodes: int,
    max_steps: int,
    swap_channels: bool = False,
    seen: Callable[[Step], object] = lambda step: None,
) -> Played:
    """Play whole episodes in every sub-environment.

    The first ``episodes`` episodes of *each* sub-environment count, so short episodes are not
    counted more often than long ones.  One that reaches ``max_steps`` is cut, with its return so
    far; its sub-environment then waits until the others are as far, and all are reset.

    Args:
        act: maps states [num_envs, ...] to actions.
        env: a vector environment, or a single one.
        episodes: of each sub-environment.
        max_steps: longest episode, in steps.
        swap_channels: images come as [H, W, C].
        seen: is shown every step.

    To choose the episodes, call ``env.reset(seed=...)`` first: what follows is then determined.

    Raises:
        EnvError: if a sub-environment ends episodes without taking a step in between.
    """
    check_int("loop", episodes)
    check_int("max_steps", max_steps)
    stream = TransitionStream(env, swap_channels)
    returns = np.zeros((stream.num_envs, episodes))
    taken = np.zeros((stream.num_envs, episodes), int)
    counts, lengths, idle = (np.zeros(stream.num_envs, int) for _ in range(3))
    running = np.zeros(stream.num_envs)
    waiting = np.zeros(stream.num_envs, bool)
    counting = ~waiting  # whose present episode counts
    stream.reset()
    while counting.any():
        stream.begin(act(stream.state))
        step = stream.finish()
        seen(step)
        check_alive(step, idle, stream)
        live = step.valid & counting
        running += step.reward * live
        lengths += live
        ended = step.ended
        over = live & (ended | (lengths >= max_steps))
        if not over.any():
            continue
        returns[over, counts[over]] = running[over]
        taken[over, counts[over]] = lengths[over]
        counts += over
        running[over] = lengths[over] = 0
        waiting |= over & ~ended
        unfinished = counts < episodes
        if unfinished.any() and waiting[unfinished].all():
            stream.reset()
            waiting[:] = False
        counting = unfinished & ~waiting
    return Played(returns, taken)


def check_alive(step: Step, idle: Array, stream: TransitionStream) -> None:
    """Raise ``EnvError`` if a sub-environment only resets; ``idle`` counts resets running [N]."""
    if stream.mode is not AutoresetMode.NEXT_STEP:  # there is no step in others that only resets
        return
    idle[step.valid] = 0
    idle[~step.valid] += 1
    if (idle > 1).any():
        raise EnvError(
            f"terminated: sub-environment {int(idle.argmax())} of {stream.env} says that an episode"
            " ended in the step that resets it (NEXT_STEP), again and again; fix the environment's"
            " step(), or its metadata['autoreset_mode']."
        )
