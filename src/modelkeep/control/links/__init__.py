"""One-time links: an invitation to register, or a new password for one person."""
