"""Pictures and texts -> one space."""
