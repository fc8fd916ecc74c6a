"""Replay the elite of a run: ``python -m agilerl.training.replay runs/NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from agilerl.algorithms import AGENTS
from agilerl.errors import AgileRLError
from agilerl.training.report import load_elite, returns_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the elite, let it act greedily, and print the return of each episode."""
    parser = argparse.ArgumentParser(
        prog="python -m agilerl.training.replay", description="Replay the elite of a run."
    )
    parser.add_argument("run", help="folder of the run, runs/NAME")
    parser.add_argument("--episodes", type=int, default=10, help="episodes (default 10)")
    parser.add_argument("--seed", type=int, default=None, help="of the episodes")
    parser.add_argument("--render", action="store_true", help="show them in a window")
    options = parser.parse_args(arguments)
    try:
        agent, summary = load_elite(options.run, AGENTS)
        returns = returns_of(agent, summary, options.episodes, options.seed, options.render)
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for episode, value in enumerate(returns, start=1):
        print(f"episode {episode:>3}  return {value:9.2f}")
    print(f"mean of {len(returns)}  return {returns.mean():9.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
