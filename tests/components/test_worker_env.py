"""Sub-environments in worker processes: the same results, and no process left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import TransitionStream, steps_asynchronously
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.components.worker_env import WorkerVectorEnv
from agilerl.errors import ConfigError, EnvError
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs
from tests.envs import CatchEnv, CorridorEnv, CountingEnv, PayEnv, ReachEnv
from tests.worker_envs import ClosingEnv, NosyEnv, TalkingEnv, TroubledEnv, unmade

ROOT = Path(__file__).parents[2]


MAKERS: dict[str, list[Callable[[], Any]]] = {
    "counting": [partial(CountingEnv, i) for i in range(5)],
    "discrete from 3": [partial(CorridorEnv, start=3)] * 3,
    "continuous": [ReachEnv] * 4,
    "images": [CatchEnv] * 3,
    "infos": [partial(TalkingEnv, i) for i in range(4)],
}


@pytest.fixture
def made() -> Iterator[Callable[..., WorkerVectorEnv]]:
    """Make worker environments that are closed in the end."""
    envs: list[WorkerVectorEnv] = []

    def make(makers: Any, workers: int = 2, **kwargs: Any) -> WorkerVectorEnv:
        envs.append(WorkerVectorEnv(makers, workers, **kwargs))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], seconds: float = 20.0) -> bool:
    """Return whether all processes end within that time."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def pids_of(env: WorkerVectorEnv) -> list[int]:
    return [worker.process.pid for worker in env._workers]


def assert_same(one: Any, other: Any) -> None:
    """Check that two results are the same, types and bits."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype == object:
            assert_same(one.tolist(), other.tolist())
        else:
            assert one.tobytes() == other.tobytes()
    else:
        assert one == other


# ---------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_are_those_of_one_process_bit_for_bit(
    name: str, workers: int, made: Callable[..., WorkerVectorEnv]
) -> None:
    makers = MAKERS[name]
    one, many = InProcessVectorEnv([m() for m in makers], seed=4), made(makers, workers, seed=4)
    for attribute in ("num_envs", "metadata", "spec", "render_mode", "action_space"):
        assert getattr(one, attribute) == getattr(many, attribute)
    assert one.observation_space == many.observation_space
    assert_same(one.reset(), many.reset())
    one.action_space.seed(1)
    for step in range(40):
        if step == 20:
            again = {"seed": 9, "options": {"gravity": 2}}
            assert_same(one.reset(**again), many.reset(**again))
        actions = one.action_space.sample()
        assert_same(one.step(actions), many.step(actions))


def test_make_vect_envs_gives_the_same_with_workers() -> None:
    one = makeVectEnvs("CartPole-v1", 5, seed=3, max_episode_steps=7)
    many = makeVectEnvs("CartPole-v1", 5, seed=3, workers=2, max_episode_steps=7)
    assert one.spec == many.spec
    assert_same(one.reset(), many.reset())
    for step in range(20):
        actions = np.arange(5) * step % 2
        assert_same(one.step(actions), many.step(actions))
    many.close()


def test_training_is_the_same_with_workers() -> None:
    weights = []
    for workers in (0, 2):
        env = makeVectEnvs("CartPole-v1", 4, seed=1, workers=workers)
        pop = initialPopulation(
            "DQN", (4,), 2, False, {"arch": "mlp", "h_size": [8]}, {"LEARN_STEP": 1}, 2, seed=1
        )
        names = ["state", "action", "reward", "next_state", "done"]
        memory = ReplayBuffer(2, 500, names, seed=1)
        pop, fitnesses = train(
            env, "CartPole", "DQN", pop, memory, n_episodes=2, max_steps=40, evo_epochs=1, seed=1,
            verbose=False,
        )  # fmt: skip
        weights.append((fitnesses, [p.detach().numpy() for p in pop[0].actor.parameters()]))
        env.close()
    assert_same(weights[0], weights[1])


def test_workers_step_while_the_caller_does_something_else(
    made: Callable[..., WorkerVectorEnv],
) -> None:
    env = made([NosyEnv] * 4)
    assert steps_asynchronously(env)
    stream = TransitionStream(env)
    stream.reset(seed=1)
    stream.begin(np.zeros(4, int))
    assert stream.finish().next_state.tolist() == [[1.0]] * 4
    env.reset()
    info = env.step(np.zeros(4, int))[4]
    assert len({*info["pid"].tolist(), os.getpid()}) == 3


def test_a_worker_loads_no_torch(made: Callable[..., WorkerVectorEnv]) -> None:
    assert "torch" in sys.modules
    env = made([NosyEnv] * 2)
    env.reset()
    assert env.step(np.zeros(2, int))[4]["torch"].tolist() == [False, False]


def test_observations_of_earlier_steps_stay_as_they_were(
    made: Callable[..., WorkerVectorEnv],
) -> None:
    env = made(MAKERS["counting"])
    results = [env.reset()[0], *env.step(np.zeros(5, int))[:4]]
    kept = [array.copy() for array in results]
    for _ in range(4):
        env.step(np.ones(5, int))
    assert_same(results, kept)


def test_a_script_of_the_users_is_not_run_again_and_its_classes_reach_the_workers(
    tmp_path: Path,
) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        "import gymnasium as gym, numpy as np\n"
        "from agilerl.utils.utils import makeVectEnvs\n"
        "print('run')\n"
        "class Own(gym.Env):\n"
        "    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)\n"
        "    action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, seed=None, options=None): return np.zeros(1, np.float32), {}\n"
        "    def step(self, action): return np.ones(1, np.float32), 2.0, False, False, {}\n"
        "gym.register('Own-v0', Own)\n"
        "env = makeVectEnvs('Own-v0', 3, workers=2)\n"
        "env.reset()\n"
        "print(env.step(np.zeros(3, int))[1].sum())\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert (done.stdout.split(), done.stderr) == (["run", "6.0"], "")


# ----------------------------------------------------------------------------------------- trouble


def test_an_environment_that_raises_is_named_with_its_traceback(
    made: Callable[..., WorkerVectorEnv],
) -> None:
    env = made([TroubledEnv] * 4)
    env.reset()
    with pytest.raises(EnvError, match=r"sub-environment 2: RuntimeError: the rocket") as caught:
        env.step(np.array([0, 0, 1, 1]))
    assert 'raise RuntimeError("the rocket has no fuel")' in str(caught.value)
    assert env.reset()[0].tolist() == [[0.0]] * 4, "a reset makes it usable again"
    assert env.step(np.zeros(4, int))[0].tolist() == [[1.0]] * 4


def test_an_environment_that_can_not_be_made_is_named() -> None:
    with pytest.raises(EnvError, match=r"sub-environment 2: FileNotFoundError: no such track"):
        WorkerVectorEnv([PayEnv, PayEnv, unmade], 2)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_worker_that_dies_is_an_error_and_ends_the_others(
    how: str, made: Callable[..., WorkerVectorEnv]
) -> None:
    env = made([TroubledEnv] * 4)
    env.reset()
    pids = pids_of(env)
    if how == "exit":
        with pytest.raises(EnvError, match=r"sub-environment 3: .*died \(exit code 7"):
            env.step(np.array([0, 0, 0, 2]))
    else:
        env.step_async(np.array([3, 0, 0, 0]))
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(EnvError, match=r"sub-environment 0: .*died \(exit code -9"):
            env.step_wait()
    assert gone(pids)
    for call in (env.reset, partial(env.step, np.zeros(4, int))):
        with pytest.raises(EnvError, match="workers have ended"):
            call()


def test_a_worker_killed_between_steps_is_noticed_at_the_next(
    made: Callable[..., WorkerVectorEnv],
) -> None:
    env = made([TroubledEnv] * 2)
    env.reset()
    os.kill(pids_of(env)[1], signal.SIGKILL)
    env._workers[1].process.wait()
    with pytest.raises(EnvError, match="sub-environment 1: its worker process died"):
        env.step(np.zeros(2, int))


def test_calls_out_of_order_are_errors(made: Callable[..., WorkerVectorEnv]) -> None:
    env = made(MAKERS["counting"])
    env.reset()
    with pytest.raises(EnvError, match="step_wait: no step was started"):
        env.step_wait()
    for actions in (np.zeros(4, int), np.zeros((5, 1), int), 0):
        with pytest.raises(EnvError, match=r"actions: expected shape \(5,\)"):
            env.step(actions)
    env.step_async(np.zeros(5, int))
    with pytest.raises(EnvError, match="a step is under way"):
        env.step_async(np.zeros(5, int))
    assert env.reset()[0][:, 2].tolist() == [0.0] * 5, "the step that nobody collected is over"
    env.close()
    with pytest.raises(EnvError, match="workers have ended"):
        env.reset()


@pytest.mark.parametrize(
    ("workers", "message"),
    [(-1, "workers: expected"), (1.0, "workers: expected"), (3, r"at most num_envs \(2\)")],
)
def test_the_number_of_workers_is_checked(workers: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        makeVectEnvs("CartPole-v1", 2, workers=workers)


# ------------------------------------------------------------------------------------------ ending


def test_close_closes_the_environments_and_ends_the_workers(tmp_path: Path) -> None:
    env = WorkerVectorEnv([partial(ClosingEnv, tmp_path / str(i)) for i in range(3)], 2)
    pids = pids_of(env)
    env.close()
    assert gone(pids)
    closed_in = {int(path.read_text()) for path in tmp_path.iterdir()}
    assert closed_in == set(pids)


def test_an_environment_that_is_forgotten_ends_its_workers() -> None:
    env = WorkerVectorEnv([PayEnv] * 2, 2)
    env.reset()
    pids = pids_of(env)
    assert all(map(alive, pids))
    del env
    gc.collect()
    assert gone(pids)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def busy_parent(action: int) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a process that steps environments for ever, and return it with its workers."""
    program = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import numpy as np\n"
        "from agilerl.components.worker_env import WorkerVectorEnv\n"
        "from tests.worker_envs import TroubledEnv\n"
        "env = WorkerVectorEnv([TroubledEnv] * 2, 2)\n"
        "env.reset()\n"
        "print(*(w.process.pid for w in env._workers), flush=True)\n"
        f"while True: env.step(np.array([0, {action}]))\n"
    )
    pipe = subprocess.PIPE
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True, cwd=ROOT,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    assert parent.stdout is not None
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


def test_workers_end_when_their_parent_is_killed() -> None:
    parent, pids = busy_parent(action=0)
    assert len(pids) == 2
    assert all(map(alive, pids))
    parent.kill()
    parent.communicate()
    assert gone(pids)


@pytest.mark.parametrize("action", [0, 3])
def test_ctrl_c_shows_the_traceback_of_the_parent_alone_and_ends_the_workers(action: int) -> None:
    parent, pids = busy_parent(action)
    time.sleep(0.2)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: everyone in the foreground group
    try:
        _, errors = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "worker_process" not in errors
    assert gone(pids)
