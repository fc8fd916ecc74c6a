"""The agents, one file an algorithm."""
