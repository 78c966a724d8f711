"""Pure arithmetic that both planes need: no input, no output, no clock."""
