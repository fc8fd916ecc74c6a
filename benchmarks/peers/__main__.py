"""Make the environments of the peers and time them.

    python -m benchmarks.peers setup sb3
    python -m benchmarks.peers run agilerl016 --env LunarLander-v3 --seconds 20 --threads 1
    python -m benchmarks.peers run agilerl016 --micro --seconds 30

``run`` makes the environment when it is not there, prints one line of JSON to stdout, and ends
with the runner's exit status. Its flags are the runner's: ``run sb3 --help`` lists them.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.peers import venvs


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("setup", help="make one peer's environment under .bench/")
    setup.add_argument("peer", choices=venvs.RECIPES)
    run = commands.add_parser("run", help="time one peer", add_help=False)
    run.add_argument("peer", choices=venvs.RECIPES)
    run.add_argument("--threads", type=int, default=1)
    flags, rest = parser.parse_known_args()
    if flags.command == "run":
        return venvs.run(flags.peer, rest, flags.threads)
    if rest:
        parser.error(f"setup takes no further arguments, got {' '.join(rest)}")
    venvs.ensure(flags.peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
