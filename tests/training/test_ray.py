"""Workers in a Ray cluster: the numbers are those of one process, whatever is lost."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agilerl.errors import ConfigError, EnvError
from agilerl.training.executors import InProcess, RayExecutor
from tests import jobs
from tests.training.test_executors import CASES, doomed, streams

ray = pytest.importorskip("ray")
#: Ray itself draws from the generator of ``random``; one local cluster at a time is enough.
pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.global_rng,
]


@pytest.fixture(autouse=True, scope="module")
def importable() -> Iterator[None]:
    """Let Ray's workers find the tests: the environments and agents in them are the user's own."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), before])
    yield
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def two(importable: None) -> Iterator[RayExecutor]:
    executor = RayExecutor(workers=2)
    yield executor
    executor.close()
    assert not ray.is_initialized()


@pytest.mark.parametrize("name", CASES)
def test_two_actors_give_the_same_hash(name: str, two: RayExecutor) -> None:
    assert CASES[name](two) == CASES[name](InProcess())
    assert two.lost == 0


def test_episodes_of_two_workers_overlap(tmp_path: Path, two: RayExecutor) -> None:
    task, pop = jobs.Meeting(tmp_path, 2), [jobs.Savable(i) for i in range(2)]
    two.train(task, pop, None, streams(0, 2))
    times = [(tmp_path / f"{slot}.times").read_text().split() for slot in range(2)]
    pids = {int(pid) for pid, _, _ in times}
    assert len(pids) == 2
    assert os.getpid() not in pids
    starts, ends = ([float(row[column]) for row in times] for column in (1, 2))
    assert max(starts) < min(ends)


def test_the_error_of_the_lowest_slot_arrives_as_itself(two: RayExecutor) -> None:
    pop = [jobs.Savable(i) for i in range(3)]
    with pytest.raises(jobs.OddError):
        two.train(jobs.Raising(), pop, None, streams(0, 3))
    assert [agent.learnt for agent in pop] == [0, 0, 0]
    assert [r.steps for r in two.train(jobs.Task(), pop, None, streams(4, 3))] == [4, 14, 24]


@pytest.mark.parametrize("what", ["killed", "hangs"])
def test_a_lost_worker_changes_no_number(
    what: str,
    tmp_path: Path,
    two: RayExecutor,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = two.lost
    monkeypatch.setattr(two, "env_timeout", 60.0 if what == "killed" else 10.0)
    result = doomed(tmp_path, what, two)
    assert (tmp_path / "mishap").exists()
    assert two.lost == before + 1
    assert "a Ray worker was lost" in caplog.text
    assert ("no sign of life for env_timeout=10 s" in caplog.text) == (what == "hangs")
    assert doomed(tmp_path, what, InProcess()) == result


@pytest.mark.parametrize("what", ["hangs in C", pytest.param("stopped", marks=pytest.mark.slow)])
def test_a_worker_that_cannot_even_answer_is_replaced(
    what: str, tmp_path: Path, two: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = two.lost
    monkeypatch.setattr(two, "env_timeout", 5.0)
    task, pop = jobs.Mishap(tmp_path, what), [jobs.Savable(i) for i in range(3)]
    assert [result.steps for result in two.train(task, pop, None, streams(6, 3))] == [6, 16, 26]
    assert [agent.learnt for agent in pop] == [1, 1, 1]
    assert two.lost == before + 1
    two.train(jobs.Meeting(tmp_path, 2), pop[:2], None, streams(7, 2))  # two are at work again


def test_a_slow_job_that_goes_on_is_no_loss(
    tmp_path: Path, two: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = two.lost
    monkeypatch.setattr(two, "env_timeout", 2.0)
    (agent,) = pop = [jobs.Savable()]
    two.train(jobs.Slow(5.0), pop, None, streams(0, 1))
    assert agent.learnt == 1
    assert two.lost == before


def test_three_losses_running_of_one_job_stop_the_run(tmp_path: Path, two: RayExecutor) -> None:
    task, pop = jobs.Mishap(tmp_path, "killed", times=3), [jobs.Savable(i) for i in range(3)]
    with pytest.raises(EnvError, match=r"episode 6 of slot 1: 3 Ray workers were lost running"):
        two.train(task, pop, None, streams(6, 3))
    assert [agent.learnt for agent in pop] == [0, 0, 0]


def test_what_cannot_travel_is_an_error_before_training(two: RayExecutor) -> None:
    with pytest.raises(EnvError, match=r"can't be copied to workers .*makeVectEnvs"):
        two.begin(Locked(), [jobs.Savable()], None)
    with pytest.raises(ConfigError, match="has no state_dict"):
        two.begin(jobs.Task(), [jobs.OwnAgent()], None)


class Threads(jobs.Task):
    """An agent learns in the main thread only."""

    def happen(self, agent: Any, streams: Any) -> None:
        agent.learnt -= threading.current_thread() is not threading.main_thread()


def test_without_env_timeout_jobs_are_done_in_the_main_thread(
    two: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.close()  # those that are hired now are not watched
    monkeypatch.setattr(two, "env_timeout", None)
    (agent,) = pop = [jobs.Savable()]
    two.train(Threads(), pop, None, streams(0, 1))
    two.close()
    assert agent.learnt == 1


class Locked(jobs.Task):
    """A task that can't be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_other_versions_on_a_node_are_an_error(
    two: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import agilerl.training.ray_executor as module

    two.begin(jobs.Task(), [jobs.Savable()], None)
    two.close()  # those that are hired now look at the driver's versions
    monkeypatch.setattr(module, "versions", lambda: {"python": "2.7", "torch": "0", "agilerl": "9"})
    with pytest.raises(ConfigError, match=r"a node has python .* and not 2\.7"):
        two.begin(jobs.Task(), [jobs.Savable()], None)
    two.close()


def test_a_cluster_that_is_not_there_and_numbers_that_make_no_sense() -> None:
    for bad in ({"workers": 0}, {"cpus": -1}, {"gpus": -0.5}, {"env_timeout": 0.0}):
        with pytest.raises(ConfigError, match=f"{next(iter(bad))}: expected"):
            RayExecutor(**bad)  # type: ignore[arg-type]


@pytest.mark.slow
def test_no_cluster_at_the_address_is_an_error() -> None:
    executor = RayExecutor(address="127.0.0.1:1")
    with pytest.raises(ConfigError, match="address: no connection to a Ray cluster"):
        executor.begin(jobs.Task(), [jobs.Savable()], None)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'agilerl\[ray\]'"):
        RayExecutor()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["online, a ring that is too small"])
def test_a_node_that_dies_in_mid_generation_changes_no_number(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    cluster.wait_for_nodes()
    executor = RayExecutor(address=cluster.address)
    try:
        jobs_done = iter(range(100))
        original: Callable[..., Any] = executor._turn

        def turn(batch: Any, population: int) -> None:
            original(batch, population)
            if nodes and batch.name == "train" and next(jobs_done) == 2:
                cluster.remove_node(nodes.pop(), allow_graceful=False)

        monkeypatch.setattr(executor, "_turn", turn)
        assert CASES[name](executor) == CASES[name](InProcess())
        assert len(nodes) == 2
    finally:
        executor.close()
        cluster.shutdown()
