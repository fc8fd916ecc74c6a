"""Improve a cloned Wordle player by offline RL (ILQL): ``python run_ilql.py --help``."""

import sys
from collections.abc import Sequence

from agilerl.training.language_config import ILQLRunConfig
from agilerl.training.language_run import command
from agilerl.training.train_ilql import train


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command(ILQLRunConfig, train, "configs/wordle/train_iql.yaml", __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
