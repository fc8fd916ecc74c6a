"""What every agent must do.  A test module makes a class of this one and gives it a ``case``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.hpo.mutation import Mutations
from tests.algorithms.cases import (
    ACTIONS,
    MLP,
    Case,
    Walk,
    assert_learns,
    assert_optimisers_hold_the_live_parameters,
    assert_plain,
    assert_same,
    differing,
    edit_everywhere,
    edits_of,
    mutable_parts,
    tensors,
    trained,
)

KINDS = ("no_mutation", "architecture", "parameters", "activation", "rl_hp")


class AgentConformance:
    """The suite; it runs once for each ``case``."""

    @pytest.fixture
    def agent(self, case: Case) -> Any:
        return trained(case)

    # ------------------------------------------------------------------------------- construction

    def test_histories_are_empty_at_construction(self, case: Case) -> None:
        agent = case.agent(index=7, mutation="first")
        assert (agent.scores, agent.fitness, agent.steps) == ([], [], [0])
        assert (agent.mut, agent.index, agent.parent) == ("first", 7, None)

    def test_defaults_are_never_mutable(self, case: Case) -> None:
        config = {**case.net_config, "h_size": [8, 8]}
        one, two = (
            case.cls(case.state_dim, ACTIONS, case.one_hot, net_config=config) for _ in "ab"
        )
        assert mutable_parts(one).keys().isdisjoint(mutable_parts(two))
        one.net_config["h_size"].append(1)
        assert config["h_size"] == two.net_config["h_size"] == [8, 8]
        if case.net_config is MLP:
            for agent in (case.cls(case.state_dim, ACTIONS, case.one_hot) for _ in "ab"):
                assert agent.net_config == {"arch": "mlp", "h_size": [64, 64]}
                agent.net_config["h_size"].append(1)

    def test_the_same_seed_gives_the_same_agent_and_another_seed_another(self, case: Case) -> None:
        one, two, other = (trained(case, seed=seed) for seed in (4, 4, 5))
        assert differing(tensors(one), tensors(two)) == []
        weights = [n for n in differing(tensors(one), tensors(other)) if n.endswith("weight")]
        assert len(weights) == sum(n.endswith("weight") for n in tensors(one))
        states = case.states(64)
        same = one.getAction(states, 0.5)
        assert np.array_equal(same, two.getAction(states, 0.5))
        assert not np.array_equal(same, one.getAction(states, 0.5))

    def test_without_a_seed_every_agent_is_another(self, case: Case) -> None:
        one, two = (tensors(case.agent(seed=None)) for _ in "ab")
        assert {n for n in one if " module " in n} <= set(differing(one, two))

    # ------------------------------------------------------------------------------------- acting

    def test_an_unbatched_state_gives_an_unbatched_action(self, case: Case, agent: Any) -> None:
        states = case.states(5)
        actions = agent.getAction(states)
        single = [agent.getAction(state) for state in states]
        shape = () if case.cls.discrete else (ACTIONS,)
        assert isinstance(actions, np.ndarray)
        assert actions.shape == (5, *shape)
        assert [np.shape(action) for action in single] == [shape] * 5
        np.testing.assert_allclose(actions, np.stack(single), rtol=1e-5, atol=1e-6)
        assert agent.getAction(states[:1]).shape == (1, *shape)
        np.testing.assert_array_equal(actions, agent.getAction(torch.as_tensor(states)))

    def test_acting_and_testing_leave_every_stream_weight_and_mode_alone(
        self, case: Case, agent: Any
    ) -> None:
        for owned in agent.networks.values():
            owned.module.train()
            list(owned.module.modules())[-1].eval()  # a mode that somebody chose
        before = tensors(agent), self.streams(agent), self.modes(agent)
        env = Walk(case, length=5)
        assert agent.test(env, loop=2, max_steps=50) == 5.0
        agent.getAction(case.states(4))
        after = tensors(agent), self.streams(agent), self.modes(agent)
        assert differing(before[0], after[0]) == []
        assert before[1:] == after[1:]
        assert agent.fitness == [3.0, 5.0]

    @staticmethod
    def streams(agent: Any) -> list[Any]:
        assert len(agent.rng_owners) == 1 + len(agent.networks)
        return [owner.rng.bit_generator.state for owner in agent.rng_owners]

    @staticmethod
    def modes(agent: Any) -> list[bool]:
        owned = agent.networks.values()
        modules = [part for o in owned for net in (o.module, o.target) for part in net.modules()]
        return [module.training for module in modules]

    # ----------------------------------------------------------------------------------- learning

    def test_learning_changes_the_weights_and_the_targets_move(
        self, case: Case, agent: Any
    ) -> None:
        assert_learns(agent, case.batch(9))
        assert_optimisers_hold_the_live_parameters(agent)

    def test_learning_writes_nothing_into_the_batch(self, case: Case, agent: Any) -> None:
        batch = case.batch(9)
        copies = [part.clone() for part in batch]
        agent.learn(batch)
        assert all(torch.equal(a, b) for a, b in zip(batch, copies, strict=True))

    def test_learn_takes_actions_and_dones_of_any_dtype(self, case: Case, agent: Any) -> None:
        other = copy.deepcopy(agent)
        states, actions, rewards, next_states, dones = case.batch(9)
        whole = actions.round()
        agent.learn([states, whole.float(), rewards, next_states, dones])
        other.learn([states, whole.long(), rewards, next_states, dones.bool()])
        assert differing(tensors(agent), tensors(other)) == []

    def test_learn_takes_arrays_as_well_as_tensors(self, case: Case, agent: Any) -> None:
        other = copy.deepcopy(agent)
        agent.learn(case.batch(9))
        other.learn([part.numpy() for part in case.batch(9)])
        assert differing(tensors(agent), tensors(other)) == []

    def test_setting_lr_reaches_every_optimiser_and_keeps_the_moments(self, agent: Any) -> None:
        before = tensors(agent)
        agent.lr = 3e-4
        rates = [g["lr"] for o in agent.networks.values() for g in o.optimizer.param_groups]
        assert rates == [3e-4] * len(agent.networks)
        assert agent.lr == agent.hyperparameters["lr"] == 3e-4
        assert differing(before, tensors(agent)) == []

    def test_the_size_of_a_step_follows_lr(self, case: Case, agent: Any) -> None:
        def step(lr: float) -> float:
            other = copy.deepcopy(agent)
            other.lr = lr
            before = tensors(other)
            other.learn(case.batch(9))
            after = tensors(other)
            name = next(n for n in before if " module " in n)
            return float((after[name] - before[name]).norm())

        assert step(2e-3) == pytest.approx(2 * step(1e-3), rel=1e-2)

    # ------------------------------------------------------------------------------------- copies

    def test_a_clone_has_every_setting_weight_moment_and_history(self, agent: Any) -> None:
        twin = agent.clone(index=9)
        assert twin.settings() == agent.settings()
        assert (twin.index, twin.parent, agent.index) == (9, 3, 3)
        assert agent.clone().index == 3
        for name in ("scores", "fitness", "steps", "mut", "learn_count", "elite", "device"):
            assert getattr(twin, name) == getattr(agent, name), name
        assert differing(tensors(twin), tensors(agent)) == []

    @pytest.mark.parametrize("way", ["clone", "deepcopy"])
    def test_a_copy_shares_no_list_dict_or_tensor(self, agent: Any, way: str) -> None:
        twin = agent.clone() if way == "clone" else copy.deepcopy(agent)
        mine, its = mutable_parts(agent), mutable_parts(twin)
        assert len(mine) > 30
        assert [mine[key] for key in mine.keys() & its.keys()] == []

    @pytest.mark.parametrize("way", ["clone", "deepcopy"])
    def test_a_copy_learns_as_its_original_and_apart_from_it(
        self, case: Case, agent: Any, way: str
    ) -> None:
        twin = agent.clone() if way == "clone" else copy.deepcopy(agent)
        twin.rng = copy.deepcopy(agent.rng)
        before = tensors(agent)
        assert_learns(twin, case.batch(9))
        assert_optimisers_hold_the_live_parameters(twin)
        assert differing(before, tensors(agent)) == []
        assert_learns(agent, case.batch(9))
        assert differing(tensors(twin), tensors(agent)) == []

    def test_clones_draw_from_streams_of_their_own(self, agent: Any) -> None:
        one, two = agent.clone(), agent.clone()
        states = [str(state) for a in (agent, one, two) for state in self.streams(a)]
        assert len(set(states)) == len(states)

    # -------------------------------------------------------------------- weights from elsewhere

    @pytest.mark.parametrize("assign", [False, True])
    def test_after_load_state_dict_the_agent_learns(
        self, case: Case, agent: Any, assign: bool
    ) -> None:
        other = case.agent(seed=8)
        for owned, source in zip(agent.networks.values(), other.networks.values(), strict=True):
            weights = {k: v.clone() for k, v in source.module.state_dict().items()}
            owned.module.load_state_dict(weights, assign=assign)
            owned.target.load_state_dict(copy.deepcopy(weights), assign=assign)
        agent.observation_scale = other.observation_scale
        np.testing.assert_array_equal(
            agent.getAction(case.states(9)), other.getAction(case.states(9))
        )
        assert_learns(agent, case.batch(9))
        assert_optimisers_hold_the_live_parameters(agent)

    def test_after_to_another_dtype_the_agent_learns_in_it(self, case: Case) -> None:
        agent = case.agent()
        for owned in agent.networks.values():
            owned.module.to(torch.float64)
            owned.target.to(torch.float64)
        assert_learns(agent, case.batch(9))
        assert_optimisers_hold_the_live_parameters(agent)
        learnt = [v for n, v in tensors(agent).items() if not n.endswith(" step")]
        assert {value.dtype for value in learnt} == {torch.float64}

    def test_a_checkpoint_gives_the_same_agent_back(
        self, case: Case, agent: Any, tmp_path: Path
    ) -> None:
        edit_everywhere(agent, edits_of(agent)[-2])
        agent.saveCheckpoint(tmp_path / "agent.pt")
        loaded = case.cls.load(tmp_path / "agent.pt")
        stranger = case.agent(seed=99, net_config={**case.net_config, "h_size": [8]}, gamma=0.5)
        stranger.loadCheckpoint(tmp_path / "agent.pt")
        for twin in (loaded, stranger):
            assert twin.settings() == agent.settings()
            for name in ("index", "mut", "scores", "fitness", "steps", "learn_count", "parent"):
                assert getattr(twin, name) == getattr(agent, name), name
            assert differing(tensors(twin), tensors(agent)) == []
            assert_optimisers_hold_the_live_parameters(twin)
        actions = self.go_on(case, agent)
        for twin in (loaded, stranger):
            np.testing.assert_array_equal(self.go_on(case, twin), actions)
            assert differing(tensors(twin), tensors(agent)) == []

    # --------------------------------------------------------------------------------------- state

    def test_a_state_is_plain_and_shares_nothing_with_the_agent(
        self, case: Case, agent: Any
    ) -> None:
        state = agent.state_dict()
        assert_plain(state)
        kept = copy.deepcopy(state)
        mine, its = mutable_parts(agent), mutable_parts(state)
        assert [its[key] for key in mine.keys() & its.keys()] == []
        agent.learn(case.batch(30))
        agent.getAction(case.states(4), 0.5)
        agent.scores.append(9.0)
        assert_same(state, kept)

    def test_a_state_of_the_same_shapes_is_taken_over_in_place(
        self, case: Case, agent: Any
    ) -> None:
        stranger = case.agent(seed=99, gamma=0.5, lr=0.5, index=9)
        stranger.learn(case.batch(5))
        parameters = [p for o in stranger.networks.values() for p in o.module.parameters()]
        stranger.load_state_dict(agent.state_dict())
        assert_same(stranger.state_dict(), agent.state_dict())
        live = [p for o in stranger.networks.values() for p in o.module.parameters()]
        assert all(p is q for p, q in zip(parameters, live, strict=True))
        assert stranger.lr == agent.lr == stranger.optimizer.param_groups[0]["lr"]
        self.assert_goes_on_alike(case, agent, stranger)

    def test_a_state_of_before_the_first_step_empties_the_optimiser(
        self, case: Case, agent: Any
    ) -> None:
        fresh = case.agent(seed=7)
        agent.load_state_dict(fresh.state_dict())
        assert_same(agent.state_dict(), fresh.state_dict())
        self.assert_goes_on_alike(case, fresh, agent)

    @pytest.mark.parametrize("way", ["load_state_dict", "from_state_dict"])
    def test_a_state_of_other_shapes_and_settings_is_taken_over(
        self, case: Case, agent: Any, way: str
    ) -> None:
        for method in edits_of(agent)[:3]:
            edit_everywhere(agent, method)
        agent.elite = True
        if way == "load_state_dict":
            other = case.agent(seed=9, net_config={**case.net_config, "h_size": [8]}, tau=0.5)
            other.load_state_dict(agent.state_dict())
        else:
            other = case.cls.from_state_dict(agent.state_dict())
        assert_same(other.state_dict(), agent.state_dict())
        self.assert_goes_on_alike(case, agent, other)

    @pytest.mark.parametrize("way", ["state", "deepcopy", "clone"])
    def test_double_precision_is_kept(self, case: Case, way: str) -> None:
        agent = case.agent()
        for owned in agent.networks.values():
            owned.module.to(torch.float64)
        agent.learn(case.batch())
        if way == "state":
            twin = case.agent(seed=5)
            twin.load_state_dict(agent.state_dict())
        else:
            twin = copy.deepcopy(agent) if way == "deepcopy" else agent.clone()
            twin.rng = copy.deepcopy(agent.rng)
        assert {p.dtype for o in twin.networks.values() for p in o.target.parameters()} == {
            torch.float64
        }
        for one in (agent, twin):
            one.learn(case.batch(1))
        assert differing(tensors(agent), tensors(twin)) == []

    def assert_goes_on_alike(self, case: Case, one: Any, other: Any) -> None:
        np.testing.assert_array_equal(self.go_on(case, one), self.go_on(case, other))
        assert_same(other.state_dict(), one.state_dict())

    @staticmethod
    def go_on(case: Case, agent: Any) -> Any:
        """Learn, grow with new random units, explore; return the actions."""
        agent.learn(case.batch(20))
        edit_everywhere(agent, agent.actor.NODE_EDITS[0])
        agent.learn(case.batch(21))
        return agent.getAction(case.states(32), 0.4)

    # ---------------------------------------------------------------------------------- evolution

    @pytest.mark.parametrize("kind", KINDS)
    def test_after_a_mutation_of_every_kind_the_agent_learns(
        self, case: Case, agent: Any, kind: str
    ) -> None:
        chances = {name: float(name == kind) for name in KINDS}
        mutations = Mutations(
            algo=case.cls.algo,
            new_layer_prob=0.5,
            rl_hp_selection=["lr", "batch_size", "learn_step"],
            mutation_sd=0.1,
            arch=case.net_config["arch"],
            rand_seed=1,
            **chances,
        )
        for seed in range(2):
            assert mutations.mutation([agent]) == [agent]
            assert_optimisers_hold_the_live_parameters(agent)
            assert_learns(agent, case.batch(seed))
        assert_optimisers_hold_the_live_parameters(agent)
        assert_learns(agent.clone(), case.batch(9))

    def test_after_every_edit_the_agent_learns(self, case: Case, agent: Any) -> None:
        for method in edits_of(agent):
            edited = copy.deepcopy(agent)
            edit_everywhere(edited, method)
            assert_optimisers_hold_the_live_parameters(edited)
            assert_learns(edited, case.batch(9))
            assert_optimisers_hold_the_live_parameters(edited)

    def test_after_every_change_of_activation_the_agent_learns(
        self, case: Case, agent: Any
    ) -> None:
        for activation in ("elu", "gelu", "tanh", "prelu", "relu"):
            edited = copy.deepcopy(agent)
            for owned in edited.networks.values():
                owned.evolvable.change_activation(activation)
            assert_optimisers_hold_the_live_parameters(edited)
            assert_learns(edited, case.batch(9))
