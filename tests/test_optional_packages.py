"""What works without wandb, transformers, plotly and ray, and what is said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPT = """
import sys

MISSING = {"transformers", "wandb", "plotly", "ray", "tensorboard"}

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Finder())
import agilerl
from agilerl import *
from agilerl.algorithms import BC_LM, ILQL
import agilerl.cli
from agilerl.training.executors import RayExecutor

run = evolve("CartPole-v1", steps=2000, seed=1, out=sys.argv[1], verbose=False, workers=0)
print("evolved", run.evaluation.mean > 0)
agent = BC_LM({"arch": "gpt", "n_layer": 1, "vocab_size": 8, "n_embd": 8, "n_head": 2,
               "block_size": 8})
pop = initialPopulation("DQN", (4,), 2, False, {"arch": "mlp", "h_size": [8]}, {}, 1)
memory = ReplayBuffer(2, 100, ["state", "action", "reward", "next_state", "done"])
for attempt in (
    agent.lm.to_hf,
    RayExecutor,
    run.report,
    lambda: train(makeVectEnvs("CartPole-v1", 1), "", "", pop, memory, wb=True),
):
    try:
        attempt()
    except ConfigError as error:
        print(error)
"""


def test_a_run_needs_none_of_them_and_errors_say_how_to_install_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *told = done.stdout.splitlines()
    assert first == "evolved True"
    assert "pip install transformers" in told[0]
    assert "pip install 'agilerl[ray]'" in told[1]
    assert "pip install" in told[-1]
    assert "wandb" in told[-1]
