"""Where language runs start: drawn, from a checkpoint, from a Hugging Face model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.errors import CheckpointError, ConfigError
from agilerl.networks.evolvable_gpt import EvolvableGPT
from agilerl.training.language_config import (
    BCConfig,
    BCRunConfig,
    ILQLConfig,
    ILQLRunConfig,
    ModelConfig,
    PopulationConfig,
)
from agilerl.training.language_start import start_agents
from agilerl.wordle.tokenizer import WordleTokenizer

TOKENIZER = WordleTokenizer("plain")
TINY = ModelConfig(n_layer=1, n_embd=16, n_head=2, dim_feedfwd=24)


def cloned(directory: Path, **changes: Any) -> str:
    """Return the path of a clone's checkpoint."""
    (agent,) = start_agents(BCRunConfig(model=TINY, **changes), TOKENIZER)
    agent.lm.add_layer()
    path = directory / "bc.pt"
    agent.saveCheckpoint(path)
    return str(path)


def test_a_drawn_population_has_the_given_sizes_and_different_weights() -> None:
    config = BCRunConfig(model=TINY, population=PopulationConfig(size=2))
    one, two = start_agents(config, TOKENIZER)
    assert (one.index, two.index) == (0, 1)
    assert one.lm.spec.n_embd == 16
    assert one.lm.spec.dim_feedfwd == 24
    assert one.lm.spec.vocab_size == TOKENIZER.vocab_size
    assert one.actions == list(range(3, 29))
    assert not torch.equal(one.lm.layers["wte"].weight, two.lm.layers["wte"].weight)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [((), [2e-3] * 3), ((1e-4,), [1e-4] * 3), ((1e-4, 1e-2), [1e-4, 1e-2, 1e-4])],
    ids=["all agent.lr", "one for all", "in turn"],
)
def test_the_agents_of_a_population_start_with_its_learning_rates(
    rates: tuple[float, ...], expected: list[float]
) -> None:
    population = PopulationConfig(size=3, lr=rates)
    config = BCRunConfig(model=TINY, agent=BCConfig(lr=2e-3), population=population)
    agents = start_agents(config, TOKENIZER)
    assert [agent.lr for agent in agents] == expected
    assert [agent.policy_network.lr for agent in agents] == expected


def test_a_checkpoint_takes_the_limits_of_the_run_and_agents_draw_for_themselves(
    tmp_path: Path,
) -> None:
    path = cloned(tmp_path)
    model = ModelConfig(load=path, max_layers=2)
    for kind in (BCRunConfig, ILQLRunConfig):
        agents = start_agents(kind(model=model, population=PopulationConfig(size=2)), TOKENIZER)
        for agent in agents:
            assert agent.lm.spec.max_layers == 2
            assert agent.lm.add_layer() is None
        one, two = (agent.lm.rng.random(4).tolist() for agent in agents)
        assert one != two


def test_more_learning_rates_than_agents_are_refused() -> None:
    config = BCRunConfig(model=TINY, population=PopulationConfig(size=1, lr=(1e-4, 1e-3)))
    with pytest.raises(
        ConfigError, match=r"population\.lr: 2 learning rates for population\.size=1"
    ):
        start_agents(config, TOKENIZER)


def test_ilql_starts_from_a_clone_with_one_key(tmp_path: Path) -> None:
    path = cloned(tmp_path)
    config = ILQLRunConfig(model=ModelConfig(load=path), agent=ILQLConfig(lr=3e-4))
    (agent,) = start_agents(config, TOKENIZER)
    saved = BC_LM.load(path)
    assert agent.lm.spec.n_layer == 2
    assert agent.lr == agent.policy_network.lr == 3e-4
    ids = torch.tensor([[1, 4, 5]])
    with torch.no_grad():
        assert torch.equal(agent.lm(ids), saved.lm(ids))


@pytest.mark.parametrize("kind", [BCRunConfig, ILQLRunConfig])
def test_a_run_goes_on_from_a_checkpoint_of_its_own_kind(kind: Any, tmp_path: Path) -> None:
    (agent,) = start_agents(kind(model=TINY), TOKENIZER)
    agent.lm.add_node()
    agent.saveCheckpoint(tmp_path / "own.pt")
    config = kind(model=ModelConfig(load=str(tmp_path / "own.pt")), seed=5)
    (again,) = start_agents(config, TOKENIZER)
    saved, found = (
        agent.policy_network.state_dict()["module"],
        again.policy_network.state_dict()["module"],
    )
    assert saved.keys() == found.keys()
    assert all(torch.equal(saved[key], found[key]) for key in saved)


def test_a_checkpoint_of_another_format_or_size_is_refused(tmp_path: Path) -> None:
    path = cloned(tmp_path)
    load = ILQLRunConfig(model=ModelConfig(load=path))
    with pytest.raises(CheckpointError, match=r"vocab_size: expected 420 .*slots.*found 33"):
        start_agents(load, WordleTokenizer("slots"))
    wrong = ILQLRunConfig(model=ModelConfig(load=path, n_embd=32))
    with pytest.raises(CheckpointError, match=r"model.n_embd: expected 32, found 16"):
        start_agents(wrong, TOKENIZER)


def test_a_missing_checkpoint_is_named() -> None:
    config = ILQLRunConfig(model=ModelConfig(load="absent/best.pt"))
    with pytest.raises(CheckpointError, match=r"absent/best.pt: no such checkpoint"):
        start_agents(config, TOKENIZER)


def test_cloning_from_an_improved_policy_is_refused(tmp_path: Path) -> None:
    (agent,) = start_agents(ILQLRunConfig(model=TINY), TOKENIZER)
    assert isinstance(agent, ILQL)
    agent.saveCheckpoint(tmp_path / "ilql.pt")
    config = BCRunConfig(model=ModelConfig(load=str(tmp_path / "ilql.pt")))
    with pytest.raises(CheckpointError, match="'ILQL', expected 'BC_LM'"):
        start_agents(config, TOKENIZER)


def hugging_face(directory: Path, block_size: int = 64) -> EvolvableGPT:
    net = EvolvableGPT(2, 50, 16, 2, 64, block_size, min_layers=1, seed=3)
    net.to_hf().save_pretrained(directory)
    return net


def test_a_hugging_face_model_gives_its_blocks_and_not_its_tokens(tmp_path: Path) -> None:
    net = hugging_face(tmp_path / "gpt2")
    config = BCRunConfig(model=ModelConfig(load=str(tmp_path / "gpt2"), dropout=0.0))
    (agent,) = start_agents(config, TOKENIZER)
    theirs, ours = net.named_tensors(), agent.lm.named_tensors()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name != "wte.weight":
            assert torch.equal(ours[name], value), name
    rows = ours["wte.weight"]
    assert rows.shape == (TOKENIZER.vocab_size, 16)
    assert float(rows.std()) == pytest.approx(float(theirs["wte.weight"].std()), rel=0.2)
    assert agent.getAction([[1]]).shape == (1, 5)


def test_a_hugging_face_model_that_is_too_short_for_a_game_is_refused(tmp_path: Path) -> None:
    hugging_face(tmp_path / "gpt2", block_size=32)
    config = BCRunConfig(model=ModelConfig(load=str(tmp_path / "gpt2")))
    with pytest.raises(ConfigError, match=r"block_size: expected at least 62 .*found 32"):
        start_agents(config, TOKENIZER)
