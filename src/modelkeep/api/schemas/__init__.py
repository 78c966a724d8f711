"""Wire shapes: what the API takes and gives, kept apart from tables so that either may change alone."""
