"""Mutations: what each kind changes, what it leaves alone, and how often it is drawn."""

from __future__ import annotations

import copy
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.errors import CheckpointError, ConfigError
from agilerl.hpo.mutation import Mutations
from tests.agents import OwnAgent

KINDS = ("no_mutation", "architecture", "parameters", "activation", "rl_hp")
CNN = {"arch": "cnn", "h_size": [16], "c_size": [4, 4], "k_size": [3, 3], "s_size": [1, 1]}
MLP = {"arch": "mlp", "h_size": [16, 16]}


def mutations(only: str | None = None, algo: str = "DQN", **changes: Any) -> Mutations:
    arguments: dict[str, Any] = {kind: float(kind == only) for kind in KINDS}
    arguments.update(
        algo=algo,
        new_layer_prob=0.5,
        rl_hp_selection=["lr", "batch_size", "learn_step"],
        mutation_sd=0.1,
        rand_seed=0,
    )
    return Mutations(**{**arguments, **changes})


def batch_for(agent: Any, seed: int = 0) -> list[Any]:
    rng, n = np.random.default_rng(seed), 16
    states, successors = rng.random((2, n, *agent.state_dim), dtype=np.float32)
    discrete = agent.algo == "DQN"
    actions = rng.integers(agent.action_dim, size=(n, 1)) if discrete else rng.random((n, 2)) - 0.5
    values = [states, actions, rng.random((n, 1)), successors, rng.random((n, 1)) < 0.3]
    return [torch.from_numpy(np.asarray(value)).float() for value in values]


def make(kind: str, **settings: Any) -> Any:
    config = {"net_config": CNN if "cnn" in kind else MLP, "seed": 1, **settings}
    shape = (3, 8, 8) if "cnn" in kind else (4,)
    return DDPG(shape, 2, False, **config) if "ddpg" in kind else DQN(shape, 3, False, **config)


AGENTS = ["dqn mlp", "dqn cnn", "ddpg mlp", "ddpg cnn"]


def weights(agent: Any) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": p.detach().clone()
        for name, network in agent.networks.items()
        for key, p in network.module.named_parameters()
    }


def targets(agent: Any) -> list[torch.Tensor]:
    return [p.clone() for net in agent.networks.values() for p in net.target.parameters()]


# ----------------------------------------------------------------------------------- the five kinds


def test_kinds_are_drawn_by_their_normalised_weights() -> None:
    chances = {"no_mutation": 4, "architecture": 2, "parameters": 2, "activation": 0, "rl_hp": 2}
    mutation = mutations(**chances)
    drawn = Counter[str]()
    names = ["none", "architecture", "weights", "activation", "rl_hp"]
    mutation._kinds = [lambda presented, name=name: name for name in names]
    pop = [OwnAgent(i) for i in range(4000)]
    for agent in pop:
        agent.lr = 1e-3  # type: ignore[attr-defined]
    drawn.update(agent.mut for agent in mutation.mutation(pop))
    shares = [drawn[name] / 4000 for name in names]
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.2, 0, 0.2], atol=0.03)
    assert drawn["activation"] == 0


def test_new_layer_prob_chooses_layers_against_nodes() -> None:
    agent = make("dqn mlp")
    for chance in (0.0, 0.25, 1.0):
        mutation = mutations("architecture", new_layer_prob=chance)
        labels = [mutation.mutation([agent])[0].mut for _ in range(100)]
        kinds = [re.search(r"_(layer|node)", label) for label in labels]
        layers = np.mean([kind is not None and kind[1] == "layer" for kind in kinds])
        assert None not in kinds
        assert abs(layers - chance) <= (0.15 if chance % 1 else 0)


def test_no_mutation_changes_nothing() -> None:
    agent = make("dqn mlp")
    before = weights(agent), agent.hyperparameters
    assert mutations("no_mutation").mutation([agent])[0].mut == "none"
    assert agent.hyperparameters == before[1]
    assert all(torch.equal(value, before[0][name]) for name, value in weights(agent).items())


@pytest.mark.parametrize("kind", AGENTS)
def test_parameter_noise_is_on_a_tenth_of_each_matrix_of_every_network(kind: str) -> None:
    agent = make(kind)
    before, old_targets = weights(agent), targets(agent)
    assert mutations("parameters", rand_seed=3).mutation([agent])[0].mut == "weights"
    convolutions = 0
    for name, new in weights(agent).items():
        changed = new != before[name]
        if new.dim() == 1:
            assert not changed.any(), f"{name}: biases stay"
            continue
        convolutions += new.dim() == 4
        share = max(1, round(0.1 * new.numel()))
        assert 0 < int(changed.sum()) <= share, name
        assert int(changed.sum()) >= 0.9 * share, name
    assert convolutions == (0 if "mlp" in kind else 2 * len(agent.networks))
    for old, new in zip(old_targets, targets(agent), strict=True):
        assert torch.equal(old, new), "targets are left as they are"


def test_mutation_sd_is_the_relative_size_of_the_noise() -> None:
    for sd in (0.1, 0.5):
        agent = make("dqn mlp", net_config={"arch": "mlp", "h_size": [256, 256]})
        before = weights(agent)["actor.layers.linear_1.weight"]
        mutations("parameters", mutation_sd=sd).mutation([agent])
        after = weights(agent)["actor.layers.linear_1.weight"]
        ratio = (after / before)[after != before] - 1
        assert abs(ratio.mean()) < 0.1 * sd
        assert abs(ratio.std() / sd - 1) < 0.06
    silent = make("dqn mlp")
    before_all = weights(silent)
    mutations("parameters", mutation_sd=0.0).mutation([silent])
    assert all(torch.equal(value, before_all[name]) for name, value in weights(silent).items())


def test_activation_mutations_draw_from_relu_elu_gelu() -> None:
    agent, mutation, seen = make("ddpg mlp"), mutations("activation", algo="DDPG"), set()
    for _ in range(40):
        mutation.mutation([agent])
        found = {net.module.spec.activation for net in agent.networks.values()}
        assert len(found) == 1, "actor and critic change together"
        seen |= found
    assert seen == {"relu", "elu", "gelu"}
    assert agent.actor.spec.output_activation == "tanh"


def test_one_hyper_parameter_changes_drawn_uniformly() -> None:
    mutation, counts, agent = mutations("rl_hp"), Counter[str](), make("dqn mlp")
    for _ in range(600):
        agent.batch_size, agent.lr, agent.learn_step = 64, 1e-3, 5
        before = agent.hyperparameters
        mutation.mutation([agent])
        changed = [name for name, value in agent.hyperparameters.items() if value != before[name]]
        assert len(changed) == 1
        assert agent.mut.startswith(f"{changed[0]} ")
        counts[changed[0]] += 1
    assert set(counts) == {"lr", "batch_size", "learn_step"}
    assert all(abs(count - 200) < 60 for count in counts.values())


def test_bounds_include_where_an_agent_is_for_that_agent_only() -> None:
    starts = (0.5, 4000), (1e-8, 2), (1e-3, 64)
    mutation = mutations("rl_hp", rl_hp_selection=["lr", "batch_size"])
    before = dict(mutation.ranges)
    seen = []
    for _ in range(60):
        pop = [make("dqn mlp", lr=lr, batch_size=size) for lr, size in starts]
        mutation.mutation(pop)
        seen.append([(agent.lr, agent.batch_size) for agent in pop])
    high, low, within = zip(*seen, strict=True)
    assert 0.1 < min(lr for lr, _ in high) < max(lr for lr, _ in high) == 0.5
    assert {size for _, size in high} == {3200, 4000}
    assert 1e-8 == min(lr for lr, _ in low) < max(lr for lr, _ in low) < 1e-7
    assert all(1e-5 <= lr <= 1e-2 for lr, _ in within)
    assert mutation.ranges == before  # one agent's rate widens no other's range
    first = make("dqn mlp", batch_size=256)
    narrow = mutations("rl_hp", rl_hp_selection=["batch_size"], ranges={"batch_size": (8, 128)})
    assert narrow.mutation([first])[0].batch_size in (205, 256)


def test_a_limit_is_kept_though_the_range_would_allow_more() -> None:
    mutation = mutations("rl_hp", rl_hp_selection=["batch_size"])
    mutation.limit("batch_size", 70)
    mutation.limit("lr", 1.0)  # not in the selection: nothing to limit
    agent, seen = make("dqn mlp", batch_size=64), set()
    for _ in range(30):
        agent.batch_size = 64
        seen.add(mutation.mutation([agent])[0].batch_size)
    assert seen == {51, 70}


def test_an_lr_mutation_reaches_the_optimiser_and_keeps_its_moments() -> None:
    agent = make("ddpg mlp", lr=1e-3)
    agent.learn(batch_for(agent))
    before = [
        {k: v.clone() for k, v in net.optimizer.state[p].items()}
        for net in agent.networks.values()
        for p in net.module.parameters()
    ]
    mutations("rl_hp", algo="DDPG", rl_hp_selection=["lr"]).mutation([agent])
    assert agent.lr != 1e-3
    rates = [group["lr"] for net in agent.networks.values() for group in net.optimizer.param_groups]
    assert rates == [agent.lr] * 2
    after = [
        net.optimizer.state[p] for net in agent.networks.values() for p in net.module.parameters()
    ]
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)


# ---------------------------------------------------------------------- what holds after every kind


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("only", ["architecture", "parameters", "activation", "rl_hp"])
def test_after_every_kind_the_optimiser_is_live_weights_change_and_targets_move(
    kind: str, only: str
) -> None:
    agent = make(kind, lr=1e-3, tau=0.1)
    if "ddpg" in kind:
        agent.policy_freq = 1
    mutation = mutations(only, algo=agent.algo)
    for round_ in range(4):
        agent.learn(batch_for(agent, round_))
        mutation.mutation([agent])
        for net in agent.networks.values():
            live = {id(p) for p in net.module.parameters()}
            held = [id(p) for group in net.optimizer.param_groups for p in group["params"]]
            assert set(held) == live
            assert len(held) == len(live)
        before, old_targets = weights(agent), targets(agent)
        agent.learn(batch_for(agent, 50 + round_))
        for name, network in agent.networks.items():
            moved = [
                not torch.equal(p, before[f"{name}.{key}"])
                for key, p in network.module.named_parameters()
            ]
            assert any(moved), f"{name} froze after {agent.mut}"
        assert any(not torch.equal(o, n) for o, n in zip(old_targets, targets(agent), strict=True))


@pytest.mark.parametrize("kind", ["ddpg mlp", "ddpg cnn"])
def test_all_networks_get_the_same_structural_choice(kind: str) -> None:
    agent, mutation = make(kind), mutations("architecture", algo="DDPG")
    seen = set()
    for _ in range(25):
        mutation.mutation([agent])
        actor, critic = agent.actor.spec, agent.critic.spec
        assert actor.hidden_size == critic.hidden_size, agent.mut
        for name in ("channel_size", "kernel_size", "stride_size"):
            assert getattr(actor, name, None) == getattr(critic, name, None), agent.mut
        seen.add(agent.mut.split("(")[0])
    assert len(seen) >= (4 if "mlp" in kind else 5), "several edits were made"


def test_the_readme_s_small_network_can_shrink_but_never_vanishes() -> None:
    agent = make("dqn mlp", net_config={"arch": "mlp", "h_size": [32, 32]})
    mutation, smallest = mutations("architecture", rand_seed=5), 64
    for _ in range(150):
        mutation.mutation([agent])
        sizes = agent.actor.spec.hidden_size
        assert len(sizes) >= 1
        assert min(sizes) >= 1
        smallest = min(smallest, sum(sizes))
    assert smallest < 64


def test_an_edit_beyond_the_limits_is_a_no_op_that_says_so() -> None:
    config = {"arch": "mlp", "h_size": [16], "max_hidden_layers": 1, "min_hidden_layers": 1}
    agent = make("dqn mlp", net_config=config)
    before = weights(agent)
    mutations("architecture", new_layer_prob=1.0).mutation([agent])
    assert agent.mut.startswith("none (")
    assert "layer" in agent.mut
    assert all(torch.equal(value, before[name]) for name, value in weights(agent).items())


def test_marked_elites_are_left_alone_and_all_others_change() -> None:
    pop = [make("dqn mlp", seed=i) for i in range(4)]
    pop[2].elite = True
    before = [weights(agent) for agent in pop]
    result = mutations("parameters").mutation(pop)
    assert result == pop
    same = [
        all(torch.equal(value, old[name]) for name, value in weights(agent).items())
        for agent, old in zip(pop, before, strict=True)
    ]
    assert same == [False, False, True, False]
    assert [agent.mut for agent in pop] == ["weights", "weights", "elite", "weights"]


def test_of_those_that_stay_the_first_is_the_elite_and_the_others_survive() -> None:
    pop = [make("dqn mlp", seed=i) for i in range(4)]
    for agent in pop[:3]:
        agent.elite = True
    mutations("parameters").mutation(pop)
    assert [agent.mut for agent in pop] == ["elite", "survivor", "survivor", "weights"]


def test_rand_seed_is_honoured() -> None:
    def labels(**seed: Any) -> list[str]:
        mutation = mutations(None, **dict.fromkeys(KINDS, 1.0), **seed)
        pop = [make("dqn mlp", seed=i) for i in range(4)]
        return [agent.mut for _ in range(5) for agent in mutation.mutation(pop)]

    assert labels(rand_seed=1) == labels(rand_seed=1)
    assert labels(rand_seed=1) != labels(rand_seed=2)
    assert labels(rand_seed=None, seed=1) == labels(rand_seed=1)


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo": "DQM"}, r"algo: 'DQM' is not known.*Did you mean 'DQN'\?"),
        ({"algo": 3}, "algo"),
        ({"algo": {"critics": []}}, "'actor' is missing"),
        ({"algo": {"actor": {"target": "t"}}}, "without 'eval'"),
        ({"algo": {"actor": {"eval": "a", "optimiser": "o"}}}, "Did you mean 'optimizer'"),
        ({"algo": {"actor": {"eval": "a"}, "critic": []}}, "Did you mean 'critics'"),
        ({"no_mutation": -0.1}, "no_mutation"),
        ({"architecture": float("nan")}, "architecture"),
        ({"rl_hp": float("inf")}, "rl_hp"),
        ({"parameters": "0.2"}, "parameters"),
        ({"no_mutation": 0.0}, "all 0"),
        ({"new_layer_prob": 1.5}, "new_layer_prob"),
        ({"new_layer_prob": -0.5}, "new_layer_prob"),
        ({"mutation_sd": -1}, "mutation_sd"),
        ({"rl_hp": 1, "rl_hp_selection": []}, "rl_hp_selection: empty"),
        ({"rl_hp_selection": ["lrr"]}, "no range is known for 'lrr'"),
        ({"arch": "mpl"}, "Did you mean 'mlp'"),
        ({"device": "cuda:99"}, "device"),
        ({"accelerator": object()}, "accelerator"),
        ({"rand_seed": -1}, "seed"),
        ({"rand_seed": 1.5}, "seed"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mutations("no_mutation", **changes)


def test_a_hyper_parameter_that_the_agents_lack_is_named() -> None:
    mutation = mutations("rl_hp", rl_hp_selection=["policy_freq"])
    with pytest.raises(ConfigError, match="the agents have no 'policy_freq'"):
        mutation.mutation([make("dqn mlp")])


# ------------------------------------------------------------------------------------------- state


def test_a_state_goes_on_with_draws_and_ranges() -> None:
    one, other = mutations("rl_hp"), mutations("rl_hp", rand_seed=5)
    one.limit("batch_size", 100)
    state = one.state_dict()
    kept = copy.deepcopy(state)
    other.load_state_dict(state)
    assert other.ranges == one.ranges
    for mutation in (one, other):
        agents = [make("dqn mlp") for _ in range(5)]
        labels = [agent.mut for agent in mutation.mutation(agents)]
        assert labels == [agent.mut for agent in agents]
        kept.setdefault("labels", labels)
        assert kept["labels"] == labels
    assert state == {key: value for key, value in kept.items() if key != "labels"}


def test_a_state_says_what_the_settings_are() -> None:
    def settings(**changes: Any) -> Any:
        return mutations("rl_hp", **changes).state_dict()["settings"]

    assert settings() == settings(rand_seed=3)
    others = [{"mutation_sd": 0.2}, {"no_mutation": 0.1}, {"algo": "CQN"}, {"new_layer_prob": 0.1}]
    assert all(settings(**change) != settings() for change in others)


@pytest.mark.parametrize(
    "change",
    [
        {"stream": "{"},
        {"stream": '{"bit_generator": "PCG64", "state": {"state": 1, "inc": 3}}'},
        {"ranges": {}},
        {"ranges": {"lr": {"low": float("nan"), "high": 1.0}}},
        {"ranges": {"lr": {"low": 2.0, "high": 1.0}}},
        {"ranges": {"lr": {"low": 0.1, "high": 1.0, "colour": 3}}},
    ],
    ids=str,
)
def test_a_malformed_state_changes_nothing(change: dict[str, Any]) -> None:
    mutation = mutations("rl_hp", rl_hp_selection=["lr"])
    before = mutation.state_dict()
    with pytest.raises(CheckpointError, match="mutations: incomplete or inconsistent"):
        mutation.load_state_dict({**before, **change})
    assert mutation.state_dict() == before
    with pytest.raises(CheckpointError):
        mutation.load_state_dict({})
