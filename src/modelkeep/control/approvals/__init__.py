"""Acts that two people must agree to: who asked for what, who else has approved it, and that each approval counts once."""
