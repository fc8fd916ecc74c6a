"""The training loops and those who watch them."""
