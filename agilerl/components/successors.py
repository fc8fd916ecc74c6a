"""The import path of ``true_next_state`` for training loops of one's own."""

from agilerl.components.transitions import true_next_state

__all__ = ["true_next_state"]
