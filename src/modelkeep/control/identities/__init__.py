"""People whom other systems know: who of them may come in, as whom, and into which groups."""
