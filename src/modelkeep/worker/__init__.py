"""The back door: jobs, and the courier between the planes."""
