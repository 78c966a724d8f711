"""Shadows: what servers have seen of versions that are asked beside the promoted one."""
