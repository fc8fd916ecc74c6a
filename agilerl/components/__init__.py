"""What moves between an environment and an agent."""
