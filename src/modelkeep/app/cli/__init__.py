"""The command line. What it needs is imported by the command that needs it, so that `--help` is quick."""

from modelkeep.app.cli.program import main

__all__ = ["main"]
