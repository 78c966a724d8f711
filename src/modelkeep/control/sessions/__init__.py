"""Who is logged in: sessions, their tokens, and what signs these."""
