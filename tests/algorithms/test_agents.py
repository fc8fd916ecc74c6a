"""Every algorithm, on every kind of observation, on the kernel and on autograd."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from agilerl.networks import mlp_kernel
from tests.algorithms.cases import CASES, Case, digest, trained
from tests.algorithms.conformance import AgentConformance


class TestAgents(AgentConformance):
    """The suite, for every case."""

    @pytest.fixture(params=list(CASES))
    def case(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
        case = CASES[request.param]
        monkeypatch.setattr(mlp_kernel, "enabled", case.kernel)
        return case


ELSEWHERE = """
import json, pickle, sys
from pathlib import Path
from agilerl.networks import mlp_kernel
from tests.algorithms.cases import CASES, assert_learns, digest, trained

answers = {}
for name, agent in pickle.loads(Path(sys.argv[1]).read_bytes()).items():
    case = CASES[name]
    mlp_kernel.enabled = case.kernel
    arrived = digest(agent)
    assert_learns(agent, case.batch(9))
    answers[name] = [arrived, digest(agent), digest(trained(case))]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what another process makes of pickled agents, and of the same seeds."""
    agents = {}
    for name, case in CASES.items():
        mlp_kernel.enabled = case.kernel
        agents[name] = trained(case)
    mlp_kernel.enabled = True
    path = tmp_path_factory.mktemp("pickled") / "agents"
    path.write_bytes(pickle.dumps(agents))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, list[str]] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("name", CASES)
def test_a_pickled_agent_learns_in_another_process_as_it_would_here(
    name: str, elsewhere: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    monkeypatch.setattr(mlp_kernel, "enabled", case.kernel)
    agent = trained(case)
    arrived, learnt, _ = elsewhere[name]
    assert arrived == digest(agent)
    agent.learn(case.batch(9))
    assert learnt == digest(agent)


@pytest.mark.parametrize("name", CASES)
def test_one_seed_gives_the_same_bits_in_another_process(
    name: str, elsewhere: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp_kernel, "enabled", CASES[name].kernel)
    assert elsewhere[name][2] == digest(trained(CASES[name]))
