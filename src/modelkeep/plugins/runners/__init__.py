"""Runner plugins: one file format family each. They see the contracts only."""
