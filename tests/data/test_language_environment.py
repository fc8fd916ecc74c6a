import math

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from agilerl.data.language_environment import (
    LanguageEnvironment,
    TextEnv,
    check_environment,
    play_episode,
    record_games,
)
from agilerl.data.number_environment import NumberEnvironment, bisect
from agilerl.data.tokenizer import CharTokenizer
from agilerl.errors import ConfigError, EnvError
from agilerl.wordle.environment import WordleEnvironment
from agilerl.wordle.vocabulary import Vocabulary

TOKENIZER = CharTokenizer(NumberEnvironment.alphabet, "0123456789")
SMALL = Vocabulary.small(30)


def first_word(transcript: str) -> str:
    return SMALL.answers[len(transcript.splitlines())]


def test_halving_always_finds_the_number() -> None:
    episodes = [play_episode(NumberEnvironment(), bisect, seed) for seed in range(300)]
    assert all(episode.info["won"] and episode.terminated for episode in episodes)
    assert min(episode.total_reward for episode in episodes) == -6
    assert {episode.transcript[-1] for episode in episodes} == {"="}


def test_number_environment_tells_higher_lower_and_nonsense() -> None:
    env = NumberEnvironment()
    env.reset(seed=3)
    low, high = 0, 99
    replies = [env.step(text)[0] for text in ("xx", "7", "١٢")]
    assert replies == ["?", "?", "?"]
    while low <= high:
        reply, reward, over, truncated, info = env.step(f"{(low + high) // 2:02d}")
        middle = (low + high) // 2
        assert not truncated
        assert (reward, over, info["won"]) == (
            (0.0, True, True) if reply == "=" else (-1.0, over, False)
        )
        if over:
            break
        low, high = (middle + 1, high) if reply == ">" else (low, middle - 1)


def test_number_environment_ends_after_eight_wrong_guesses() -> None:
    episode = play_episode(NumberEnvironment(), lambda _: "xx", seed=0)
    assert len(episode.steps) == 8
    assert episode.total_reward == -8
    assert episode.terminated


def test_a_step_without_a_running_episode_is_an_error() -> None:
    for env in (NumberEnvironment(), WordleEnvironment(SMALL)):
        with pytest.raises(EnvError, match="reset"):
            env.step("00")
        env.reset(0)
        over = False
        while not over:
            over = env.step("nonsense")[2]
        with pytest.raises(EnvError, match="reset"):
            env.step("00")


@pytest.mark.parametrize(
    ("env", "policy"), [(NumberEnvironment(), bisect), (WordleEnvironment(SMALL), first_word)]
)
def test_own_environments_follow_the_protocol(env: LanguageEnvironment, policy) -> None:
    check_environment(env, policy)
    adapter = TextEnv(env)
    check_env(adapter, skip_render_check=True)
    adapter.reset(seed=5)
    assert isinstance(adapter.env, LanguageEnvironment)


def test_adapter_gives_what_the_environment_gives() -> None:
    env, adapter = NumberEnvironment(), TextEnv(NumberEnvironment())
    assert adapter.reset(seed=4) == (env.reset(seed=4), {})
    for guess in ("50", "20", "??"):
        assert adapter.step(guess) == env.step(guess)
    with pytest.raises(EnvError, match="int 5"):
        adapter.step(5)  # type: ignore[arg-type]
    with pytest.raises(EnvError, match="max_action"):
        TextEnv(object())  # type: ignore[arg-type]


def test_seed_gives_the_episode_and_no_seed_goes_on() -> None:
    def hidden(env: WordleEnvironment, seed: int | None) -> str:
        return play_episode(env, lambda _: "qqqqq", seed).info["hidden"]

    env, other = WordleEnvironment(SMALL), WordleEnvironment(SMALL)
    assert [hidden(env, s) for s in range(8)] == [hidden(other, s) for s in range(8)]
    assert [hidden(env, None) for _ in range(8)] == [hidden(other, None) for _ in range(8)]
    assert len({hidden(env, None) for _ in range(30)}) > 5
    assert hidden(WordleEnvironment(SMALL, hidden=SMALL.answers[4]), 1) == SMALL.answers[4]
    with pytest.raises(ConfigError, match="qqqqq"):
        WordleEnvironment(SMALL, hidden="qqqqq")


def test_recorded_games_mark_actions_rewards_and_ends() -> None:
    games = record_games(NumberEnvironment(), bisect, TOKENIZER, games=20, seed=1)
    for i in range(20):
        length = int(games.lengths[i])
        text = TOKENIZER.decode(games.tokens[i])
        steps = len(text) // 3
        assert length == 1 + 3 * steps + 1
        assert games.tokens[i, 0] == TOKENIZER.bos_id
        assert games.tokens[i, length - 1] == TOKENIZER.eos_id
        assert np.flatnonzero(games.action_mask[i]).tolist() == [
            at for step in range(steps) for at in (1 + 3 * step, 2 + 3 * step)
        ]
        assert np.flatnonzero(games.rewards[i]).tolist() == [2 + 3 * s for s in range(steps - 1)]
        assert np.flatnonzero(games.terminals[i]).tolist() == [2 + 3 * (steps - 1)]
        assert games.returns[i] == -(steps - 1)
    assert len({TOKENIZER.decode(row) for row in games.tokens}) > 10
    again = record_games(NumberEnvironment(), bisect, TOKENIZER, games=20, seed=1)
    assert (again.tokens == games.tokens).all()


def test_an_episode_that_was_cut_has_no_end() -> None:
    class Cut(NumberEnvironment):
        def step(self, text: str):
            reply, reward, _, _, info = super().step(text)
            return reply, reward, False, True, info

    games = record_games(Cut(), bisect, TOKENIZER, games=3, seed=1)
    assert not games.terminals.any()
    assert games.lengths.tolist() == [4, 4, 4]


def test_actions_that_an_agent_may_not_choose_cannot_be_recorded() -> None:
    with pytest.raises(EnvError, match="action tokens"):
        record_games(NumberEnvironment(), lambda _: "<<", TOKENIZER, games=1, seed=0)
    with pytest.raises(EnvError, match="action tokens"):
        record_games(NumberEnvironment(), lambda _: "", TOKENIZER, games=1, seed=0)


class Forgetful(NumberEnvironment):
    """Ignores the seed."""

    def reset(self, seed: int | None = None) -> str:
        return super().reset(None)


class Lengthening(NumberEnvironment):
    """Goes on for longer each time, whatever the seed."""

    resets = 0

    def reset(self, seed: int | None = None) -> str:
        self.resets += 1
        self.told = 0
        return super().reset(seed)

    def step(self, text: str):
        reply, reward, _, _, info = super().step(text)
        self.told += 1
        return reply, reward, self.told > self.resets, False, info


class Chatty(NumberEnvironment):
    """Answers at length."""

    def step(self, text: str):
        reply, *rest = super().step(text)
        return (reply * 2, *rest)


class Worthless(NumberEnvironment):
    """Has no reward to give."""

    def step(self, text: str):
        reply, _, *rest = super().step(text)
        return (reply, math.inf, *rest)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Forgetful(), "same seed"),
        (Lengthening(), "same seed"),
        (Chatty(), "at most 1 characters"),
        (Worthless(), "finite"),
    ],
)
def test_environments_that_break_a_rule_are_found_out(env: NumberEnvironment, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        check_environment(env, lambda transcript: "42")
