"""Sources -> committed chunks."""
