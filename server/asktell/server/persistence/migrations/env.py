"""Runs migrations on the connection that `persistence.migration` hands over, inside its transaction."""

from alembic import context

from asktell.server.persistence.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, compare_type=True)
context.run_migrations()
