"""People, their API keys, and the first set-up."""
