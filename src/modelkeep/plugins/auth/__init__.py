"""Identity providers that come with Modelkeep."""
