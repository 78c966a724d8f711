"""What Modelkeep means: people, models, promises. Nouns are ordered; arrows between them only point down."""
