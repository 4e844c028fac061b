"""Chunks, questions and pictures -> vectors; sound -> words."""
