"""Question and passage read together: where the answer stands, and whether it stands there at all."""
