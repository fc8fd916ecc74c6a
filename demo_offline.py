"""Train a population on recorded data alone; the environment is there to evaluate.

    python demo_offline.py                      CQN agents on random CartPole data
    python demo_offline.py --env Pendulum-v1    DDPG agents, chosen by the kind of action
    python demo_offline.py --resume runs/NAME   go on with a run

Data that is not there is recorded first.  Every agent draws its own hyper-parameters from ranges.
At the end ``runs/NAME/`` holds the history and the best agent; ``agilerl report runs/NAME`` shows
what evolution did.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agilerl import Run, evolve
from agilerl.components.make_env import make_env
from agilerl.data.collect import record
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import AgileRLError
from agilerl.runs.evolve import resume
from agilerl.runs.run_folder import SETTINGS, read_yaml
from agilerl.signals import exit_code
from agilerl.training.train_offline import describe
from agilerl.utils.utils import printHyperparams

DATA_STEPS = 100_000
DATASETS = {"CartPole-v1": "data/cartpole/cartpole_random_v1.1.0.h5"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1", help="gymnasium id (%(default)s)")
    parser.add_argument("--dataset", default=None, help="HDF5 file; recorded if it is not there")
    parser.add_argument(
        "--episodes", type=int, default=200, help="at most, of 250 learn calls (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=None, help="one integer reproduces the run")
    parser.add_argument("--pop-size", type=int, default=4, help="number of agents (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes (%(default)s)")
    parser.add_argument("--out", default="runs", help="folder of run folders (%(default)s)")
    parser.add_argument("--resume", metavar="RUN", help="folder of a run to go on with")
    return parser.parse_args(arguments)


def find_data(env_name: str, path: str | None) -> Path:
    """Return the path of the data set, after recording random actions if it is not there."""
    name = env_name.replace("/", "-")
    file = Path(path or DATASETS.get(env_name, f"data/{name}/{name}_random.h5"))
    if not file.exists():
        print(f"{file}: not there; recording {DATA_STEPS:,} random steps", flush=True)
        record(env_name, "random", DATA_STEPS, seed=0).save(file)
    return file


def run(options: argparse.Namespace) -> Run:
    """Train until the environment's reward threshold is reached, or all episodes are spent."""
    last = [lambda generation: generation.episode >= options.episodes]
    if options.resume is not None:
        return resume(options.resume, workers=options.workers, callbacks=last)
    data, spec = find_data(options.env, options.dataset), make_env(options.env).spec
    print(f"data of {options.env}: {options.pop_size} agents from a blind start", flush=True)
    return evolve(
        options.env,
        target=None if spec is None else spec.reward_threshold,
        seed=options.seed,
        out=options.out,
        init_hp={"POP_SIZE": options.pop_size},
        workers=options.workers,
        callbacks=last,
        dataset=data,
    )


def main() -> int:
    """Run the demo; errors that a user can mend are one line."""
    try:
        found = run(parse())
        data = OfflineDataset.from_hdf5(read_yaml(found.path, SETTINGS)["dataset"])
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    printHyperparams(found.population)
    print(f"elite      {found.evaluation}")
    print(f"data       {describe(data)}")
    print(f"written    {found.path}/")
    print(f"replay     {sys.executable} -m agilerl evaluate {found.path}")
    return exit_code()


if __name__ == "__main__":
    sys.exit(main())
