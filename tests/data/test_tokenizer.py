import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agilerl.data.tokenizer import CharTokenizer, Tokenizer, check_ids
from agilerl.errors import ConfigError, DatasetError


@given(st.text("abc \n"))
def test_text_goes_to_tokens_and_back(text: str) -> None:
    tokenizer = CharTokenizer("abc \n")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_left_out_of_the_text() -> None:
    tokenizer = CharTokenizer("ab")
    ids = [tokenizer.bos_id, *tokenizer.encode("ba"), tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(ids) == "ba"
    assert tokenizer.vocab_size == 5
    assert isinstance(tokenizer, Tokenizer)


def test_action_tokens_are_those_of_the_action_alphabet() -> None:
    tokenizer = CharTokenizer("ab<>", "ba")
    assert np.flatnonzero(tokenizer.action_tokens).tolist() == sorted(tokenizer.encode("ab"))
    assert CharTokenizer("ab").action_tokens.sum() == 2


@pytest.mark.parametrize(
    ("alphabet", "actions"), [("", None), ("aa", None), ("ab", "c"), ("ab", "")]
)
def test_bad_alphabets_are_refused(alphabet: str, actions: str | None) -> None:
    with pytest.raises(ConfigError, match="alphabet"):
        CharTokenizer(alphabet, actions)


def test_unknown_characters_and_ids_are_refused() -> None:
    with pytest.raises(DatasetError, match="'xz'"):
        CharTokenizer("ab").encode("axbz")
    with pytest.raises(DatasetError, match=r"tokens\[1\]: expected an id in \[0, 5\), got 5"):
        CharTokenizer("ab").decode([4, 5])
    with pytest.raises(DatasetError, match=r"tokens\[0\].*-1"):
        check_ids([-1], 5)
