"""Opening the database, leading it to the newest shape, and the two ways into it: `read` and `write`.

SQLite is the default and shapes the rules, which hold for PostgreSQL as well:

* One writer at a time. `write` takes a lock of this process and begins with `BEGIN IMMEDIATE`, so that what a transaction has
  read is still true when it writes; without it two transactions that read first and write later fail with "database is locked".
* Readers do not wait (WAL), and see one moment.
* A transaction is short and awaits nothing but the database.

PostgreSQL gets there by other ways: REPEATABLE READ, where a reader sees one moment, too, and a writer whose rows somebody else
has changed meanwhile (a person with psql) fails instead of undoing it. A connection is tried before it is used again, so that a
server that was restarted costs nothing. It knows no NUL in a text, which a node's words may hold: it becomes U+FFFD.

Trap: Python's sqlite3 begins transactions by itself, and only before an INSERT. That is switched off (`isolation_level = None`)
and a listener says BEGIN, as SQLAlchemy's documentation of pysqlite advises.

A database that a newer Lithograph has written is refused: its rows may mean things that this code does not know.

SQLite's files are for their owner alone: the table ipmi has passwords in it, and the directory may be walked through by others
(the broker's user).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from litho.errors import ConfigError, LithoError, RefusedError

log = logging.getLogger("litho.store")
# It tells at every start what `_migrate` tells when there is something to tell.
logging.getLogger("alembic").setLevel(logging.WARNING)

BUSY_MS = 5000
"""Milliseconds that SQLite waits for a lock of another process (a backup, a person's sqlite3)."""
_WRITES = "litho_writes"
_ADDRESS = "write postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME, or leave `database` empty for SQLite"


class Store:
    """The open database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = asyncio.Lock()

    @classmethod
    async def open(cls, url: str) -> Store:
        """Open the database at `url` and lead it to the newest shape.

        Raises ConfigError for an address that cannot be used, RefusedError for a database newer than this code, LithoError.
        """
        try:
            engine = create_async_engine(url, **_options(url))
        except ModuleNotFoundError as exc:
            raise ConfigError(
                f"the database driver {exc.name} is not installed",
                hint="install it, or leave `database` empty for SQLite",
            ) from exc
        except SQLAlchemyError as exc:
            raise ConfigError("the database address cannot be used", hint=str(exc).splitlines()[0]) from exc
        except (TypeError, ValueError):
            # Its words hold pieces of the address, and so perhaps of the password.
            raise ConfigError("the database address cannot be used", hint=_ADDRESS) from None
        if engine.dialect.name == "sqlite":
            if engine.url.database and engine.url.database != ":memory:":
                await asyncio.to_thread(_close_to_others, Path(engine.url.database))
            sa.event.listen(engine.sync_engine, "connect", _connected)
            sa.event.listen(engine.sync_engine, "begin", _begun)
        else:
            sa.event.listen(engine.sync_engine, "before_cursor_execute", _without_nul, retval=True)
        store = cls(engine)
        try:
            async with store.write() as conn:
                await conn.run_sync(_migrate)
        except BaseException:
            await engine.dispose()
            raise
        return store

    async def close(self) -> None:
        """Give up all connections."""
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads. Raises LithoError."""
        with telling():
            async with self._connection() as conn:
                yield conn

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write: committed when the block ends, undone by any exception. Raises LithoError."""
        with telling():
            async with self._writer, self._connection() as conn:
                await conn.execution_options(**{_WRITES: True})
                async with conn.begin():
                    yield conn

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection. asyncpg's own errors while it connects come through SQLAlchemy as they are. Raises LithoError."""
        connected = False
        try:
            async with self._engine.connect() as conn:
                connected = True
                yield conn
        except Exception as exc:
            if not connected and isinstance(exc, (TypeError, ValueError)):
                # The driver's way to say that it does not know an option of the address.
                raise ConfigError("the database address cannot be used", hint=_ADDRESS) from None
            if connected or not (isinstance(exc, OSError) or type(exc).__module__.startswith("asyncpg.")):
                raise
            said = (getattr(exc, "strerror", None) or str(exc) or type(exc).__name__).splitlines()[0][:300]
            raise LithoError(
                f"the database cannot be reached ({said})",
                hint="check that its server runs, and the setting `database`",
                code="database-unreachable",
            ) from exc


def _options(url: str) -> dict[str, Any]:
    return {} if url.startswith("sqlite") else {"isolation_level": "REPEATABLE READ", "pool_pre_ping": True}


def _without_nul(
    _conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, executemany: bool
) -> tuple[str, Any]:
    def clean(row: Any) -> Any:
        if isinstance(row, dict):
            return {name: _text(value) for name, value in row.items()}
        return tuple(_text(value) for value in row)

    return statement, [clean(row) for row in parameters] if executemany else clean(parameters)


def _text(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _close_to_others(path: Path) -> None:
    """Make the database, or what is there of it, its owner's alone; SQLite gives its log the database's rights. Blocks.

    What cannot be done is left to the opening, which tells it in a sentence.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for suffix in ("", "-wal", "-shm"):
            found = path.with_name(path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                found.chmod(found.stat().st_mode & 0o700)


def _connected(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        "journal_mode=WAL",
        # NORMAL would lose the last transactions in a power cut; an acknowledged event must not be lost.
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begun(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# ---------------------------------------------------------------- migrations


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", "litho_controller.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _migrate(connection: sa.Connection) -> None:
    config = _alembic()
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    found = set(MigrationContext.configure(connection).get_current_heads())
    if not found <= known:
        raise RefusedError(
            f"the database was written by a newer Lithograph (its revision is {', '.join(sorted(found - known))}, "
            f"this one knows up to {scripts.get_current_head()})",
            hint="install the newer version again, or restore the database from a backup of before",
            code="database-newer",
        )
    if found != {scripts.get_current_head()}:
        log.info(
            "leading the database from revision %s to %s", *(sorted(found) or ["none"]), scripts.get_current_head()
        )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


# ---------------------------------------------------------------- errors


@contextlib.contextmanager
def telling() -> Any:
    """Whatever the database raises inside becomes a LithoError with a sentence."""
    try:
        yield
    except SQLAlchemyError as exc:
        raise database_error(exc) from exc


def database_error(exc: SQLAlchemyError) -> LithoError:
    """What went wrong with the database, in words."""
    origin = exc.orig if isinstance(exc, DBAPIError) else None
    said = str(origin or exc).splitlines()[0][:300]
    code = getattr(origin, "sqlite_errorcode", 0) or getattr(getattr(origin, "__cause__", None), "sqlite_errorcode", 0)
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return LithoError(
                "the database cannot grow: its file system is full",
                hint="free some space; nothing that was acknowledged is lost",
                code="database-full",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return LithoError(
                f"the database has been locked by another program for {BUSY_MS // 1000} s",
                hint="end the program that holds it (a backup, or sqlite3 with an open transaction)",
                code="database-locked",
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return LithoError(
                "the database cannot be opened for writing",
                hint="check the rights of state_dir and that it is not mounted read-only",
                code="database-denied",
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return LithoError(
                f"the database is damaged ({said})", hint="restore it from a backup", code="database-damaged"
            )
    return LithoError(f"the database failed ({said})", code="database")
