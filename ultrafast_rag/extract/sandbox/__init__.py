"""Reader processes with limits."""
