import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.errors import ConfigError
from agilerl.wordle.games import every_hidden_word
from agilerl.wordle.policies import (
    POLICIES,
    ConsistentPolicy,
    InformationGain,
    InformationGainPolicy,
    MixturePolicy,
    Position,
    RandomPolicy,
    StartWordPolicy,
    WrongPolicy,
    candidates_after,
    make_policy,
    nth_true,
    play_with_rules,
)
from agilerl.wordle.vocabulary import ALL_GREEN, ILLEGAL, Vocabulary

SMALL = Vocabulary.small(60)
WIDE = Vocabulary.of(SMALL.answers[:40], SMALL.answers[40:])
masks = st.lists(st.booleans(), min_size=40, max_size=40).filter(any)


def position(candidates: list[bool], copies: int = 200, turn: int = 1) -> Position:
    return Position(turn, np.tile(np.array(candidates), (copies, 1)))


def brute_force_gain(vocabulary: Vocabulary, guess: int, possible: np.ndarray) -> float:
    """Entropy of the colours, by the definition."""
    _, counts = np.unique(vocabulary.matrix[guess, possible], return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())


def test_nth_true_finds_the_column() -> None:
    mask = np.array([[0, 1, 0, 1], [1, 1, 1, 1]], dtype=bool)
    assert nth_true(mask, np.array([1, 2])).tolist() == [3, 2]


@settings(max_examples=30)
@given(masks)
def test_consistent_guesses_are_possible_answers(candidates: list[bool]) -> None:
    guesses = ConsistentPolicy(WIDE, seed=0).choose(position(candidates))
    assert np.array(candidates)[guesses].all()


@settings(max_examples=30)
@given(masks)
def test_wrong_guesses_are_never_possible_answers(candidates: list[bool]) -> None:
    guesses = WrongPolicy(WIDE, seed=0).choose(position(candidates))
    padded = np.array(candidates + [False] * 20)
    assert not padded[guesses].any()


def test_wrong_policy_reaches_every_wrong_word_and_falls_back_when_there_is_none() -> None:
    candidates = [True] * 30 + [False] * 10
    guesses = WrongPolicy(WIDE, seed=0).choose(position(candidates, copies=2000))
    assert set(guesses.tolist()) == set(range(30, 60))
    anything = WrongPolicy(SMALL, seed=0).choose(position([True] * 60, copies=2000))
    assert set(anything.tolist()) == set(range(60))


def test_consistent_and_random_policies_reach_every_word() -> None:
    candidates = [True] * 7 + [False] * 33
    consistent = ConsistentPolicy(WIDE, seed=0).choose(position(candidates, copies=500))
    assert set(consistent.tolist()) == set(range(7))
    everything = RandomPolicy(WIDE, seed=0).choose(position(candidates, copies=2000))
    assert set(everything.tolist()) == set(range(60))


@settings(max_examples=40)
@given(masks)
def test_information_gain_is_the_best_by_brute_force(candidates: list[bool]) -> None:
    possible = np.flatnonzero(candidates)
    best = int(InformationGain(WIDE).best_guesses(np.array([candidates]))[0])
    gains = [brute_force_gain(WIDE, guess, possible) for guess in range(60)]
    if len(possible) <= 2:
        assert best == possible[0]
    else:
        assert gains[best] == pytest.approx(max(gains))


def test_ties_of_information_gain_go_to_a_possible_answer() -> None:
    vocabulary = Vocabulary.of(["zebra", "light", "mount", "aaaaa"], ["abcde"])
    candidates = np.array([[True, True, True, False]])
    gains = [brute_force_gain(vocabulary, g, np.arange(3)) for g in range(5)]
    assert gains[3] < max(gains)
    best = InformationGain(vocabulary).best_guesses(candidates)[0]
    assert best in (0, 1, 2)


def test_rounding_does_not_break_a_tie() -> None:
    """Words 0 and 29 tell the same here, but their sums differ in the last bit; 0 is possible."""
    ruled_out = [3, 4, 8, 11, 14, 16, 21, 25, 26, 27, 28, 29, 32, 35]
    candidates = ~np.isin(np.arange(40), ruled_out)[None]
    possible = np.flatnonzero(candidates[0])
    assert brute_force_gain(WIDE, 0, possible) == pytest.approx(
        brute_force_gain(WIDE, 29, possible), abs=1e-12
    )
    assert InformationGain(WIDE).best_guesses(candidates).tolist() == [0]


def test_information_gain_computes_a_position_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gain = InformationGain(WIDE)
    candidates = np.zeros((5, 40), dtype=bool)
    candidates[:, 3:12] = True
    first = gain.best_guesses(candidates)
    monkeypatch.setattr(gain, "_best", lambda possible: pytest.fail("computed again"))
    assert gain.best_guesses(candidates).tolist() == first.tolist()


def test_a_full_cache_changes_nothing_but_speed() -> None:
    hidden = np.arange(40)
    plays = []
    for size in (0, 3, 1000):
        policy = InformationGainPolicy(WIDE)
        policy._gain = InformationGain(WIDE, cache_size=size)
        plays.append(play_with_rules(policy, WIDE, hidden).letters)
    assert (plays[0] == plays[1]).all()
    assert (plays[0] == plays[2]).all()


@settings(max_examples=150)
@given(st.sets(st.integers(0, 39), min_size=3, max_size=20), st.sampled_from([5, 20, 60]))
def test_the_pool_and_the_possible_answers_are_considered(possible: set[int], pool: int) -> None:
    gain = InformationGain(WIDE, pool=pool)
    best = int(gain.best_guesses(np.isin(np.arange(40), list(possible))[None])[0])
    considered = set(gain.openers(pool).tolist())
    if len(possible) <= pool:
        considered |= possible
    gains = {g: brute_force_gain(WIDE, g, np.array(sorted(possible))) for g in considered}
    assert best in considered
    assert gains[best] == pytest.approx(max(gains.values()))
    tied = {g for g in considered if gains[g] > max(gains.values()) - 1e-7}
    if len(possible) <= pool and tied & possible:
        assert best in possible


def test_start_word_begins_with_the_given_words_then_plays_on() -> None:
    words = [SMALL.answers[3], SMALL.answers[8]]
    policy = StartWordPolicy(SMALL, words, seed=0)
    games = play_with_rules(policy, SMALL, np.arange(60))
    assert {games.turns_of(i)[0][0] for i in range(60)} == set(words)
    assert games.won.mean() > 0.95


def test_start_words_default_to_those_of_the_highest_gain() -> None:
    everything = np.arange(60)
    gains = [brute_force_gain(SMALL, g, everything) for g in range(60)]
    chosen = StartWordPolicy(SMALL, seed=0).choose(position([True] * 60, 500, turn=0))
    assert len(set(chosen.tolist())) == 10
    assert min(gains[g] for g in set(chosen.tolist())) == pytest.approx(sorted(gains)[-10])


def test_a_poor_start_is_one_of_the_ten_words_that_tell_least() -> None:
    everything = np.arange(60)
    gains = [brute_force_gain(SMALL, g, everything) for g in range(60)]
    chosen = make_policy("poor-start", SMALL, 0).choose(position([True] * 60, 500, turn=0))
    assert len(set(chosen.tolist())) == 10
    assert max(gains[g] for g in set(chosen.tolist())) == pytest.approx(sorted(gains)[9])


@pytest.mark.parametrize("words", [["qqqqq"], []])
def test_start_words_outside_the_vocabulary_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="words"):
        StartWordPolicy(SMALL, words)


def test_mixture_draws_each_policy_by_its_weight() -> None:
    first = StartWordPolicy(SMALL, [SMALL.answers[0]], seed=0)
    second = StartWordPolicy(SMALL, [SMALL.answers[1]], seed=0)
    mixture = MixturePolicy([(first, 3.0), (second, 1.0)], seed=0)
    guesses = mixture.choose(position([True] * 60, copies=4000, turn=0))
    assert (guesses == 0).mean() == pytest.approx(0.75, abs=0.03)
    assert set(guesses.tolist()) == {0, 1}


@pytest.mark.parametrize("name", [*POLICIES, "mixture", "random:1,consistent:2"])
def test_one_seed_gives_the_same_games_and_another_seed_others(name: str) -> None:
    hidden = np.arange(60)
    first, second, other = (
        play_with_rules(make_policy(name, SMALL, seed), SMALL, hidden).letters for seed in (1, 1, 2)
    )
    assert (first == second).all()
    if name != "information-gain":
        assert (first != other).any()


def test_policies_are_ordered_by_what_they_know() -> None:
    vocabulary = Vocabulary.small(100)
    hidden = every_hidden_word(vocabulary, 2000, np.random.default_rng(0))
    names = ("wrong", "random", "mixture", "consistent", "information-gain")
    means = [
        play_with_rules(make_policy(n, vocabulary, 0), vocabulary, hidden).returns.mean()
        for n in names
    ]
    assert means == sorted(means)
    assert means[-1] > -1.6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("randm", "Did you mean 'random'"),
        ("randm:1,wrong:1", "Did you mean 'random'"),
        ("random:much", "'much'"),
        ("random:-1,wrong:2", "weight"),
        ("random:0", "above 0"),
        ("random:nan", "weight"),
    ],
)
def test_policies_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(text, SMALL)


def test_play_keeps_possible_answers_true_in_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agilerl.wordle.policies._CHUNK", 7)
    done: list[int] = []
    games = play_with_rules(ConsistentPolicy(SMALL, 0), SMALL, np.arange(60), done.append)
    assert sum(done) == 60
    assert done[0] == 7
    for i in range(60):
        turns = games.turns_of(i)
        for t, (word, _) in enumerate(turns):
            assert candidates_after(SMALL, turns[:t])[SMALL.index(word)]


def test_candidates_after_skips_illegal_guesses() -> None:
    pattern = int(SMALL.matrix[0, 5])
    after = candidates_after(SMALL, [("qqqqq", ILLEGAL), (SMALL.answers[0], pattern)])
    assert after.tolist() == (SMALL.matrix[0] == pattern).tolist()
    assert after[5]
    assert candidates_after(SMALL, [(SMALL.answers[2], ALL_GREEN)]).sum() == 1
