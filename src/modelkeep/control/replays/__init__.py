"""Replays: recorded predictions, or rows of somebody's own, answered again by the uploaded file itself."""
