"""Predictions: the history of what was asked and answered."""
