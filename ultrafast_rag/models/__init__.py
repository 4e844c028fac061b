"""The models: which there are, what they weigh, where they run."""
