"""The same promises on every kind of device that torch may see; those that are not there skip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.algorithms import language_cases
from tests.algorithms.cases import CASES, Case, differing, edit_everywhere, edits_of, tensors
from tests.devices import each_device

#: float32 sums are in another order on other devices, and three steps of Adam pass that on.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def learnt(case: Case, device: str, **changes: Any) -> tuple[Any, list[float]]:
    """Return an agent that has learnt from three batches on a device, and its losses."""
    agent = case.agent(device=device, **changes)
    batches = [[x.to(device) for x in case.batch(seed)] for seed in range(3)]
    return agent, [float(np.asarray(agent.learn(batch)).mean()) for batch in batches]


def assert_lives_on(agent: Any, device: str) -> None:
    for owned in agent.networks.values():
        assert {p.device.type for p in owned.module.parameters()} == {device}
        assert {p.device.type for p in owned.target.parameters()} == {device}


@each_device
@each_case
def test_an_agent_learns_there_as_on_the_cpu(case: Case, device: str) -> None:
    agent, losses = learnt(case, device)
    other, expected = learnt(case, "cpu")
    assert_lives_on(agent, device)
    assert losses == pytest.approx(expected, rel=1e-3, abs=1e-4)
    for name, value in tensors(other).items():
        torch.testing.assert_close(tensors(agent)[name].cpu(), value, **CLOSE, msg=name)
    before = tensors(case.agent(device=device))
    assert differing({key: tensors(agent)[key] for key in before}, before)


@each_device
@each_case
def test_it_acts_there_on_arrays(case: Case, device: str) -> None:
    agent, _ = learnt(case, device)
    actions = agent.getAction(case.states(7), 0)
    assert isinstance(actions, np.ndarray)
    assert len(actions) == 7
    assert np.isfinite(actions).all()


@each_device
@each_case
def test_clones_and_other_shapes_stay_there_and_learn(case: Case, device: str) -> None:
    agent, _ = learnt(case, device)
    for method in edits_of(agent):
        child = agent.clone(index=9)
        assert differing(tensors(child), tensors(agent)) == []
        before = child.architecture
        edit_everywhere(child, method)
        assert child.architecture != before
        child.learn([x.to(device) for x in case.batch(4)])
        assert_lives_on(child, device)


@each_device
@each_case
def test_a_checkpoint_goes_there_and_to_the_cpu(case: Case, device: str, tmp_path: Path) -> None:
    agent, _ = learnt(case, device)
    agent.saveCheckpoint(tmp_path / "agent.pt")
    on_cpu = type(agent).load(tmp_path / "agent.pt", device="cpu")
    again = type(agent).load(tmp_path / "agent.pt", device=device)
    assert_lives_on(on_cpu, "cpu")
    assert_lives_on(again, device)
    assert differing(tensors(again), tensors(agent)) == []
    batch = case.batch(5)
    on_cpu.learn(batch)
    again.learn([x.to(device) for x in batch])
    for name, value in tensors(on_cpu).items():
        torch.testing.assert_close(tensors(again)[name].cpu(), value, **CLOSE, msg=name)


@each_device
@pytest.mark.parametrize("cls", language_cases.AGENTS)
def test_a_language_agent_learns_there_as_on_the_cpu(cls: Any, device: str, tmp_path: Path) -> None:
    agent = language_cases.trained(cls, device=device)
    other = language_cases.tensors(language_cases.trained(cls))
    found = language_cases.tensors(agent)
    assert found.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(found[name].cpu(), value, **CLOSE, msg=name)
    for owned in agent.networks.values():
        assert {p.device.type for p in owned.module.parameters()} == {device}
    agent.saveCheckpoint(tmp_path / "agent.pt")
    again = cls.load(tmp_path / "agent.pt", device=device)
    assert language_cases.differing(language_cases.tensors(again), found) == []
    assert np.isfinite(float(again.learn(language_cases.random_games(seed=7))))
