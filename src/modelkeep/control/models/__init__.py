"""Models, their versions, and what validation said of them."""
