"""Where agents start: ranges and choices, each agent's own draw."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agilerl import initialPopulation
from agilerl.errors import ConfigError
from agilerl.hpo.hyperparameters import Range

NET = {"arch": "mlp", "h_size": [8]}


def start(hp: dict[str, Any], count: int = 4, algo: str = "DQN", **more: Any) -> list[Any]:
    net = more.pop("net_config", NET)
    return initialPopulation(algo, (4,), 2, False, net, hp, count, seed=more.pop("seed", 1))


def test_each_agent_draws_from_its_own_part_of_a_range() -> None:
    pop = start({"LR": (1e-5, 1e-1), "BATCH_SIZE": (1, 8), "GAMMA": (0.9, 0.99)})
    parts = sorted(math.floor(math.log10(agent.lr)) for agent in pop)
    assert parts == [-5, -4, -3, -2]  # log-uniform, a decade for each
    assert sorted((agent.batch_size - 1) // 2 for agent in pop) == [0, 1, 2, 3]
    assert all(isinstance(agent.batch_size, int) for agent in pop)
    assert all(0.9 <= agent.gamma <= 0.99 for agent in pop)


def test_both_ends_of_a_range_of_integers_are_drawn() -> None:
    found = {agent.learn_step for agent in start({"LEARN_STEP": (1, 4)}, 8)}
    assert found == {1, 2, 3, 4}


def test_choices_and_ranges_as_yaml_writes_them() -> None:
    pop = start({"DOUBLE": [True, False], "TAU": {"low": 1e-3, "high": 1e-2}})
    assert sorted(agent.double for agent in pop) == [False, False, True, True]
    assert all(1e-3 <= agent.tau <= 1e-2 for agent in pop)


def test_one_seed_gives_the_same_starts_and_another_seed_others() -> None:
    hp = {"LR": (1e-5, 1e-1)}
    one, again, other = ([agent.lr for agent in start(hp, seed=seed)] for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_adding_a_range_leaves_the_other_draws() -> None:
    one = [agent.lr for agent in start({"LR": (1e-5, 1e-1)})]
    other = [agent.lr for agent in start({"LR": (1e-5, 1e-1), "TAU": (1e-3, 1e-2)})]
    assert one == other


def test_the_hidden_sizes_may_be_drawn() -> None:
    net = {"arch": "mlp", "h_size": {"layers": (1, 3), "units": (32, 256)}}
    sizes = [agent.net_config["h_size"] for agent in start({}, 6, net_config=net)]
    assert {len(size) for size in sizes} == {1, 2, 3}
    assert all(32 <= size[0] <= 256 and len(set(size)) == 1 for size in sizes)
    assert len({size[0] for size in sizes}) > 3


def test_bounds_of_actions_are_never_ranges() -> None:
    hp = {"MIN_ACTION": [-2.0, -1.0], "MAX_ACTION": [2.0, 1.0]}
    (agent,) = start(hp, 1, "DDPG")
    assert agent.min_action == [-2.0, -1.0]


@pytest.mark.parametrize(
    ("hp", "message"),
    [
        ({"LR": (0.0, 1.0)}, "0 < low <= high"),
        ({"LR": (1e-3,)}, "expected (low, high)"),
        ({"LR": (1e-2, 1e-3)}, "low <= high"),
        ({"LR": []}, "empty list of choices"),
        ({"LR": {"low": 1e-3}}, "expected (low, high)"),
        ({"LR": {"low": 1e-3, "hihg": 1}}, "hihg"),
        ({"BATCH_SIZE": (0, 8)}, "0 < low"),
        ({"GAMMA": (0.5, 1.5)}, "GAMMA"),
        ({"TAU": (1e-3, float("nan"))}, "TAU"),
    ],
)
def test_bad_ranges_are_named(hp: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        start(hp)
    assert message in str(caught.value)


def test_bad_hidden_sizes_are_named() -> None:
    with pytest.raises(ConfigError, match="'layers'"):
        start({}, net_config={"arch": "mlp", "h_size": {"units": (1, 2)}})


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-6, 1.0), st.floats(1.0, 1e6), st.booleans())
def test_a_quantile_is_within_the_range(point: float, low: float, width: float, log: bool) -> None:
    value = Range(low, low * width, log=log).at(point)
    assert low * (1 - 1e-9) <= value <= low * width * (1 + 1e-9)


def test_a_discount_moves_by_its_horizon() -> None:
    gamma = Range(0.9, 0.999, complement=True)
    assert gamma.at(0.0) == pytest.approx(0.9)
    assert gamma.at(0.5) == pytest.approx(0.99)  # horizons 10, 100, 1000
    assert gamma.at(0.999999) == pytest.approx(0.999, abs=1e-5)
