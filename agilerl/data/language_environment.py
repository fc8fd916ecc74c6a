"""Language environments: text in, text out.

An environment is any object with the two methods and three attributes of
``LanguageEnvironment``; see ``number_environment.py`` for one of 40 lines.  ``play_episode``
plays one, ``record_games`` makes training data, and ``TextEnv`` is the same as a gymnasium
environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from agilerl.data.language_dataset import TokenGames, pack_games
from agilerl.data.tokenizer import Tokenizer
from agilerl.errors import EnvError, check_int
from agilerl.seeding import derive

StepResult = tuple[str, float, bool, bool, dict[str, Any]]


@runtime_checkable
class LanguageEnvironment(Protocol):
    """A game played in text.

    The transcript of an episode is the text of ``reset`` followed by each action and its reply:
    nothing is added between them.

    Attributes:
        alphabet: Every character that the environment writes, or that an action may have.
        max_text: The longest text that ``reset`` or ``step`` returns.
        max_action: The longest action, in characters.
    """

    @property
    def alphabet(self) -> str: ...  # noqa: D102

    @property
    def max_text(self) -> int: ...  # noqa: D102

    @property
    def max_action(self) -> int: ...  # noqa: D102

    def reset(self, seed: int | None = None) -> str:
        """Begin an episode and return what the agent reads first; may be empty.

        The same seed gives the same episode; without one, the environment goes on with the
        generator it has.
        """
        ...

    def step(self, text: str) -> StepResult:
        """Return (reply, reward, terminated, truncated, info) to an action.

        Any text must be answered: what breaks the rules is a bad action, not an error.
        """
        ...


TextPolicy = Callable[[str], str]
"""From the transcript so far to the next action."""


@dataclass(frozen=True)
class Episode:
    """One played episode.

    Attributes:
        opening: The text of ``reset``.
        steps: (action, reply, reward) of each step.
        terminated: Whether it ended by the rules, not by a limit.
        info: The info of the last step.
    """

    opening: str
    steps: tuple[tuple[str, str, float], ...]
    terminated: bool
    info: dict[str, Any]

    @property
    def total_reward(self) -> float:
        """Sum of rewards."""
        return sum(reward for _, _, reward in self.steps)

    @property
    def transcript(self) -> str:
        """All text in order."""
        return self.opening + "".join(action + reply for action, reply, _ in self.steps)


def play_episode(
    env: LanguageEnvironment, policy: TextPolicy, seed: int | None = None, max_steps: int = 1000
) -> Episode:
    """Play one episode and return it; it is cut after ``max_steps`` steps."""
    opening = transcript = env.reset(seed)
    steps: list[tuple[str, str, float]] = []
    terminated = truncated = False
    info: dict[str, Any] = {}
    while not (terminated or truncated) and len(steps) < check_int("max_steps", max_steps):
        action = policy(transcript)
        reply, reward, terminated, truncated, info = env.step(action)
        steps.append((action, reply, float(reward)))
        transcript += action + reply
    return Episode(opening, tuple(steps), terminated, info)


def encode_episode(
    episode: Episode, tokenizer: Tokenizer
) -> tuple[list[int], list[bool], list[float], list[bool]]:
    """Return an episode as (tokens, action_mask, rewards, terminals) lists; see ``TokenGames``.

    Raises:
        EnvError: An action that has no tokens, or tokens an agent may not choose.
    """
    tokens = [tokenizer.bos_id, *tokenizer.encode(episode.opening)]
    mask, rewards = [False] * len(tokens), [0.0] * len(tokens)
    last = 0
    for action, reply, reward in episode.steps:
        chosen, answer = tokenizer.encode(action), tokenizer.encode(reply)
        if not chosen or not tokenizer.action_tokens[chosen].all():
            raise EnvError(
                f"action {action!r}: expected text of the action tokens of {tokenizer.name!r}. "
                "Add its characters to the tokenizer's action tokens, or change the policy."
            )
        last = len(tokens) + len(chosen) - 1
        tokens += chosen + answer
        mask += [True] * len(chosen) + [False] * len(answer)
        rewards += [0.0] * (len(chosen) - 1) + [reward] + [0.0] * len(answer)
    terminals = [episode.terminated and at == last for at in range(len(tokens))]
    if episode.terminated:
        tokens.append(tokenizer.eos_id)
        mask, rewards, terminals = [*mask, False], [*rewards, 0.0], [*terminals, False]
    return tokens, mask, rewards, terminals


def record_games(
    env: LanguageEnvironment,
    policy: TextPolicy,
    tokenizer: Tokenizer,
    games: int,
    seed: int | None = None,
) -> TokenGames:
    """Play ``games`` episodes and return them as training data.

    Episode ``i`` is seeded by ``seed`` and ``i``.
    """
    count = check_int("games", games)
    episodes = (play_episode(env, policy, derive(seed, "episode", i)) for i in range(count))
    return pack_games([encode_episode(e, tokenizer) for e in episodes], tokenizer.pad_id)


class TextEnv(gym.Env[str, str]):
    """A language environment as a gymnasium environment with ``Text`` spaces.

    Args:
        env: The language environment.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's type)

    def __init__(self, env: LanguageEnvironment) -> None:
        if not isinstance(env, LanguageEnvironment):
            raise EnvError(
                f"env: expected reset, step, alphabet, max_text and max_action, got {env!r}, which "
                "lacks some of them. See LanguageEnvironment."
            )
        self.env = env
        charset = frozenset(env.alphabet)
        self.observation_space = gym.spaces.Text(
            env.max_text, min_length=0, charset=charset, seed=None
        )
        self.action_space = gym.spaces.Text(env.max_action, min_length=0, charset=charset)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode; return its first text and an empty info."""
        super().reset(seed=seed)
        return self.env.reset(seed), {}

    def step(self, action: str) -> StepResult:
        """Return (text, reward, terminated, truncated, info) of an action."""
        if not isinstance(action, str):
            raise EnvError(f"action: expected text, got {type(action).__name__} {action!r}.")
        return self.env.step(str(action))


def repeating(actions: Sequence[str]) -> TextPolicy:
    """Return the policy that plays ``actions``, then says nothing."""
    left = iter(actions)
    return lambda text: next(left, "")


def check_environment(env: LanguageEnvironment, policy: TextPolicy, episodes: int = 20) -> None:
    """Play some episodes and raise ``EnvError`` for the first rule that ``env`` breaks.

    Checks: texts are in the alphabet and no longer than ``max_text``; rewards are finite; the
    same seed and actions give the same episode; a nonsense action is answered.

    Args:
        env: The environment.
        policy: Any policy that plays it.
        episodes: Number of episodes to play.
    """
    TextEnv(env)
    allowed = set(env.alphabet)
    for seed in range(check_int("episodes", episodes)):
        episode = play_episode(env, policy, seed)
        again = play_episode(env, repeating([action for action, _, _ in episode.steps]), seed)
        if again != episode:
            raise EnvError(f"reset({seed}): the same seed and actions gave another episode.")
        for text in (episode.opening, *(reply for _, reply, _ in episode.steps)):
            if not set(text) <= allowed or len(text) > env.max_text:
                raise EnvError(
                    f"seed {seed}: expected at most {env.max_text} characters of {env.alphabet!r}, "
                    f"got {text!r}."
                )
        if not np.isfinite(episode.total_reward):
            raise EnvError(f"seed {seed}: expected finite rewards, got {episode.total_reward}.")
    for nonsense in ("", env.alphabet * (env.max_action + 1)):
        env.reset(0)
        env.step(nonsense)
