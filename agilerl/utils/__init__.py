"""The front door: what the README types first."""
