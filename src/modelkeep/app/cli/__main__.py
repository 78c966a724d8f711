"""`python -m modelkeep.app.cli` is `modelkeep`."""

from modelkeep.app.cli.program import main

main()
