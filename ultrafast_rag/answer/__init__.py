"""Hits -> an answer with citations."""
