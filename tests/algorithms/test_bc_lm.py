"""Behavioural cloning, and what every language agent must do."""

from __future__ import annotations

import base64
import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.errors import CheckpointError, ConfigError
from agilerl.hpo.mutation import Mutations
from tests.algorithms.cases import assert_plain, assert_same
from tests.algorithms.language_cases import (
    ACTIONS,
    AGENTS,
    NET,
    agent_of,
    differing,
    random_games,
    tensors,
    trained,
)

BOTH = pytest.mark.parametrize("cls", AGENTS)
PREFIXES = np.array([[1, 3, 4, 6], [1, 5, 5, 7]])


def mutations(cls: type[Any], **probabilities: float) -> Mutations:
    kinds = ("no_mutation", "architecture", "parameters", "activation", "rl_hp")
    weights = {kind: probabilities.get(kind, 0.0) for kind in kinds}
    return Mutations(
        cls.algo,
        **weights,
        new_layer_prob=0.5,
        rl_hp_selection=["lr", "batch_size"],
        mutation_sd=0.1,
        arch="gpt",
        rand_seed=0,
    )


def loss_of(agent: Any, seed: int = 9) -> float:
    """Return the loss on a batch, without learning anything."""
    return float(copy.deepcopy(agent).learn(random_games(seed=seed)))


# ------------------------------------------------------------------------------------------ cloning


def test_it_learns_to_choose_as_the_data_did() -> None:
    agent = agent_of(BC_LM)
    games = random_games(64)
    columns = np.arange(games.tokens.shape[1])
    copied = np.where(games.action_mask, 3 + (columns % 3), games.tokens)
    games = type(games)(copied, games.lengths, games.action_mask, games.rewards, games.terminals)
    first = agent.learn(games)
    for _ in range(60):
        last = agent.learn(games)
    assert first == pytest.approx(math.log(3), abs=0.1)
    assert last < 0.05
    assert agent.getAction(np.array([1])).tolist() == [4, 5]


def test_the_loss_is_the_mean_over_the_agents_own_tokens() -> None:
    agent, games = agent_of(BC_LM), random_games(8)
    with torch.no_grad():
        logits = agent.lm(torch.from_numpy(games.tokens))
    chosen = logits[..., list(ACTIONS)].log_softmax(-1)
    rows, columns = np.nonzero(games.action_mask)
    picked = chosen[rows, columns - 1, games.tokens[rows, columns] - 3]
    assert agent.learn(games) == pytest.approx(-float(picked.mean()), abs=1e-6)


def test_a_token_that_is_no_action_is_refused_in_the_data() -> None:
    games = random_games(4)
    games.tokens[0, 1] = 7
    with pytest.raises(ConfigError, match="7 was chosen in the data"):
        agent_of(BC_LM).learn(games)


# ----------------------------------------------------------------------------- every language agent


@BOTH
def test_only_action_tokens_are_ever_chosen(cls: type[Any]) -> None:
    agent = trained(cls)
    prefixes = np.repeat(PREFIXES, 50, axis=0)
    for temperature in (0.0, 1.0, 5.0):
        tokens = agent.decode(prefixes, temperature)
        assert tokens.shape == (100, 2)
        assert set(tokens.ravel().tolist()) <= set(ACTIONS)


@BOTH
def test_one_state_gives_one_action_and_a_batch_a_batch(cls: type[Any]) -> None:
    agent = trained(cls)
    assert agent.getAction(PREFIXES).shape == (2, 2)
    assert agent.getAction(PREFIXES[0]).tolist() == agent.getAction(PREFIXES)[0].tolist()
    padded = np.array([[1, 3, 4, 6], [0, 0, 0, 1]])
    mask = np.array([[1, 1, 1, 1], [0, 0, 0, 1]])
    found = agent.getAction(padded, attention_mask=mask)
    assert found[1].tolist() == agent.getAction(np.array([1])).tolist()


@BOTH
def test_greedy_acting_draws_nothing_and_exploring_does(cls: type[Any]) -> None:
    agent = trained(cls)
    before = agent.rng.bit_generator.state
    first = agent.getAction(PREFIXES)
    assert agent.rng.bit_generator.state == before
    assert np.array_equal(agent.getAction(PREFIXES), first)
    assert agent.lm.training
    many = np.repeat(PREFIXES[:1], 64, axis=0)
    explored = agent.getAction(many, epsilon=1.0)
    assert len(np.unique(explored, axis=0)) > 1
    assert agent.rng.bit_generator.state != before


@BOTH
def test_accumulated_parts_give_the_gradient_of_the_whole_batch(cls: type[Any]) -> None:
    whole, parts = (agent_of(cls, accumulate=n, lr=1e-3) for n in (1, 5))
    games = random_games(18)
    assert whole.learn(games) == pytest.approx(parts.learn(games), abs=1e-5)
    for name, value in tensors(whole).items():
        if "exp_avg_sq" not in name and "module" in name:
            torch.testing.assert_close(value, tensors(parts)[name], atol=2e-4, rtol=0)
    moments = [n for n in tensors(whole) if n.endswith(" exp_avg")]
    assert moments
    for name in moments:
        torch.testing.assert_close(tensors(whole)[name], tensors(parts)[name], atol=1e-6, rtol=1e-3)


@BOTH
def test_bfloat16_is_close_to_float32(cls: type[Any]) -> None:
    plain, autocast = (agent_of(cls, bf16=flag) for flag in (False, True))
    games = random_games(16)
    assert autocast.learn(games) == pytest.approx(plain.learn(games), rel=0.05)
    assert all(value.dtype == torch.float32 for value in tensors(autocast).values())


@BOTH
def test_the_schedule_scales_the_learning_rate_and_lr_stays(cls: type[Any]) -> None:
    agent = trained(cls)
    agent.schedule(0.25)
    assert agent.policy_network.lr == pytest.approx(0.25e-2)
    assert agent.lr == 1e-2
    before = tensors(agent)
    agent.schedule(0.0)
    agent.learn(random_games(seed=5))
    assert [n for n in differing(before, tensors(agent)) if " module " in n] == []


@BOTH
def test_a_clone_is_equal_independent_and_draws_apart(cls: type[Any]) -> None:
    agent = trained(cls)
    twin = agent.clone(index=5)
    assert (twin.index, twin.parent, twin.settings()) == (5, agent.index, agent.settings())
    assert differing(tensors(agent), tensors(twin)) == []
    twin.learn(random_games(seed=3))
    assert differing(tensors(agent), tensors(twin))
    many = np.repeat(PREFIXES, 64, axis=0)
    twin = agent.clone()
    assert not np.array_equal(agent.decode(many, 3.0), twin.decode(many, 3.0))


@BOTH
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "checkpoint"])
def test_a_copy_learns_as_its_original(cls: type[Any], way: str, tmp_path: Path) -> None:
    agent = trained(cls)
    agent.lm.add_layer()
    if way == "checkpoint":
        agent.saveCheckpoint(tmp_path / "a.pt")
        twin = cls.load(tmp_path / "a.pt")
    else:
        twin = copy.deepcopy(agent) if way == "deepcopy" else pickle.loads(pickle.dumps(agent))
    assert differing(tensors(agent), tensors(twin)) == []
    assert np.array_equal(agent.getAction(PREFIXES), twin.getAction(PREFIXES))
    assert agent.learn(random_games(seed=4)) == twin.learn(random_games(seed=4))
    assert differing(tensors(agent), tensors(twin)) == []
    assert np.array_equal(agent.decode(PREFIXES, 2.0), twin.decode(PREFIXES, 2.0))


@BOTH
@pytest.mark.parametrize("kind", ["architecture", "parameters", "activation", "rl_hp"])
def test_after_every_kind_of_mutation_it_learns(cls: type[Any], kind: str) -> None:
    agent = trained(cls)
    mutate = mutations(cls, **{kind: 1.0})
    for _ in range(4):
        mutate.mutation([agent])
        before = tensors(agent)
        network = agent.policy_network
        held = {id(p) for group in network.optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in network.module.parameters()}
        for seed in (1, 2):  # what feeds a silent new block moves from the second step on
            assert np.isfinite(agent.learn(random_games(seed=seed)))
        changed = differing(before, tensors(agent))
        live = {f"actor module {name}" for name, _ in network.module.named_parameters()}
        assert live <= set(changed)


@BOTH
def test_growing_leaves_the_loss_as_it_is(cls: type[Any]) -> None:
    agent = trained(cls)
    before = loss_of(agent)
    for grow in ("add_layer", "add_node", "add_head"):
        assert getattr(agent.lm, grow)() is not None
        assert loss_of(agent) == pytest.approx(before, abs=1e-5)


@BOTH
def test_the_head_stays_tied_to_the_embedding(cls: type[Any], tmp_path: Path) -> None:
    agent = trained(cls)
    agent.lm.add_layer()
    agent.saveCheckpoint(tmp_path / "a.pt")
    for one in (agent, agent.clone(), cls.load(tmp_path / "a.pt")):
        weight = one.lm.layers["wte"].weight
        with torch.no_grad():
            hidden = one.lm.hidden(torch.tensor([[1, 3]]))
            weight.mul_(2)
            torch.testing.assert_close(one.lm.head(hidden), hidden @ weight.T)


@BOTH
def test_fitness_is_the_mean_return_of_greedy_games_and_a_diverged_agent_has_none(
    cls: type[Any],
) -> None:
    class Arena:
        def play(self, policy: Any) -> Any:
            self.tokens = policy(PREFIXES)
            return type("Games", (), {"returns": np.array([-1.0, -4.0])})

    agent, arena = trained(cls), Arena()
    assert agent.test(arena) == -2.5
    assert np.array_equal(arena.tokens, agent.getAction(PREFIXES))
    with torch.no_grad():
        agent.lm.layers["wte"].weight[0, 0] = torch.nan
    assert agent.test(arena) == -math.inf
    assert agent.fitness == [-2.5, -math.inf]


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    agent_of(ILQL).saveCheckpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="'ILQL', expected 'BC_LM'"):
        BC_LM.load(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": (3, 8)}, r"actions: .*\[0, 8\)"),
        ({"actions": ()}, "actions: expected at least one"),
        ({"net_config": {**NET, "n_layers": 2}}, "Did you mean 'n_layer'"),
        ({"net_config": {**NET, "arch": "mlp"}}, r"net_config\['arch'\]"),
        ({"net_config": 3}, "net_config: expected a dict"),
        ({"accumulate": 0}, "accumulate"),
        ({"batch_size": 0}, "batch_size"),
        ({"device": "cuda:99"}, "device"),
    ],
)
def test_bad_settings_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        agent_of(BC_LM, **changes)


def test_a_prompt_longer_than_the_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="block_size=12"):
        agent_of(BC_LM).getAction(np.full(11, 3))


@BOTH
def test_a_state_goes_on_with_the_same_dropout_and_clones_draw_their_own(cls: type[Any]) -> None:
    agent = trained(cls, net_config={**NET, "dropout": 0.3})
    assert len(agent.rng_owners) == 3
    twin, state = agent.clone(), agent.state_dict()
    assert_plain(state)
    rebuilt, stranger = cls.from_state_dict(state), trained(cls, 1, seed=9)
    stranger.load_state_dict(state)
    loss = agent.learn(random_games(seed=4))
    assert rebuilt.learn(random_games(seed=4)) == stranger.learn(random_games(seed=4)) == loss
    assert twin.learn(random_games(seed=4)) != loss
    for one in (rebuilt, stranger):
        assert_same(one.state_dict(), agent.state_dict())
        assert one.terms == agent.terms


def test_a_dropout_stream_of_another_type_of_device_goes_on_as_one_seeded_by_it() -> None:
    agent = trained(BC_LM, net_config={**NET, "dropout": 0.3})
    states = []
    for state in (b"0123456789abcdef", b"0123456789abcdeF"):  # a CUDA generator's has 16 bytes
        saved = agent.state_dict()
        saved["streams"][-1] = base64.b64encode(state).decode()
        states += [BC_LM.from_state_dict(saved).state_dict()["streams"][-1] for _ in "ab"]
    assert states[0] == states[1] != states[2] == states[3]


def test_streams_that_are_malformed_change_nothing() -> None:
    agent = trained(BC_LM)
    state = agent.state_dict()
    before = copy.deepcopy(state)
    for wrong in ("", "{", "%%%", base64.b64encode(b"").decode(), 3):
        with pytest.raises(CheckpointError, match="incomplete or inconsistent"):
            agent.load_state_dict({**state, "streams": [*state["streams"][:-1], wrong]})
    assert_same(agent.state_dict(), before)
