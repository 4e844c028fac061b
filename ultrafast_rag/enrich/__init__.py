"""Chunks -> richer chunks, by a model; paid once."""

ENRICHED = "enriched:"
"""Before the name of a source: what a model says of it."""
