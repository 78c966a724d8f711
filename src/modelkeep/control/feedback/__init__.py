"""Feedback: what people and systems later say of predictions, and which of them were wrong."""
