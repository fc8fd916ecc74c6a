"""Data sets: offline transitions and language."""
