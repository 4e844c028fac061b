"""Recordings and films -> elements."""
