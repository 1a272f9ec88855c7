"""How Alembic runs here: on the connection that `Store.open` hands in, inside its transaction, and in no other way."""

from __future__ import annotations

from alembic import context

from litho_controller.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can do DDL inside a transaction; with it a migration happens whole or not at all.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
