"""Fixtures for all tests live in modules of their own; each part of the house adds its line."""

pytest_plugins = ["fixtures.databases", "fixtures.control"]
