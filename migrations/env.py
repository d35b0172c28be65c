"""Alembic's entry point; :func:`heartguard.migrate.migrate` calls it with a connection that holds the lock."""

from alembic import context

from heartguard.migrate import SCHEMA

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=SCHEMA,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
