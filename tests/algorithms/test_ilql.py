"""Implicit Language Q-Learning."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms import language_losses as losses
from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.algorithms.language_agent import steps_of
from agilerl.data.language_dataset import TokenGames, pack_games
from agilerl.errors import CheckpointError
from tests.algorithms.language_cases import NET, agent_of, random_games, trained

PREFIXES = np.array([[1, 3, 4, 6], [1, 5, 5, 7]])


# --------------------------------------------------------------------------- from the cloned policy


def test_it_starts_from_a_cloned_policy_and_plays_as_it_before_training(tmp_path: Path) -> None:
    cloned = trained(BC_LM, 20, net_config={**NET, "n_layer": 3})
    cloned.saveCheckpoint(tmp_path / "bc.pt")
    agent = agent_of(ILQL)
    agent.clone_policy(tmp_path / "bc.pt")
    many = np.repeat(PREFIXES, 40, axis=0)
    for beta in (0.0, 3.0):
        found = agent.decode(many, 1.0, rng=np.random.default_rng(0), beta=beta, min_p=0.0)
        assert np.array_equal(found, cloned.decode(many, 1.0, rng=np.random.default_rng(0)))
    before = copy.deepcopy(agent.lm.named_tensors())
    agent.learn(random_games())
    assert any(not torch.equal(v, before[k]) for k, v in agent.lm.named_tensors().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net_config": {**NET, "vocab_size": 9}}, "vocab_size: expected 8, found 9"),
        ({"net_config": {**NET, "n_embd": 24}}, "n_embd: expected 16, found 24"),
        ({"actions": (3, 4)}, "chose among other tokens"),
    ],
)
def test_a_cloned_policy_that_does_not_fit_is_refused_and_nothing_changes(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    agent_of(BC_LM, **change).saveCheckpoint(tmp_path / "bc.pt")
    agent = agent_of(ILQL)
    before = copy.deepcopy(agent.lm.named_tensors())
    with pytest.raises(CheckpointError, match=message):
        agent.clone_policy(tmp_path / "bc.pt")
    assert all(torch.equal(v, before[k]) for k, v in agent.lm.named_tensors().items())


def test_a_checkpoint_that_is_no_cloned_policy_is_refused(tmp_path: Path) -> None:
    agent_of(ILQL).saveCheckpoint(tmp_path / "ilql.pt")
    with pytest.raises(CheckpointError, match="'ILQL', expected 'BC_LM'"):
        agent_of(ILQL).clone_policy(tmp_path / "ilql.pt")


# ----------------------------------------------------------------------------------------- learning


def parts(agent: Any, games: TokenGames) -> dict[str, torch.Tensor]:
    """Return the terms of the loss, computed apart from the agent's own code."""
    steps = steps_of(games, agent.gamma)
    module, target = agent.policy_network.module, agent.policy_network.target
    hidden = module.lm.hidden(torch.from_numpy(games.tokens))
    rows, columns = (torch.from_numpy(i) for i in np.nonzero(games.action_mask))
    here = hidden[rows, columns - 1]
    numbers = torch.from_numpy(games.tokens)[rows, columns] - 3
    values = module.v(here)[:, 0]
    q1, q2 = module.q(here)
    least = torch.minimum(*target(here))[torch.arange(len(numbers)), numbers]
    following = torch.cat([values[1:], torch.zeros(1)]).masked_fill(steps.ended, 0.0)
    goal = steps.rewards + agent.gamma * following
    twins = [(q[torch.arange(len(numbers)), numbers] - goal.detach()) ** 2 for q in (q1, q2)]
    return {
        "v": losses.expectile(values, least, agent.expectile),
        "q": twins[0] + twins[1],
        "cql": agent.cql * sum(q.logsumexp(1) - q[torch.arange(len(q)), numbers] for q in (q1, q2)),
    }


def test_the_terms_are_those_of_the_paper() -> None:
    agent = trained(ILQL, 5, cql=0.3, expectile=0.8, gamma=0.9)
    games = random_games(8, seed=3)
    found = agent.losses(steps_of(games, agent.gamma))
    for name, expected in parts(agent, games).items():
        torch.testing.assert_close(found[name], expected, msg=name)
    assert set(found) == {"v", "q", "cql", "policy"}


def test_target_heads_follow_the_q_heads_by_tau_and_values_are_the_least_of_theirs() -> None:
    agent = trained(ILQL, 2, tau=0.25)
    before = {k: v.clone() for k, v in agent.policy_network.target.state_dict().items()}
    agent.learn(random_games(seed=8))
    online = agent.policy_network.module.q.state_dict()
    for name, value in agent.policy_network.target.state_dict().items():
        torch.testing.assert_close(value, before[name].lerp(online[name], 0.25))
    hidden = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        least, _ = agent.values(hidden)
        q1, q2 = agent.policy_network.target(hidden)
    assert torch.equal(least, torch.minimum(q1, q2))
    assert (q1 < q2).any()
    assert (q2 < q1).any()


def test_at_first_q_is_regressed_on_the_returns_of_the_data() -> None:
    agent = agent_of(ILQL, monte_carlo=2, gamma=0.5, policy_weight=0.0, cql=0.0)
    games = random_games(8, seed=1)
    steps = steps_of(games, 0.5)
    start = agent.losses(steps)["q"]
    torch.testing.assert_close(start, 2 * steps.returns**2)  # all heads start at 0
    agent.learn_count = 2
    torch.testing.assert_close(agent.losses(steps)["q"], 2 * steps.rewards**2)


def test_terms_of_weight_zero_are_left_out() -> None:
    agent = agent_of(ILQL, policy_weight=0.0, cql=0.0)
    assert set(agent.losses(steps_of(random_games(), 0.9))) == {"v", "q"}


# ----------------------------------------------------------------------- a tabular decision process

A, B, C, X, Y = 3, 4, 5, 6, 7
#: Of every six games in which the first token is chosen, so many get the reply X.
REPLIES_X = {A: 4, B: 2, C: 0}
FIRST = {A: 0.0, B: -0.5, C: 0.2}
SECOND = {
    X: {A: 1.5, B: 0.0, C: -1.0},
    Y: {A: -1.0, B: 0.6, C: 0.0},
}
#: The second reward also depends on the first token, so that a state is more than its reply.
BONUS = {A: 0.0, B: 1.0, C: 0.0}
GAMMA = 0.9


def second_reward(first: int, reply: int, second: int) -> float:
    return SECOND[reply][second] + (BONUS[first] if reply == X else 0.0)


def every_game() -> TokenGames:
    """Return games in which every token is chosen equally often in every state."""
    rows = []
    for first, lot, second in product((A, B, C), range(6), (A, B, C)):
        reply = X if lot < REPLIES_X[first] else Y
        rewards = [0.0, FIRST[first], 0.0, second_reward(first, reply, second)]
        mask = [False, True, False, True]
        rows.append(([1, first, reply, second], mask, rewards, [False, False, False, True]))
    return pack_games(rows, 0)


def value_iteration() -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], int]]:
    """Return the optimal value and action of every state, a state being the tokens so far."""
    values: dict[tuple[int, ...], float] = {}
    best: dict[tuple[int, ...], int] = {}
    for first, reply in product((A, B, C), (X, Y)):
        q = {a: second_reward(first, reply, a) for a in (A, B, C)}
        best[1, first, reply] = max(q, key=q.__getitem__)
        values[1, first, reply] = max(q.values())
    q = {}
    for first in (A, B, C):
        share = REPLIES_X[first] / 6
        after = share * values[1, first, X] + (1 - share) * values[1, first, Y]
        q[first] = FIRST[first] + GAMMA * after
    best[1,] = max(q, key=q.__getitem__)
    values[1,] = max(q.values())
    return values, best


def test_on_a_tabular_process_it_finds_the_optimal_values_and_policy() -> None:
    values, best = value_iteration()
    assert best[1,] != max(FIRST, key=FIRST.__getitem__)  # looking one step ahead is not enough
    agent = agent_of(
        ILQL,
        net_config={**NET, "n_layer": 1, "n_embd": 32, "dim_feedfwd": 64},
        action_length=1,
        lr=1e-2,
        tau=0.1,
        gamma=GAMMA,
        expectile=0.98,
        beta=50.0,
        cql=0.0,
        min_p=0.0,
    )
    games = every_game()
    for update in range(250):
        agent.schedule(1.0 if update < 175 else 0.2)
        agent.learn(games)
    reachable = {s for s in values if len(s) == 1 or REPLIES_X[s[1]] > 0 or s[2] == Y}
    assert len(reachable) == 6
    for state in reachable:
        with torch.no_grad():
            hidden = agent.lm.hidden(torch.tensor([state]))[:, -1]
            q, v = agent.values(hidden)
        assert float(v) == pytest.approx(values[state], abs=0.15), state
        assert float(q.max()) == pytest.approx(values[state], abs=0.15), state
        assert agent.getAction(np.array(state)).tolist() == [best[state]], state
    # the policy that was cloned chooses evenly: what was found is not in it
    drawn = agent.decode(np.ones((600, 1), int), 1.0, rng=np.random.default_rng(0), beta=0.0)
    assert np.bincount(drawn[:, 0], minlength=6)[3:].min() > 120
