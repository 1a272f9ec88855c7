"""The database: `schema` is its shape, `engine` opens and migrates it, `tasks` reads and writes the table of tasks."""

from litho_controller.store.engine import Store

__all__ = ["Store"]
