"""Other libraries on the same machine: each in its own environment, each timed by one runner."""
