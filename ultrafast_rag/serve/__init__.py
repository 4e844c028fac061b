"""Doors to the outside: command line and servers."""
