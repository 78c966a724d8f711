"""Mechanisms without opinions: database, jobs, broadcast, logs, secrets."""
