"""The environments of the peers: what each is made of, and making it when it is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".bench"

TORCH = ("torch==2.13.0",)
ENVIRONMENTS = ("gymnasium[box2d,classic-control]==1.4.0", "numpy==2.4.6")

# One pip call a line, in order. torch comes first, so that every peer runs on the same one.
RECIPES: dict[str, tuple[tuple[str, ...], ...]] = {
    # Its own ranges (torch < 2, numpy < 2, gymnasium < 0.27) would rule out this torch and
    # LunarLander-v3, so it goes in alone, followed by what its modules import.
    "agilerl016": (
        TORCH,
        ("--no-deps", "agilerl==0.1.6"),
        (*ENVIRONMENTS, "fastrand==3.1.0", "matplotlib==3.11.2", "tqdm==4.70.1", "wandb==0.31.0"),
    ),
    "sb3": (TORCH, (*ENVIRONMENTS, "stable-baselines3==2.9.2", "envpool==1.2.5")),
    "sb3_optuna": (TORCH, (*ENVIRONMENTS, "stable-baselines3==2.9.2", "optuna==5.0.0")),
    # It asks for gymnasium 1.0.0, whose own box2d extra has to be compiled.
    "d3rlpy": (TORCH, ("d3rlpy==2.8.1",), ("Box2D==2.3.10", "pygame-ce==2.5.8")),
}


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment."""
    return HOME / peer / "bin" / "python"


def ensure(peer: str) -> Path:
    """Return the interpreter of ``peer``, after making its environment if that is needed.

    It is made again when its recipe has changed. What pip says goes to stderr.
    """
    python, stamp = python_of(peer), HOME / peer / ".recipe"
    recipe = "\n".join(" ".join(step) for step in RECIPES[peer])
    if stamp.is_file() and stamp.read_text("utf-8") == recipe:
        return python
    print(
        f"Making {HOME / peer}: some minutes, and 1.2 GB or, with EnvPool, 2 GB.", file=sys.stderr
    )
    commands = [[sys.executable, "-m", "venv", "--clear", str(HOME / peer)]]
    commands += [[str(python), "-m", "pip", "install", "--quiet", *step] for step in RECIPES[peer]]
    for command in commands:
        subprocess.run(command, check=True, stdout=sys.stderr)
    stamp.write_text(recipe, "utf-8")
    return python


def command_of(peer: str, arguments: list[str], threads: int) -> tuple[list[str], dict[str, str]]:
    """Return the command of a peer's runner and its environment variables."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        variables[name] = str(threads)
    variables["WANDB_MODE"] = "disabled"
    script = Path(__file__).with_name(f"run_{peer}.py")
    return [str(ensure(peer)), str(script), "--threads", str(threads), *arguments], variables


def run(peer: str, arguments: list[str], threads: int) -> int:
    """Run the runner of ``peer`` in its environment; return its exit status.

    The runner writes one line of JSON to stdout, and whatever else to stderr.
    """
    command, variables = command_of(peer, arguments, threads)
    return subprocess.run(command, env=variables, cwd=HOME / peer, check=False).returncode
