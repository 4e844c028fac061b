"""Chunks -> richer chunks, by a model; paid once."""
