"""What runs inside a runner process, and the language that is spoken with it."""
