"""Alembic runs this: the steps go over the connection, and in the transaction, that `migrate` has opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=False, render_as_batch=True)
context.run_migrations()
