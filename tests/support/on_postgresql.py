"""A pytest plugin (`-p support.on_postgresql`): tests that open a store in an SQLite file get a real PostgreSQL's instead.

One server for the run, on a unix socket in a directory of its own, started as the user postgres. Each SQLite address is given one
of a few databases in turn, so that opening the same address twice finds what was there.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from litho_controller.store import Store
from litho_controller.store.schema import metadata

USER = "postgres"
SETTINGS = ("listen_addresses=''", "fsync=off", "full_page_writes=off", "max_connections=50", "jit=off")
ROTATION = 4
"""Databases; no test opens more at a time."""
OPENED: dict[str, str] = {}
"""SQLite's address -> PostgreSQL's."""


class Server:
    """A running PostgreSQL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]

    def run(self, program: str, *words: str, check: bool = True) -> str:
        """One of PostgreSQL's programs, as its user."""
        argv = [str(self._bin / program), *words]
        if os.geteuid() == 0:
            argv = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--reset-env", *argv]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, cwd=self.folder)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        log = self.folder / "log"
        options = " ".join(f"-c {setting}" for setting in SETTINGS)
        data = str(self.folder / "data")
        self.run("pg_ctl", "-D", data, "-l", str(log), "-w", "-o", f"-k {self.folder} {options}", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop", check=False)

    def create(self, name: str) -> str:
        """Make a database; answers its address."""
        self.run("createdb", "-h", str(self.folder), "-U", USER, name)
        return f"postgresql+asyncpg://{USER}@/{name}?host={self.folder}"


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A PostgreSQL that is empty, and gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="litho-pg-"))
    running = Server(folder)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        running.run("initdb", "-D", str(folder / "data"), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _postgresql() -> Iterator[None]:
    with server() as running, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "open", _opener(running))
        yield


def _opener(running: Server):
    real = Store.open.__func__
    shelf = itertools.cycle([running.create(f"litho{number}") for number in range(ROTATION)])

    async def opened(url: str) -> Store:
        if not url.startswith("sqlite+aiosqlite:///"):
            return await real(Store, url)
        if url not in OPENED:
            OPENED[url] = next(shelf)
            await _clear(await real(Store, OPENED[url]))
        return await real(Store, OPENED[url])

    return staticmethod(opened)


async def _clear(store: Store) -> None:
    """Empty every table, and count from 1 again: faster than a new database."""
    names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
    async with store.write() as conn:
        await conn.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY"))
    await store.close()
