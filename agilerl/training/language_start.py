"""Where the agents of a language run start."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import torch

from agilerl import checkpoint
from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.algorithms.language_agent import LanguageAgent
from agilerl.errors import CheckpointError, ConfigError, check_int
from agilerl.networks.evolvable_gpt import EvolvableGPT
from agilerl.seeding import derive, generator
from agilerl.training.language_config import BCRunConfig, ILQLRunConfig, ModelConfig
from agilerl.wordle.tokenizer import WordleTokenizer
from agilerl.wordle.vocabulary import WORD_LENGTH

#: The model that is drawn where nothing is loaded and a size is not given.
SMALL: dict[str, Any] = {
    "n_layer": 2,
    "n_embd": 128,
    "n_head": 4,
    "dim_feedfwd": None,
    "dropout": 0.0,
    "activation": "gelu",
}

AnyRunConfig = BCRunConfig | ILQLRunConfig


def start_agents(config: AnyRunConfig, tokenizer: WordleTokenizer) -> list[LanguageAgent]:
    """Return the population of a run.

    Raises:
        CheckpointError: if ``model.load`` is no checkpoint of this run's tokens or sizes.
        ConfigError: if it can't be found, or a setting can't be used.
    """
    algorithm: type[LanguageAgent] = ILQL if isinstance(config, ILQLRunConfig) else BC_LM
    load = config.model.load
    is_checkpoint = load is not None and (load.endswith(".pt") or Path(load).is_file())
    agents = []
    for index, lr in enumerate(start_rates(config)):
        seed = derive(config.seed, "agent", index)
        if load is not None and is_checkpoint:
            net_config = saved_shape(load, config.model, tokenizer)
        elif load is not None:
            net_config = pretrained(load, config.model, tokenizer, seed)
        else:
            net_config = drawn(config.model, tokenizer)
        agent = algorithm(
            net_config,
            actions=torch.from_numpy(tokenizer.action_tokens).nonzero()[:, 0].tolist(),
            action_length=WORD_LENGTH,
            index=index,
            device=config.device,
            seed=seed,
            **dataclasses.asdict(config.agent) | {"lr": lr},
        )
        if load is not None and is_checkpoint:
            load_weights(agent, load)
            apply_limits(agent, config.model, seed)
        agents.append(agent)
    return agents


def start_rates(config: AnyRunConfig) -> list[float]:
    """Return the learning rate that each agent starts with."""
    size, rates = check_int("population.size", config.population.size), config.population.lr
    if len(rates) > size:
        raise ConfigError(
            f"population.lr: {len(rates)} learning rates for population.size={size} agents; give"
            " one for each agent at most."
        )
    return list(itertools.islice(itertools.cycle(rates or (config.agent.lr,)), size))


def drawn(model: ModelConfig, tokenizer: WordleTokenizer) -> dict[str, Any]:
    """Return the net_config of a new model of the given sizes."""
    sizes = {key: given(model)[key] if key in given(model) else SMALL[key] for key in SMALL}
    if sizes["dim_feedfwd"] is None:
        sizes["dim_feedfwd"] = 4 * sizes["n_embd"]
    return {
        **sizes,
        "vocab_size": tokenizer.vocab_size,
        "block_size": tokenizer.block_size,
        **limits(model),
    }


def given(model: ModelConfig) -> dict[str, Any]:
    """Return the sizes that the configuration gives."""
    values = {key: getattr(model, key) for key in SMALL}
    return {key: value for key, value in values.items() if value is not None}


def limits(model: ModelConfig) -> dict[str, int]:
    """Return what mutations leave."""
    return {"min_layers": model.min_layers, "max_layers": model.max_layers}


def agree(load: str, model: ModelConfig, shape: dict[str, Any]) -> None:
    """Raise ``CheckpointError`` if the configuration gives a size that ``shape`` has not."""
    for key, value in given(model).items():
        if shape[key] != value:
            raise CheckpointError(
                f"{load}: model.{key}: expected {value}, found {shape[key]}; leave the sizes out"
                " to take those of the checkpoint."
            )


def saved_shape(load: str, model: ModelConfig, tokenizer: WordleTokenizer) -> dict[str, Any]:
    """Return the net_config of a checkpoint of this library."""
    payload = checkpoint.load(load)
    try:
        shape = dict(payload["settings"]["net_config"])
        found = {key: shape[key] for key in ("vocab_size", "block_size", *SMALL)}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{load}: not a checkpoint of a language agent.") from error
    for key in ("vocab_size", "block_size"):
        expected = getattr(tokenizer, key)
        wrong = found[key] != expected if key == "vocab_size" else found[key] < expected
        if wrong:
            raise CheckpointError(
                f"{load}: {key}: expected {expected} (the tokenizer {tokenizer.name!r}), found"
                f" {found[key]}; choose the format that it was trained with as data.format."
            )
    agree(load, model, found)
    return shape


def load_weights(agent: LanguageAgent, load: str) -> None:
    """Take over what was learnt in a checkpoint: all of it, or the cloned policy (ILQL).

    The settings stay those of the run.
    """
    algo = checkpoint.load(load)["algo"]
    if isinstance(agent, ILQL) and algo == "BC_LM":
        agent.clone_policy(load)
        return
    saved = type(agent).load(load, agent.device)
    if saved.actions != agent.actions:
        raise CheckpointError(f"{load}: its agent chose among other tokens than this run's.")
    agent.networks = saved.networks
    agent.learn_count = saved.learn_count
    agent.lr = agent.lr  # the run's own reaches the optimiser


def apply_limits(agent: LanguageAgent, model: ModelConfig, seed: int) -> None:
    """Give the networks that came from a checkpoint the run's limits, and streams of their own."""
    networks = [network for owned in agent.networks.values() for network in owned.evolvables]
    for position, network in enumerate(networks):
        layers = network.spec.n_layer
        network.spec = dataclasses.replace(
            network.spec,
            min_layers=min(model.min_layers, layers),
            max_layers=max(model.max_layers, layers),
        )
        network.rng = generator(seed, "network", position)


def pretrained(
    load: str, model: ModelConfig, tokenizer: WordleTokenizer, seed: int
) -> dict[str, Any]:
    """Return the net_config of a Hugging Face GPT-2, its token embeddings drawn anew.

    The tokens of the game are not those of GPT-2, so only the blocks and the positions carry over;
    the new embeddings are drawn as wide as the old ones are.
    """
    dropout = {} if model.dropout is None else {"dropout": model.dropout}
    net = EvolvableGPT.from_pretrained(load, **limits(model), **dropout)
    shape = {key: value for key, value in net.init_dict.items() if key != "device"}
    agree(load, model, shape)
    if shape["block_size"] < tokenizer.block_size:
        raise ConfigError(
            f"{load}: block_size: expected at least {tokenizer.block_size} (the longest game),"
            f" found {shape['block_size']}; choose a larger model."
        )
    values = net.named_tensors()
    old = values["wte.weight"]
    rng = generator(seed, "embeddings")
    rows = rng.standard_normal((tokenizer.vocab_size, old.shape[1]), dtype="float32")
    values["wte.weight"] = torch.from_numpy(rows) * old.std() + old.mean(0)
    return {**shape, "vocab_size": tokenizer.vocab_size, "weights": values}
