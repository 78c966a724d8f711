"""Modelkeep keeps, serves and watches machine-learning models inside your own walls."""
