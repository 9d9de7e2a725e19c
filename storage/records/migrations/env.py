"""Run by Alembic, on the connection that `upgrade` hands over."""

from alembic import context

from storage.records.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # Alembic assumes SQLite has none; it does once the driver leaves BEGIN to us
)
with context.begin_transaction():
    context.run_migrations()
