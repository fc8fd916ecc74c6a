"""Executors: the same numbers wherever jobs are done, and whatever happens to who does them."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from agilerl.algorithms.bc_lm import BC_LM
from agilerl.algorithms.ilql import ILQL
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import AgileRLError, ConfigError, EnvError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.seeding import Streams
from agilerl.training import batches, executors, train_offline
from agilerl.training.executors import InProcess, Processes, worker_count
from agilerl.training.language_config import TrainConfig
from agilerl.training.language_task import LanguageTask, check_train
from agilerl.training.pickling import RemoteError
from agilerl.training.run import Plan
from agilerl.training.run import run as run_task
from agilerl.training.run_state import RunState
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from benchmarks.fingerprint import Fingerprint
from tests import jobs
from tests.agents import OwnAgent
from tests.envs import CatchEnv, CorridorEnv, PayEnv
from tests.runs import FIELDS, run, small_population
from tests.training.test_language_training import Arena, dataset, population

ROOT = Path(__file__).parents[2]
MLP = {"arch": "mlp", "h_size": [16]}
CNN = {"arch": "cnn", "h_size": [16], "c_size": [4], "k_size": [3], "s_size": [2]}
HP = {"BATCH_SIZE": 16, "LEARN_STEP": 1, "LR": 1e-3}


# ------------------------------------------------------------------------------------ equal numbers


def digest(pop: list[Any], fitnesses: Any, memory: Any = None) -> str:
    """Return the hash of a run's result."""
    found = Fingerprint()
    for agent in pop:
        found.add(agent.state_dict())
        found.add([agent.index, agent.scores, agent.fitness, agent.steps])
    found.add([[float(value) for value in row] for row in fitnesses])
    if memory is not None:
        held = memory.rows(memory.counter - len(memory), memory.counter)
        found.add([memory.counter, held, memory.rng.bit_generator.state])
    return found.digest.hexdigest()


def evolution(algo: Any, **chances: float) -> dict[str, Any]:
    kinds = {"architecture": 1.0, "parameters": 1.0, "activation": 1.0, "rl_hp": 1.0, **chances}
    mutation = Mutations(
        algo, 0.5, new_layer_prob=0.5, rl_hp_selection=["lr", "batch_size"], mutation_sd=0.1,
        rand_seed=2, **kinds,
    )  # fmt: skip
    return {"tournament": TournamentSelection(2, True, 3, 1, seed=2), "mutation": mutation}


RUN = {"n_episodes": 4, "max_steps": 30, "evo_epochs": 1, "target": None, "seed": 7}


def online(algo: str, env: Any, net: Any, ring: int, executor: Any, **changes: Any) -> str:
    shape, space = env.single_observation_space.shape, env.single_action_space
    swap = len(shape) == 3
    pop = initialPopulation(
        algo, (shape[2], *shape[:2]) if swap else shape, int(getattr(space, "n", 1)), False,
        net, HP, 3, seed=3,
    )  # fmt: skip
    memory = ReplayBuffer(1, ring, FIELDS, seed=5, next_state_is_next_row=swap)
    settings = {**RUN, **evolution(algo), **changes}
    pop, fitnesses = train(
        env, "", algo, pop, memory, swap, executor=executor, verbose=False, **settings
    )
    env.close()
    return digest(pop, fitnesses, memory)


def offline(executor: Any) -> str:
    rng = np.random.default_rng(0)
    data = {
        "observations": rng.standard_normal((500, 4)).astype(np.float32),
        "actions": rng.integers(2, size=500),
        "rewards": rng.standard_normal(500).astype(np.float32),
        "terminals": rng.random(500) < 0.05,
    }
    env, memory = makeVectEnvs("CartPole-v1", 2), ReplayBuffer(1, 500, FIELDS, seed=5)
    pop = initialPopulation("CQN", (4,), 2, False, MLP, HP, 3, seed=3)
    pop, fitnesses = train_offline.train(
        env, "", data, "CQN", pop, memory, executor=executor, verbose=False, **RUN,
        **evolution("CQN"),
    )  # fmt: skip
    return digest(pop, fitnesses, memory)


def own_agents(executor: Any) -> str:
    pop = [jobs.SavableQAgent(i) for i in range(3)]
    env = SyncVectorEnv([partial(gym.make, "CartPole-v1")] * 2)  # NEXT_STEP
    layout = {"actor": {"eval": "actor", "target": "actor_target", "optimizer": "optimizer"}}
    pop, fitnesses, _ = run(pop, env, executor=executor, **RUN, **evolution(layout))
    return digest(pop, fitnesses)


def language(kind: type[Any], executor: Any) -> str:
    settings = check_train(TrainConfig(updates=6, eval_every=2, report_every=1, warm_up=2))
    task = LanguageTask(dataset(), Arena(), settings)
    chances: dict[str, Any] = {
        "architecture": 0.5,
        "parameters": 0.3,
        "activation": 0,
        "arch": "gpt",
    }
    agents = population(3, kind)
    state = RunState(agents, None, *evolution(kind.algo, **chances).values(), seed=4)
    pop, fitnesses = run_task(task, state, Plan(6, 2), executor)
    return digest(pop, fitnesses)


CASES: dict[str, Callable[[Any], str]] = {
    "online, a ring that is too small": lambda executor: online(
        "DQN", makeVectEnvs("CartPole-v1", 2), MLP, 150, executor
    ),
    "online, images stored once": lambda executor: online(
        "DQN", InProcessVectorEnv([CatchEnv(), CatchEnv()]), CNN, 250, executor
    ),
    "online, continuous actions": lambda executor: online(
        "DDPG", makeVectEnvs("Pendulum-v1", 2), MLP, 1000, executor
    ),
    "offline": offline,
    "own agents, another autoreset": own_agents,
    "language, cloned": partial(language, BC_LM),
    "language, Q-learning": partial(language, ILQL),
}


@pytest.fixture(scope="module")
def in_process() -> Callable[[str], str]:
    known: dict[str, str] = {}

    def result(name: str) -> str:
        if name not in known:
            known[name] = CASES[name](InProcess())
        return known[name]

    return result


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    """Two workers, for all tests that leave them alive."""
    executor = Processes(2, env_timeout=60.0)
    yield executor
    executor.close()


@pytest.mark.parametrize("name", CASES)
def test_two_workers_give_the_same_hash(
    name: str, two: Processes, in_process: Callable[[str], str]
) -> None:
    assert CASES[name](two) == in_process(name)
    assert len(two.pids) == 2
    assert two.lost == 0


def test_a_buffer_that_travels_in_parts_arrives_whole(
    two: Processes, in_process: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK", 1000)
    assert CASES["offline"](two) == in_process("offline")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_so_do_one_and_three(count: int, in_process: Callable[[str], str]) -> None:
    executor = Processes(count)
    assert {name: case(executor) for name, case in CASES.items()} == {
        name: in_process(name) for name in CASES
    }
    assert len(executor.pids) == count
    executor.close()


# ------------------------------------------------------------------------- what every executor does


@pytest.fixture(params=["in process", "two workers"])
def executor(request: pytest.FixtureRequest) -> Any:
    """Every executor."""
    if request.param == "in process":
        return InProcess()
    return request.getfixturevalue("two")


def streams(number: int, count: int) -> list[Streams]:
    return [Streams(0, number, slot) for slot in range(count)]


def test_agents_change_in_place_and_results_come_by_slot(executor: Any) -> None:
    task, pop = jobs.Task(), [jobs.Savable(i) for i in range(5)]
    before = list(pop)
    executor.begin(task, pop, None)
    for number in range(2):
        results = executor.train(task, pop, None, streams(number, 5))
        assert [result.steps for result in results] == [10 * i + number for i in range(5)]
    evaluations = executor.evaluate(task, pop, streams(0, 5))
    assert [evaluation.fitness for evaluation in evaluations] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert all(one is other for one, other in zip(pop, before, strict=True))
    assert [(a.learnt, a.scores, a.fitness) for a in pop] == [
        (2, [0.0, 1.0], [float(slot)]) for slot in range(5)
    ]


def test_the_error_of_the_lowest_slot_arrives_as_itself(executor: Any) -> None:
    task, pop = jobs.Raising(), [jobs.Savable(i) for i in range(5)]
    with pytest.raises(jobs.OddError) as caught:
        executor.train(task, pop, None, streams(0, 5))
    assert caught.value.args == ("no fuel", 3)
    assert caught.value.count == 3
    assert executor.train(jobs.Task(), pop, None, streams(1, 5))[2].steps == 21  # goes on to work


def test_an_environment_s_error_ends_the_run_with_the_population_as_last_evaluated(
    executor: Any,
) -> None:
    pop = [jobs.Savable(i, action=1) for i in range(2)]
    told = r"agent 0, episode \d+: step \d+: sub-environment 0, action 1: step\(\).*no fuel"
    with pytest.raises(EnvError, match=told) as caught:
        run(pop, makeVectEnvs(jobs.FaultyEnv, 2, length=9), executor=executor)
    assert caught.value.population == pop  # type: ignore[attr-defined]


def test_leaving_the_process_is_an_error_like_any_other(executor: Any) -> None:
    with pytest.raises(SystemExit, match="enough"):
        executor.train(jobs.Leaving(), [jobs.Savable()], None, streams(0, 1))


def test_what_is_logged_is_logged_here(
    executor: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING, "agilerl"):
        executor.train(jobs.Talking(), [jobs.Savable(4)], None, streams(0, 1))
    assert [r.message for r in caplog.records] == ["agent 4 says hello"]
    expected = "to nobody\n" if isinstance(executor, InProcess) else ""
    assert capfd.readouterr().out == expected


def test_evaluation_appends_one_fitness_to_library_agents(executor: Any) -> None:
    pop, fitnesses, _ = run(
        small_population(2, BATCH_SIZE=4), makeVectEnvs("CartPole-v1", 2), executor=executor
    )
    assert sorted(agent.fitness for agent in pop) == sorted(map(list, zip(*fitnesses, strict=True)))


def test_a_callback_may_change_the_agents(executor: Any) -> None:
    def slower(generation: Any) -> None:
        for agent in generation.population:
            agent.lr = agent.lr / 2

    pop, _, _ = run(
        small_population(2, BATCH_SIZE=4, LR=1e-3), makeVectEnvs("CartPole-v1", 2),
        executor=executor, callbacks=[slower],
    )  # fmt: skip
    assert [agent.lr for agent in pop] == [2.5e-4, 2.5e-4]
    assert pop[0].optimizer.param_groups[0]["lr"] == 2.5e-4


# --------------------------------------------------------------------------------- worker processes


def test_the_traceback_of_the_worker_is_the_cause(two: Processes) -> None:
    with pytest.raises(jobs.OddError) as caught:
        two.train(jobs.Raising(), [jobs.Savable(i) for i in range(2)], None, streams(0, 2))
    assert isinstance(caught.value.__cause__, RemoteError)
    assert "in happen" in str(caught.value.__cause__)
    with pytest.raises(AgileRLError, match="ValueError: stubborn"):
        two.train(jobs.Stubborn(), [jobs.Savable()], None, streams(0, 1))


def test_episodes_of_two_processes_overlap(tmp_path: Path, two: Processes) -> None:
    task, pop = jobs.Meeting(tmp_path, 2), [jobs.Savable(i) for i in range(2)]
    two.train(task, pop, None, streams(0, 2))
    times = [(tmp_path / f"{slot}.times").read_text().split() for slot in range(2)]
    assert {int(pid) for pid, _, _ in times} == set(two.pids)
    assert os.getpid() not in two.pids
    starts, ends = ([float(row[column]) for row in times] for column in (1, 2))
    assert max(starts) < min(ends)
    for pid in two.pids:  # direct children, in groups of their own
        parent, group = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1:3]
        assert (int(parent), int(group)) == (os.getpid(), pid)


def test_workers_inherit_neither_output_nor_files(two: Processes) -> None:
    two.train(jobs.Task(), [jobs.Savable(), jobs.Savable()], None, streams(0, 2))
    files = [path.readlink() for path in Path(f"/proc/{two.pids[0]}/fd").iterdir()]
    names = [str(name) for name in files]
    assert names.count("/dev/null") == 2
    left = [n for n in names if n.startswith("/dev/shm/") and not n.endswith("(deleted)")]
    assert not left


def test_no_more_workers_than_agents_start() -> None:
    executor = Processes(3)
    executor.begin(jobs.Task(), [jobs.Savable()], None)
    assert len(executor.pids) == 1
    executor.close()
    executor.close()
    assert executor.pids == []


def test_an_interrupted_run_leaves_no_worker_at_work_and_the_agents_as_they_were(
    tmp_path: Path,
) -> None:
    executor = Processes(1)
    pop = [jobs.Savable()]
    executor.begin(task := jobs.Mishap(tmp_path, "hangs", slot=0), pop, None)
    pid = executor.pids[0]

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            executor.train(task, pop, None, streams(0, 1))
    finally:
        signal.signal(signal.SIGALRM, old)
    assert not Path(f"/proc/{pid}").exists()
    assert pop[0].learnt == 0


# ------------------------------------------------------------------------------------------ losses


def doomed(marks: Path, what: str, executor: Any) -> str:
    env = makeVectEnvs(partial(jobs.DoomedEnv, marks, what), 2)
    return online("DQN", env, CNN, 250, executor, n_episodes=2)


@pytest.mark.parametrize("what", ["killed", pytest.param("hangs", marks=pytest.mark.slow)])
def test_a_lost_worker_changes_no_number(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executor = Processes(2, env_timeout=60.0 if what == "killed" else 20.0)
    result = doomed(tmp_path, what, executor)
    assert (tmp_path / "mishap").exists()
    assert executor.lost == 1
    assert "a worker process was lost" in caplog.text
    executor.close()
    assert doomed(tmp_path, what, InProcess()) == result


@pytest.mark.parametrize(
    "what", ["killed", *(pytest.param(x, marks=pytest.mark.slow) for x in ("exits", "stopped"))]
)
def test_a_job_is_done_again_elsewhere_and_that_is_said(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executor = Processes(2, env_timeout=5.0)
    task, pop = jobs.Mishap(tmp_path, what, times=2), [jobs.Savable(i) for i in range(3)]
    results = executor.train(task, pop, None, streams(6, 3))
    assert [result.steps for result in results] == [6, 16, 26]
    assert [agent.learnt for agent in pop] == [1, 1, 1]
    assert executor.lost == 2
    assert caplog.text.count("episode 6 of slot 1") == 2
    executor.close()


@pytest.mark.slow
def test_three_losses_running_of_one_job_stop_the_run(tmp_path: Path) -> None:
    executor = Processes(2)
    task, pop = jobs.Mishap(tmp_path, "killed", times=3), [jobs.Savable(i) for i in range(3)]
    with pytest.raises(EnvError, match=r"episode 6 of slot 1: 3 worker .* signal 9"):
        executor.train(task, pop, None, streams(6, 3))
    assert executor.pids == []
    assert [agent.learnt for agent in pop] == [0, 0, 0]


@pytest.mark.slow
def test_an_idle_worker_that_was_killed_is_replaced(two: Processes) -> None:
    task, pop = jobs.Task(), [jobs.Savable(i) for i in range(3)]
    two.train(task, pop, None, streams(0, 3))
    for pid in two.pids:
        os.kill(pid, signal.SIGKILL)
    assert [result.steps for result in two.train(task, pop, None, streams(1, 3))] == [1, 11, 21]
    assert len(two.pids) == 2
    two.lost = 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


ORPHANS = """
import os, sys
from pathlib import Path
from agilerl.training.executors import Processes
from agilerl.seeding import Streams
from tests import jobs
directory, what = sys.argv[1:]
task, pop = jobs.Mishap(Path(directory), what, slot=0), [jobs.Savable(0), jobs.Savable(1)]
executor = Processes(2)
executor.begin(task, pop, None)
Path(directory, "pids").write_text(" ".join(map(str, executor.pids)))
executor.train(task, pop, None, [Streams(0, 0, slot) for slot in range(2)])
"""


@pytest.mark.parametrize("what", ["hangs in C", pytest.param("hangs", marks=pytest.mark.slow)])
def test_workers_are_gone_when_their_parent_was_killed(what: str, tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path), what], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not (tmp_path / "mishap0").exists():
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.05)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(alive, pids))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a worker outlived its parent by 5 s"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------- environments

SCRIPT = """
import sys
import gymnasium as gym
import numpy as np
from agilerl.algorithms.dqn import DQN
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import EnvError
from agilerl.training.executors import Processes
from agilerl.training.train import train
from agilerl.utils.utils import makeVectEnvs

print("loaded")

class MyError(Exception):
    pass

class MyEnv(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    fails = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.uniform(-1, 1, 2).astype("f4"), {}

    def step(self, action):
        if self.fails:
            raise MyError("mine")
        self.time += 1
        state = self.np_random.uniform(-1, 1, 2).astype("f4")
        return state, float(action), self.time >= 5, False, {}

class MyAgent(DQN):
    def getAction(self, state, epsilon=0):
        return 1 - super().getAction(state, epsilon)

gym.register("Mine-v0", entry_point=MyEnv)
gym.register("Mine-v1", entry_point="__main__:MyEnv")

def result(env, workers=0, executor=None):
    net = {"arch": "mlp", "h_size": [8]}
    pop = [MyAgent((2,), 2, False, i, net, batch_size=4, seed=i) for i in range(2)]
    memory = ReplayBuffer(2, 50, ["state", "action", "reward", "next_state", "done"])
    pop, _ = train(env, "", "", pop, memory, n_episodes=2, max_steps=10, evo_epochs=1,
                   target=None, seed=1, verbose=False, workers=workers,
                   executor=executor)
    return [[p.tolist() for p in agent.actor.parameters()] for agent in pop]

expected = result(MyEnv())
assert result(MyEnv(), workers=2) == expected
two = Processes(2)
for env in (MyEnv, makeVectEnvs("Mine-v0"), makeVectEnvs("Mine-v1"), makeVectEnvs(MyEnv)):
    assert result(env, executor=two) == expected
env = MyEnv()
env.fails = True
try:
    result(env, executor=two)
except EnvError as error:
    assert "step() raised MyError: mine" in str(error)
    print("caught mine")
"""


def test_a_script_needs_no_guard_and_may_define_everything_itself(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "loaded\ncaught mine\n"


def test_an_environment_that_cannot_be_copied_is_an_error_before_training() -> None:
    pop = [jobs.Savable(i) for i in range(2)]
    with pytest.raises(EnvError, match=r"can't be copied to workers .*makeVectEnvs"):
        run(pop, jobs.LockedEnv(), workers=2)
    with pytest.raises(EnvError, match="can't be copied"):
        run(pop, PayEnv(), eval_env=jobs.LockedEnv(), workers=2)
    assert pop[0].scores == []


def test_one_that_is_made_by_a_class_needs_no_pickle(two: Processes) -> None:
    pop = [jobs.Savable(i, action=1) for i in range(2)]
    run(pop, jobs.LockedEnv, eval_env=makeVectEnvs(jobs.LockedEnv, 2), executor=two)
    assert [len(agent.scores) for agent in pop] == [4, 4]


def test_a_copy_of_another_kind_is_an_error_before_training(two: Processes) -> None:
    pop = [jobs.Savable(i) for i in range(2)]
    with pytest.raises(EnvError, match="its copy in a worker process has action_space Discrete"):
        run(pop, jobs.GrowingEnv, executor=two)
    assert pop[0].scores == []


def only_here(pid: int) -> Any:
    if os.getpid() != pid:
        raise FileNotFoundError("no such track")
    return PayEnv()


def test_a_maker_that_fails_in_a_worker_is_an_error_before_training(two: Processes) -> None:
    with pytest.raises(EnvError, match=r"no copy could be made .*no such track") as caught:
        run([jobs.Savable()], partial(only_here, os.getpid()), executor=two)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_gymnasium_s_vector_environments_are_made_again(two: Processes) -> None:
    env = AsyncVectorEnv([partial(CorridorEnv, 2)] * 2)
    agents = initialPopulation("DQN", 5, 2, True, MLP, HP, 2, seed=1)
    pop, _, _ = run(agents, env, executor=two)
    env.close()
    assert all(len(agent.scores) == 4 for agent in pop)


def test_an_exchanged_sub_environment_is_copied_as_it_is() -> None:
    env = makeVectEnvs(PayEnv, 2)
    assert env.env_fns is not None
    env.envs[1] = PayEnv(length=7)
    assert env.env_fns is None


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("workers", [-1, 1.5, True, "many", None])
def test_a_number_of_workers_that_cannot_be_used(workers: Any) -> None:
    with pytest.raises(ConfigError, match="workers: expected an integer >= 0"):
        run([jobs.Savable()], workers=workers)


def test_workers_and_an_executor_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="one of the two"):
        run([jobs.Savable()], workers=2, executor=InProcess())


def test_more_workers_than_cores_warn_and_the_population_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "cores", lambda: 2)
    assert worker_count(9, 2) == 2
    with pytest.warns(UserWarning, match="3 processes share 2 cores"):
        assert worker_count(9, 3) == 3
    assert [worker_count("auto", n) for n in (1, 2, 6)] == [0, 2, 2]
    monkeypatch.setattr(executors, "cores", lambda: 1)
    assert worker_count("auto", 6) == 0


def test_what_cannot_travel_is_an_error_before_training(two: Processes) -> None:
    class OwnBuffer(ReplayBuffer):
        pass

    with pytest.raises(ConfigError, match="OwnBuffer is not exactly a ReplayBuffer"):
        run([jobs.Savable()], memory=OwnBuffer(5, 100, FIELDS), executor=two)
    with pytest.raises(ConfigError, match="OwnAgent has no state_dict and no load_state_dict"):
        run([OwnAgent()], executor=two)
    agent = jobs.Savable()
    agent.frame = sys._getframe()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"Savable can't be copied .*frame"):
        run([agent], executor=two)
    with pytest.raises(ConfigError, match="one agent is in two slots"):
        run([same := jobs.Savable(), same], executor=two)
    for value in (0.0, "long"):
        with pytest.raises(ConfigError, match="env_timeout"):
            run([jobs.Savable()], workers=1, env_timeout=value)


def test_the_language_configuration_has_workers_too(tmp_path: Path) -> None:
    from agilerl.training.language_config import BCRunConfig
    from agilerl.training.yaml_config import read_config

    for given, expected in (("2", 2), ("auto", "auto")):
        config = read_config(BCRunConfig, None, [f"train.workers={given}"])
        assert config.train.workers == expected
    assert dataclasses.replace(config.train).threads is None


class DoomedLater(PayEnv):
    """Kills its process in the second step, as soon as a file is there."""

    def __init__(self, mark: Path) -> None:
        super().__init__(length=4, actions=3)
        self.mark = mark

    def step(self, action: Any) -> Any:
        if self.time == 1 and self.mark.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


@pytest.mark.slow
def test_three_losses_stop_the_run_after_a_checkpoint(tmp_path: Path) -> None:
    def train_on(executor: Any, resume: bool, doom: bool) -> Any:
        pop = initialPopulation("DQN", (1,), 3, False, MLP, HP, 2, seed=3)
        mark = tmp_path / "doom"

        def spoil(generation: Any) -> None:
            if doom and generation.number == 1:
                mark.touch()

        return run(
            pop, makeVectEnvs(partial(DoomedLater, mark), 2), executor=executor,
            memory=ReplayBuffer(1, 500, FIELDS, seed=1), callbacks=[spoil], resume=resume,
            checkpoint=100, checkpoint_path=tmp_path / "run", n_episodes=4, evo_epochs=1, seed=4,
        )  # fmt: skip

    executor = Processes(2)
    with pytest.raises(EnvError, match="3 worker processes were lost running"):
        train_on(executor, False, True)
    executor.close()
    (tmp_path / "doom").unlink()
    _, fitnesses, seen = train_on(InProcess(), True, False)
    assert [generation.number for generation in seen] == [2, 3]
    assert len(fitnesses) == 4
