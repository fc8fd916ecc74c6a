"""What a network is, and how it may change."""
