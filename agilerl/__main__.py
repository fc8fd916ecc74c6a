"""``python -m agilerl`` is the command ``agilerl``."""

import sys

from agilerl.cli import main

if __name__ == "__main__":
    sys.exit(main())
