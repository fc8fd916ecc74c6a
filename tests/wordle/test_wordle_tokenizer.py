import numpy as np
import pytest

from agilerl.data.language_environment import encode_episode, play_episode
from agilerl.data.tokenizer import Tokenizer
from agilerl.errors import ConfigError, DatasetError
from agilerl.wordle.environment import WordleEnvironment
from agilerl.wordle.evaluate import play_games
from agilerl.wordle.games import Board, Games, play
from agilerl.wordle.policies import make_policy, play_with_rules
from agilerl.wordle.tokenizer import BLOCK_SIZE, FORMATS, WordleTokenizer
from agilerl.wordle.vocabulary import Vocabulary, to_letters

SMALL = Vocabulary.small(60)
formats = pytest.mark.parametrize("format", FORMATS)


def some_games() -> Games:
    games = play_with_rules(
        make_policy("consistent:0.4,random:0.6", SMALL, 0), SMALL, np.arange(60)
    )
    assert set(games.turns.tolist()) >= {2, 3, 4, 5, 6}
    return games


def illegal_games() -> Games:
    lines = iter(["qqqqq", *SMALL.answers[:5]])
    return play(lambda g: np.repeat(to_letters([next(lines)]), len(g), 0), SMALL, np.array([3, 50]))


@formats
@pytest.mark.parametrize("make", [some_games, illegal_games])
def test_games_as_arrays_equal_the_text_environment_token_by_token(format: str, make) -> None:
    tokenizer, games = WordleTokenizer(format), make()
    encoded = tokenizer.encode_games(games)
    for i in range(len(games)):
        words = [word for word, _ in games.turns_of(i)]
        hidden = SMALL.answers[int(SMALL.indices(games.hidden[i : i + 1])[0])]
        lines = iter(words)
        episode = play_episode(
            WordleEnvironment(SMALL, hidden), lambda _, left=lines: next(left), seed=0
        )
        tokens, mask, rewards, terminals = encode_episode(episode, tokenizer)
        length = encoded.lengths[i]
        assert encoded.tokens[i, :length].tolist() == tokens
        assert encoded.action_mask[i, :length].tolist() == mask
        assert encoded.rewards[i, :length].tolist() == rewards
        assert encoded.terminals[i, :length].tolist() == terminals
        assert (encoded.tokens[i, length:] == tokenizer.pad_id).all()
        assert tokenizer.decode(tokens) == episode.transcript


@formats
def test_reward_and_end_are_on_the_fifth_letter(format: str) -> None:
    games = some_games()
    encoded = WordleTokenizer(format).encode_games(games)
    assert (encoded.returns == games.returns).all()
    assert encoded.action_mask.sum(axis=1).tolist() == (5 * games.turns).tolist()
    ends = np.argwhere(encoded.terminals)
    assert ends[:, 0].tolist() == list(range(60))
    assert ends[:, 1].tolist() == (1 + 10 * (games.turns - 1) + 4).tolist()
    assert set((np.argwhere(encoded.rewards)[:, 1] % 10).tolist()) == {5}
    assert encoded.lengths.tolist() == (2 + 10 * games.turns).tolist()


@formats
def test_text_goes_to_tokens_and_back(format: str) -> None:
    tokenizer = WordleTokenizer(format)
    text = "crane c- r? a! n- e-\nqqqqq * * * * *\nslate s! l! a! t! e!\n"
    ids = tokenizer.encode(text)
    assert len(ids) == 30
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id]) == text
    assert tokenizer.decode(tokenizer.encode("cra")) == "cra"


def test_formats_differ_in_what_one_clue_tells() -> None:
    sizes = {format: WordleTokenizer(format).vocab_size for format in FORMATS}
    assert sizes == {"slots": 30 + 390, "clues": 30 + 78, "plain": 30 + 3}
    text = "aabcd a- a- b- c- d-\n"
    distinct = {f: len(set(WordleTokenizer(f).encode(text)[5:])) for f in FORMATS}
    assert distinct == {"slots": 5, "clues": 4, "plain": 1}
    assert WordleTokenizer().format == "slots"


@formats
def test_the_agent_may_choose_the_26_letters_only(format: str) -> None:
    tokenizer = WordleTokenizer(format)
    letters = tokenizer.encode("abcdefghijklmnopqrstuvwxyz")
    assert np.flatnonzero(tokenizer.action_tokens).tolist() == letters
    assert tokenizer.letters_of(np.array(letters)).tolist() == list(range(26))
    assert isinstance(tokenizer, Tokenizer)
    assert len({tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, *letters}) == 29


@formats
def test_prefixes_are_the_beginnings_of_the_finished_games(format: str) -> None:
    tokenizer = WordleTokenizer(format)
    board = Board(SMALL, np.arange(10, 60))
    for turn in range(3):
        prefix = tokenizer.prefixes(board.games.select(board.running))
        assert prefix.shape == (50, 1 + 10 * turn)
        board.guess(np.repeat(SMALL.letters[[turn]], 50, axis=0))
    finished = tokenizer.encode_games(board.games)
    assert (tokenizer.prefixes(board.games) == finished.tokens[:, :31]).all()


def test_the_longest_game_fills_the_block() -> None:
    games = play(lambda g: np.zeros((len(g), 5), dtype=int), SMALL, np.array([0]))
    assert WordleTokenizer().encode_games(games).lengths.tolist() == [BLOCK_SIZE]


def test_unknown_text_ids_and_formats_are_refused() -> None:
    tokenizer = WordleTokenizer()
    with pytest.raises(DatasetError, match="'9' at position 3"):
        tokenizer.encode("cra9e")
    with pytest.raises(DatasetError, match=r"tokens\[1\].*420"):
        tokenizer.decode([3, 420])
    with pytest.raises(ConfigError, match="Did you mean 'slots'"):
        WordleTokenizer("slot")


@formats
def test_a_token_policy_plays_as_its_words_do(format: str) -> None:
    tokenizer = WordleTokenizer(format)
    shapes = []

    def policy(tokens: np.ndarray) -> np.ndarray:
        """The first answer that agrees with the text so far."""
        shapes.append(tokens.shape)
        guesses = []
        for row in tokens:
            lines = tokenizer.decode(row).splitlines()
            env_words = [line.split(" ", 1) for line in lines]
            for word in SMALL.answers:
                if all(reply(guess, word) == marks for guess, marks in env_words):
                    guesses.append(tokenizer.encode(word))
                    break
        return np.array(guesses)

    def reply(guess: str, hidden: str) -> str:
        env = WordleEnvironment(SMALL, hidden)
        env.reset()
        return env.step(guess)[0].strip()

    games = play_games(policy, SMALL, np.arange(60), tokenizer)
    assert shapes[0] == (60, 1)
    assert [shape[1] for shape in shapes] == [1 + 10 * t for t in range(len(shapes))]
    assert games.won.mean() > 0.9
    assert (games.returns == tokenizer.encode_games(games).returns).all()


def test_a_policy_that_writes_other_tokens_than_letters_is_refused() -> None:
    tokenizer = WordleTokenizer()
    with pytest.raises(ConfigError, match="letter tokens only"):
        play_games(lambda t: np.full((len(t), 5), tokenizer.eos_id), SMALL, np.arange(3), tokenizer)


def test_an_illegal_word_of_a_token_policy_costs_a_guess() -> None:
    tokenizer = WordleTokenizer()
    games = play_games(
        lambda t: np.tile(tokenizer.encode("qqqqq"), (len(t), 1)), SMALL, np.arange(3), tokenizer
    )
    assert games.returns.tolist() == [-6] * 3
    assert games.illegal.tolist() == [6] * 3
