"""Following a schedule: when settings change, and which edits are made."""

from __future__ import annotations

import pytest

from agilerl import CheckpointError, initialPopulation
from agilerl.runs.retrain import Follow, Retrained, edit_networks, shape_of


def test_settings_and_edits_come_when_they_are_due() -> None:
    net = {"arch": "mlp", "h_size": [8, 8]}
    (agent,) = initialPopulation("DQN", (4,), 2, False, net, {"LR": 1e-3}, 1, seed=1)
    first = {**agent.hyperparameters, "episode": 0, "edit": None}
    second = {**first, "episode": 2, "lr": 5e-4}
    third = {**second, "episode": 3, "batch_size": 32, "edit": "add_node(1, 16)"}
    follow = Follow([first, second, third], episode_steps=100)
    seen = []
    for steps in (0, 100, 200, 300):
        agent.steps.append(steps)
        (same,) = follow.mutation([agent])
        assert same is agent
        seen.append((agent.lr, agent.batch_size, agent.architecture.split()[0]))
    start = (1e-3, 64, "8-8")
    assert seen == [start, start, (5e-4, 64, "8-8"), (5e-4, 32, "8-24")]
    assert agent.optimizer.param_groups[0]["lr"] == 5e-4


def test_an_edit_that_is_none_is_named() -> None:
    (agent,) = initialPopulation("DQN", (4,), 2, False, {"arch": "mlp"}, {}, 1, seed=1)
    for label in ("__init__(1)", "weights", "no_such_edit(0, 1)"):
        with pytest.raises(CheckpointError, match="edit"):
            edit_networks(agent, label)


def test_the_shape_of_a_summary() -> None:
    assert shape_of("32-16 elu", {"arch": "mlp"}) == {"h_size": [32, 16], "activation": "elu"}
    assert shape_of("conv 8-8 relu", {"arch": "cnn"}) == {}


def test_the_table_has_means_and_intervals() -> None:
    table = str(Retrained([1, 2], [10.0, 14.0], [5.0, 5.0]))
    assert "| 1 | 10.0 | 5.0 |" in table
    assert "| 12.0 (8.1 to 15.9) | 5.0 (5.0 to 5.0) |" in table
