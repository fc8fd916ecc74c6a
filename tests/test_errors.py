"""Bad values are refused by messages that name the field, the value and the cure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from agilerl import errors
from agilerl.errors import ConfigError, check_choice, check_float, check_int, check_sizes
from agilerl.networks.build import check_net_config

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.mark.parametrize("name", ["ConfigError", "EnvError", "DatasetError", "CheckpointError"])
def test_every_error_is_a_value_error_and_one_of_ours(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.AgileRLError)
    assert issubclass(error, ValueError)


@pytest.mark.parametrize("value", [0, -3, 2.5, 2.0, "2", None, True, math.nan, [2], np.float32(2)])
def test_what_is_no_positive_integer_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^size: expected an integer >= 1, got "):
        check_int("size", value)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_any_integral_type_is_an_integer(value: Any) -> None:
    assert check_int("size", value) == 3
    assert type(check_int("size", value)) is int


@pytest.mark.parametrize("value", [[], (), 3, "33", None, {3: 4}, [3, 0], [3, 2.5], [[3]], [True]])
def test_what_is_no_list_of_positive_sizes_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="h_size"):
        check_sizes("h_size", value)


def test_the_message_names_the_place_in_the_list() -> None:
    with pytest.raises(ConfigError, match=r"h_size\[1\]: expected an integer >= 1, got 0"):
        check_sizes("h_size", [3, 0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.1, "0.5", None, True, 1j])
def test_what_is_no_number_in_range_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"gamma: expected a finite number in \[0, 1\], got"):
        check_float("gamma", value, 0.0, 1.0)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_any_real_type_is_a_number(value: Any) -> None:
    assert check_float("gamma", value, 0.0, 1.0) == float(value)
    assert type(check_float("gamma", value)) is float


def test_a_name_that_is_nearly_right_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"algo: 'dqn' is not known.*Did you mean 'DQN'\?"):
        check_choice("algo", "dqn", ["DQN", "DDPG"])
    with pytest.raises(ConfigError) as far:
        check_choice("algo", "xyz", ["DQN", "DDPG"])
    assert "Did you mean" not in str(far.value)
    with pytest.raises(ConfigError, match="expected one of 'DQN', 'DDPG'"):
        check_choice("algo", ["DQN"], ["DQN", "DDPG"])


def test_an_unknown_key_gets_a_suggestion_and_the_accepted_ones() -> None:
    with pytest.raises(ConfigError, match=r"'h_sizes'.*Did you mean 'h_size'\?.*Accepted keys: "):
        check_net_config({"arch": "mlp", "h_sizes": [3]})
