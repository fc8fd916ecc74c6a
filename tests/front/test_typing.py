"""A user's script, checked by mypy in strict mode: nothing to complain of, and types are known."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
from agilerl import ReplayBuffer, Run, evaluate, evolve, initialPopulation, makeVectEnvs, train

env = makeVectEnvs("CartPole-v1", num_envs=8)
pop = initialPopulation(
    algo="DQN", state_dim=(4,), action_dim=2, one_hot=False,
    net_config={"arch": "mlp", "h_size": [64, 64]}, INIT_HP={"LR": (1e-4, 1e-2)},
    population_size=6, seed=1,
)
reveal_type(pop)
reveal_type(pop[0].getAction([0.0, 0.0, 0.0, 0.0]))
memory = ReplayBuffer(2, 10_000, ["state", "action", "reward", "next_state", "done"])
trained, fitnesses = train(env, "CartPole-v1", "DQN", pop, memory, n_episodes=2, seed=1)
reveal_type(fitnesses)


def main() -> Run:
    run = evolve("CartPole-v1", budget="10s")
    print(run.evaluation.mean, evaluate(run.elite, "CartPole-v1").ci95)
    return run
"""
KNOWN = (
    'Revealed type is "list[agilerl.algorithms.dqn.DQN]"',
    'Revealed type is "numpy.ndarray[Any, numpy.dtype[Any]]"',
    'Revealed type is "list[list[float]]"',
)


def check(folder: Path, *options: str) -> str:
    """Return what mypy says of the script, which lies in an empty folder."""
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", *options, "script.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PATH": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_against_the_editable_install(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    found = check(tmp_path)
    assert all(known in found for known in KNOWN)


@pytest.mark.slow
def test_against_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    source = tmp_path / "source"
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source)
    for name in ("agilerl", "configs"):
        shutil.copytree(ROOT / name, source / name)
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *wheel], check=True)
    (built,) = tmp_path.glob("*.whl")
    place, empty = tmp_path / "venv", tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    zipfile.ZipFile(built).extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    assert (packages / "agilerl" / "py.typed").exists()
    empty.mkdir()
    found = check(empty, "--python-executable", str(place / "bin" / "python"))
    assert all(known in found for known in KNOWN)
