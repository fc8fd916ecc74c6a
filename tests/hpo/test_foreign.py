"""Mutations of a user's own agents, whose networks a dict names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agilerl.errors import ConfigError
from agilerl.hpo.foreign import ForeignAgent, check_layout
from agilerl.hpo.mutation import Mutations
from tests.agents import (
    ACTOR_CRITIC_LAYOUT,
    Q_LAYOUT,
    OwnActorCritic,
    OwnQAgent,
    evolvable,
    plain_module,
)

KINDS = ("no_mutation", "architecture", "parameters", "activation", "rl_hp")


def mutations(algo: Any, *kinds: str, **changes: Any) -> Mutations:
    arguments: dict[str, Any] = {kind: float(kind in kinds) for kind in KINDS}
    arguments.update(new_layer_prob=0.5, rl_hp_selection=["lr"], mutation_sd=0.1, rand_seed=0)
    return Mutations(algo, **{**arguments, **changes})


def batch(seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    parts = (
        rng.normal(size=(32, 4)),
        rng.integers(3, size=(32, 1)),
        rng.normal(size=(32, 1)),
        rng.normal(size=(32, 4)),
        rng.random((32, 1)) < 0.2,
    )
    return [torch.from_numpy(np.asarray(part)).float() for part in parts]


def held(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(p) for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("kinds", [("architecture",), ("parameters",), ("activation",), KINDS])
def test_an_own_agent_with_evolvable_networks_goes_on_learning(kinds: tuple[str, ...]) -> None:
    agent, mutation = OwnQAgent(0, 4, 3, evolvable), mutations(Q_LAYOUT, *kinds)
    optimizer, target = agent.optimizer, agent.actor_target
    for round_ in range(8):
        agent.learn(batch(round_))
        mutation.mutation([agent])
        assert agent.optimizer is optimizer, "it is edited in place"
        assert agent.actor_target is target
        assert sorted(held(optimizer)) == sorted(id(p) for p in agent.actor.parameters())
        assert agent.actor.spec == target.spec
        before = [p.clone() for p in agent.actor.parameters()]
        old_target = [p.clone() for p in target.parameters()]
        agent.learn(batch(100 + round_))
        assert any(
            not torch.equal(a, b) for a, b in zip(before, agent.actor.parameters(), strict=True)
        )
        assert any(
            not torch.equal(a, b) for a, b in zip(old_target, target.parameters(), strict=True)
        )


def test_growth_of_an_own_network_preserves_its_function_and_moments() -> None:
    agent, x = OwnQAgent(0, 4, 3, evolvable), batch()[0]
    agent.learn(batch())
    before, target_before = agent.actor(x), agent.actor_target(x)
    state = agent.optimizer.state[agent.actor.layers["linear_0"].weight]["exp_avg"].clone()
    for seed in range(20):
        mutations(Q_LAYOUT, "architecture", new_layer_prob=0.0, rand_seed=seed).mutation([agent])
        if agent.mut.startswith("add_node"):  # type: ignore[attr-defined]
            break
        agent = OwnQAgent(0, 4, 3, evolvable)
        agent.learn(batch())
    else:
        pytest.fail("no seed added a node")
    assert (agent.actor(x) - before).abs().max() < 1e-6
    assert (agent.actor_target(x) - target_before).abs().max() < 1e-6
    weight = agent.actor.layers["linear_0"].weight
    moments = agent.optimizer.state[weight]["exp_avg"]
    assert moments.shape == weight.shape
    assert torch.equal(moments[:16], state)
    assert not moments[16:].any()


def test_one_optimiser_that_holds_two_networks_holds_both_after_every_mutation() -> None:
    agent = OwnActorCritic(0, 4, 3)
    mutation = mutations(ACTOR_CRITIC_LAYOUT, "architecture", "parameters", "activation")
    labels = set()
    for round_ in range(15):
        agent.learn(batch(round_))
        mutation.mutation([agent])
        labels.add(agent.mut.split("(")[0])  # type: ignore[attr-defined]
        live = [id(p) for net in (agent.actor, agent.critic) for p in net.parameters()]
        assert sorted(held(agent.both)) == sorted(live)
        assert agent.actor.spec.hidden_size == agent.critic.spec.hidden_size
        for net in (agent.actor, agent.critic):
            before = [p.clone() for p in net.parameters()]
            agent.learn(batch(99))
            assert any(
                not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)
            ), f"frozen after {labels}"
    assert len(labels) > 3


@pytest.mark.parametrize("edit", ["add_layer", "remove_layer", "add_node", "change_activation"])
def test_parameters_stay_in_their_groups_of_an_optimiser(edit: str) -> None:
    agent = OwnQAgent(0, 4, 3, evolvable)
    named = dict(agent.actor.named_parameters())
    kinds = {kind: [p for n, p in named.items() if n.endswith(kind)] for kind in ("weight", "bias")}
    agent.optimizer = torch.optim.AdamW(
        [{"params": kinds["weight"], "weight_decay": 0.1}, {"params": kinds["bias"], "lr": 1e-4}]
    )
    agent.learn(batch())
    presented = ForeignAgent(agent, check_layout(Q_LAYOUT))
    args = ("tanh",) if edit == "change_activation" else ()
    getattr(agent.actor, edit)(*args)
    presented.policy_network.sync()
    live = dict(agent.actor.named_parameters())
    for group, kind in zip(agent.optimizer.param_groups, ("weight", "bias"), strict=True):
        expected = {id(p) for name, p in live.items() if name.endswith(kind)}
        assert {id(p) for p in group["params"]} == expected
    agent.learn(batch(1))


def test_an_optimiser_that_another_network_shares_must_be_named_for_both() -> None:
    agent = OwnActorCritic(0, 4, 3)
    critic = {k: v for k, v in ACTOR_CRITIC_LAYOUT["critics"][0].items() if k != "optimizer"}
    layout = {**ACTOR_CRITIC_LAYOUT, "critics": [critic]}
    with pytest.raises(ConfigError, match=r"'critic' has no 'optimizer'.*name that optimiser"):
        mutations(layout, "architecture").mutation([agent])


def test_a_learning_rate_reaches_the_optimiser_of_an_own_agent() -> None:
    agent = OwnQAgent(0, 4, 3, plain_module, torch.optim.SGD)
    mutations(Q_LAYOUT, "rl_hp").mutation([agent])
    assert agent.lr != 1e-3
    assert agent.optimizer.param_groups[0]["lr"] == agent.lr


def test_plain_modules_and_sgd_take_noise_and_hyper_parameters() -> None:
    agent = OwnQAgent(0, 4, 3, plain_module, torch.optim.SGD)
    agent.learn(batch())
    before = [p.clone() for p in agent.actor.parameters()]
    mutations(Q_LAYOUT, "parameters").mutation([agent])
    changed = [not torch.equal(a, b) for a, b in zip(before, agent.actor.parameters(), strict=True)]
    assert changed == [True, False, True, False]
    assert held(agent.optimizer) == [id(p) for p in agent.actor.parameters()]


@pytest.mark.parametrize("kind", ["architecture", "activation"])
def test_plain_modules_keep_their_shape_and_the_label_says_so(kind: str) -> None:
    agent = OwnQAgent(0, 4, 3, plain_module)
    before = {name: p.clone() for name, p in agent.actor.named_parameters()}
    mutations(Q_LAYOUT, kind).mutation([agent])
    assert agent.mut == "none (no network that can change its shape)"
    assert all(torch.equal(p, before[name]) for name, p in agent.actor.named_parameters())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"eval": "policy"}, "'policy' should be a Module, it is NoneType"),
        ({"eval": "actor", "target": "lr"}, "'lr' should be a Module, it is float"),
        ({"eval": "actor", "optimizer": "actor"}, "'actor' should be a Optimizer"),
    ],
)
def test_a_name_that_the_agent_lacks_is_named(names: dict[str, str], message: str) -> None:
    agent = OwnQAgent(0, 4, 3, evolvable)
    with pytest.raises(ConfigError, match=message):
        mutations({"actor": names}, "parameters").mutation([agent])
