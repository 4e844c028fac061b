"""Sound -> words."""
