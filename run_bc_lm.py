"""Train a language model to play Wordle by behavioural cloning: ``python run_bc_lm.py --help``."""

import sys
from collections.abc import Sequence

from agilerl.training.language_config import BCRunConfig
from agilerl.training.language_run import command
from agilerl.training.train_bc_lm import train


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command(BCRunConfig, train, "configs/wordle/train_bc.yaml", __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
