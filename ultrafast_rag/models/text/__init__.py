"""Passages and questions -> vectors."""
