"""Train a population from a blind start in a gymnasium environment, until it is solved.

    python demo_online.py                       DQN agents on LunarLander
    python demo_online.py --env Pendulum-v1     DDPG agents, chosen by the kind of action
    python demo_online.py --resume runs/NAME    go on with a run

Every agent draws its own hyper-parameters from ranges.  At the end ``runs/NAME/`` holds the history
and the best agent; ``agilerl report runs/NAME`` shows what evolution did.
"""

from __future__ import annotations

import argparse
import sys

from agilerl import Run, evolve
from agilerl.components.make_env import make_env
from agilerl.errors import AgileRLError
from agilerl.runs.evolve import resume
from agilerl.signals import exit_code
from agilerl.utils.utils import printHyperparams


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="LunarLander-v3", help="gymnasium id (%(default)s)")
    parser.add_argument(
        "--episodes", type=int, default=400, help="at most, for each agent (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=None, help="one integer reproduces the run")
    parser.add_argument("--pop-size", type=int, default=4, help="number of agents (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes (%(default)s)")
    parser.add_argument("--out", default="runs", help="folder of run folders (%(default)s)")
    parser.add_argument("--resume", metavar="RUN", help="folder of a run to go on with")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> Run:
    """Train until the environment's reward threshold is reached, or all episodes are spent."""
    last = [lambda generation: generation.episode >= options.episodes]
    if options.resume is not None:
        return resume(options.resume, workers=options.workers, callbacks=last)
    spec = make_env(options.env).spec
    print(f"{options.env}: {options.pop_size} agents from a blind start", flush=True)
    return evolve(
        options.env,
        target=None if spec is None else spec.reward_threshold,
        seed=options.seed,
        out=options.out,
        init_hp={"POP_SIZE": options.pop_size},
        workers=options.workers,
        callbacks=last,
    )


def main() -> int:
    """Run the demo; errors that a user can mend are one line."""
    try:
        found = run(parse())
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    printHyperparams(found.population)
    print(f"elite      {found.evaluation}")
    print(f"written    {found.path}/")
    print(f"replay     {sys.executable} -m agilerl evaluate {found.path}")
    return exit_code()


if __name__ == "__main__":
    sys.exit(main())
