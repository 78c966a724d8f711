"""Wire formats of predictions, one module each."""
