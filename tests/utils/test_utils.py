"""The front door: populations, and a look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms.cqn import CQN
from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.algorithms.td3 import TD3
from agilerl.errors import ConfigError
from agilerl.training.pictures import fitness_history, kind_of
from agilerl.utils.utils import (
    AGENT_KEYS,
    RUN_KEYS,
    initialPopulation,
    plotPopulationScore,
    printHyperparams,
)

NET_CONFIG = {"arch": "mlp", "h_size": [8, 8]}
EVERY_KEY = {
    "ENV_NAME": "CartPole-v1",
    "ALGO": "DQN",
    "DATASET": "a file",
    "DOUBLE": True,
    "HUBER": True,
    "CHANNELS_LAST": False,
    "BATCH_SIZE": 48,
    "LR": 3e-4,
    "EPISODES": 10,
    "TARGET_SCORE": 1.0,
    "GAMMA": 0.9,
    "MEMORY_SIZE": 100,
    "LEARN_STEP": 3,
    "TAU": 0.02,
    "TOURN_SIZE": 2,
    "ELITISM": True,
    "POP_SIZE": 3,
    "EVO_EPOCHS": 5,
    "POLICY_FREQ": 4,
    "MAX_GRAD_NORM": 0.5,
    "WANDB": False,
}


def population(algo: str = "DQN", hp: Any = None, size: int = 2, **kwargs: Any) -> list[Any]:
    arguments: dict[str, Any] = {
        "state_dim": (4,),
        "action_dim": 2,
        "one_hot": False,
        "net_config": NET_CONFIG,
        "INIT_HP": {} if hp is None else hp,
        "population_size": size,
    }
    return initialPopulation(algo, **{**arguments, **kwargs})


@pytest.mark.parametrize(
    ("algo", "cls"), [("DQN", DQN), ("CQN", CQN), ("DDPG", DDPG), ("TD3", TD3)]
)
def test_every_key_of_init_hp_is_taken_and_those_of_other_algorithms_are_fine(
    algo: str, cls: type
) -> None:
    pop = population(algo, EVERY_KEY, size=3)
    assert [type(agent) for agent in pop] == [cls] * 3
    assert [agent.index for agent in pop] == [0, 1, 2]
    for agent in pop:
        assert agent.batch_size == 48
        assert (agent.lr, agent.gamma, agent.tau, agent.learn_step) == (3e-4, 0.9, 0.02, 3)
        assert (agent.scores, agent.fitness, agent.steps) == ([], [], [0])
        assert agent.max_grad_norm == 0.5
        own = (agent.policy_freq == 4,) if issubclass(cls, DDPG) else (agent.double, agent.huber)
        assert all(own)


def test_a_missing_key_takes_its_default() -> None:
    agent, default = population()[0], DQN(4, 2, False)
    assert agent.hyperparameters == default.hyperparameters
    assert agent.double == default.double


def test_ddpg_takes_action_bounds() -> None:
    for agent in population("DDPG", {}, min_action=-2.0, max_action=[1.0, 3.0]):
        assert (agent.min_action, agent.max_action) == ([-2.0, -2.0], [1.0, 3.0])


def test_agents_have_equal_settings_different_weights_and_one_seed_repeats_them() -> None:
    def weights(seed: int | None) -> list[bytes]:
        pop = population(size=4, seed=seed)
        return [
            b"".join(p.detach().numpy().tobytes() for p in agent.actor.parameters())
            for agent in pop
        ]

    assert len(set(weights(1))) == 4
    assert weights(1) == weights(1)
    assert not set(weights(1)) & set(weights(2))
    assert weights(None) != weights(None)
    pop = population(size=2)
    assert pop[0].net_config is not pop[1].net_config
    assert pop[0].net_config == NET_CONFIG


def test_state_dim_is_a_number_of_states_or_a_shape() -> None:
    assert population(state_dim=np.int64(7), one_hot=True)[0].getAction(np.int64(6)) in (0, 1)
    images = {"arch": "cnn", "h_size": [8], "c_size": [2], "k_size": [3], "s_size": [1]}
    agent = population(state_dim=(3, 8, 8), net_config=images)[0]
    assert agent.getAction(np.zeros((5, 3, 8, 8), np.uint8)).shape == (5,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo": "dqn"}, r"algo: 'dqn' is not known.*Did you mean 'DQN'\?"),
        ({"algo": "PPO"}, "algo: 'PPO' is not known"),
        ({"INIT_HP": {"BATCHSIZE": 3}}, r"unknown key 'BATCHSIZE'.*Did you mean 'BATCH_SIZE'\?"),
        ({"INIT_HP": {"lr": 3}}, r"unknown key 'lr'"),
        ({"INIT_HP": {"BATCH_SIZE": 0}}, "batch_size"),
        ({"INIT_HP": {"BATCH_SIZE": 2.5}}, "batch_size"),
        ({"INIT_HP": {"LR": -1}}, "lr"),
        ({"INIT_HP": {"LR": float("nan")}}, "lr"),
        ({"INIT_HP": {"LEARN_STEP": 0}}, "learn_step"),
        ({"INIT_HP": {"GAMMA": 1.5}}, "gamma"),
        ({"INIT_HP": {"TAU": "x"}}, "tau"),
        ({"INIT_HP": {"MAX_GRAD_NORM": -1}}, "max_grad_norm"),
        ({"net_config": {"arch": "mpl"}}, r"Did you mean 'mlp'\?"),
        ({"net_config": {"arch": "mlp", "hsize": [3]}}, r"Did you mean 'h_size'\?"),
        ({"net_config": {"arch": "mlp", "h_size": [0]}}, "h_size|hidden_size"),
        ({"net_config": {"arch": "mlp", "h_size": []}}, "h_size|hidden_size"),
        ({"net_config": {"arch": "mlp", "activation": "rleu"}}, r"Did you mean 'relu'\?"),
        ({"net_config": "mlp"}, "net_config: expected a dict"),
        ({"population_size": 0}, "population_size"),
        ({"population_size": 2.0}, "population_size"),
        ({"action_dim": 0}, "action_dim"),
        ({"state_dim": (0,)}, "state_dim"),
        ({"state_dim": 2.5}, "state_dim"),
        ({"device": "cuda:99"}, "device"),
        ({"device": "gpu"}, "device"),
        ({"accelerator": object()}, "accelerator"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    if "cuda" in str(changes) and torch.cuda.device_count() > 99:
        pytest.skip("there is such a device")
    with pytest.raises(ConfigError, match=message):
        population(**changes)


def test_hyper_parameters_are_printed_one_line_an_agent(capsys: pytest.CaptureFixture[str]) -> None:
    pop = population(hp={"LR": 2e-3, "BATCH_SIZE": 48})
    pop[1].fitness.append(12.5)
    pop[1].mut = "weights"
    printHyperparams(pop)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for part in ("12.50", "2.00e-03", "48", "weights", pop[1].architecture):
        assert part in lines[2]


def test_on_a_terminal_a_long_mutation_is_continued_under_its_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pop = population()
    changes = "lr 0.00741 -> 0.00254, batch_size 16 -> 20, learn_step 3 -> 4, tau 0.001 -> 0.003"
    pop[0].mut = changes
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    printHyperparams(pop)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    column = lines[0].index("network")
    first = [line[column:] for line in lines[1:] if not line[:column].strip() or " 0 " in line]
    assert " ".join(first).endswith(f"/ {changes}")


def test_the_score_of_a_population_is_drawn_and_saved(tmp_path: Path) -> None:
    pop = population()
    for agent in pop:
        agent.fitness, agent.steps = [1.0, 2.0, 5.0], [10, 20, 30]
    figure = plotPopulationScore(pop, tmp_path / "new" / "scores.png")
    assert (tmp_path / "new" / "scores.png").stat().st_size > 1000
    lines = figure.axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[10, 20, 30]] * 2
    assert list(lines[0].get_ydata()) == [1.0, 2.0, 5.0]
    assert lines[0].get_linewidth() > lines[1].get_linewidth() + 1  # both are seen
    assert "steps" in figure.axes[0].get_xlabel()
    assert plotPopulationScore([]).axes


def test_a_loop_that_counts_no_steps_is_drawn_by_evaluation() -> None:
    pop = population()
    for agent in pop:
        agent.fitness = [1.0, 2.0, 5.0]
    axes = plotPopulationScore(pop).axes[0]
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3]
    assert axes.get_xlabel() == "evaluation"


def test_the_history_picture_shows_best_mean_and_mutations() -> None:
    nan, inf = float("nan"), float("inf")
    values = {0: [1.0, 3.0], 1: [nan, 5.0], 2: [nan, -inf]}
    rows = [
        {"generation": g, "global_steps": 100 * (g + 1), "fitness": f, "mutation": m}
        for g, fitnesses in values.items()
        for f, m in zip(fitnesses, ("elite", "lr 0.001 -> 0.002"), strict=True)
    ]
    axes = fitness_history(rows, "a run", target=4.0).axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    np.testing.assert_equal(drawn["best"], [3.0, 5.0, nan])
    np.testing.assert_equal(drawn["mean"], [2.0, 5.0, nan])
    assert drawn["target"] == [4.0, 4.0]
    marked = {c.get_label(): len(c.get_offsets()) for c in axes.collections}
    assert marked == {"elite": 3, "learning rate": 3}  # kinds that did not occur have no entry


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (None, "none"),
        ("", "none"),
        ("none (add_layer: 3 layers)", "none"),
        ("elite", "elite"),
        ("weights", "weights"),
        ("add_node(1, 16)", "architecture"),
        ("lr 0.001 -> 0.002", "learning rate"),
        ("batch_size 64 -> 77", "other setting"),
    ],
)
def test_the_kind_of_a_mutation_is_read_from_its_label(label: str | None, kind: str) -> None:
    assert kind_of(label) == kind


def test_the_keys_of_init_hp_are_those_of_the_readme_and_of_every_setting() -> None:
    assert set(EVERY_KEY) <= {*AGENT_KEYS, *RUN_KEYS}
    assert set(AGENT_KEYS) >= {"ALPHA", "MIN_ACTION", "MAX_ACTION", "HUBER", "POLICY_FREQ"}
    assert not set(AGENT_KEYS) & {"STATE_DIM", "NET_CONFIG", "INDEX", "DEVICE", "SEED", "MUTATION"}


def test_every_kind_of_change_is_drawn() -> None:
    labels = ["lr 0.1 -> 0.2", "tau 0.1 -> 0.2", "lr 0.1 -> 0.2, tau 0.1 -> 0.2", "restart", "none",
              "add_layer()", "weights", "elite"]  # fmt: skip
    rows = [
        {"generation": 0, "global_steps": 1, "fitness": float(i), "mutation": label}
        for i, label in enumerate(labels)
    ]
    axes = fitness_history(rows, "a run").axes[0]
    drawn = [y for points in axes.collections for _, y in points.get_offsets()]
    drawn += [y for line in axes.lines if line.get_linestyle() == "None" for y in line.get_ydata()]
    assert sorted(drawn) == list(range(len(labels)))
