"""Bytes on disk -> a stream of Parts."""
