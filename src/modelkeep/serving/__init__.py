"""The fast path: from a request's bytes to an answer's bytes, with no database and no web framework."""
