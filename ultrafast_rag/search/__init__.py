"""A question -> hits with evidence."""
