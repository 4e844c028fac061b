"""Beyond one notebook: over HTTP, for agents, on several machines."""
