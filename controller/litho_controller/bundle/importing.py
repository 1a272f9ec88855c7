"""Importing a bundle, from top to bottom.

    read        the tarball once, into a room (`intake`); every hash and the signature hold after this
    plan        what goes where (`plan`), held against what is there (`assemble.check`)
    assemble    everything is made ready in the room
    journal     what is going to happen is written down
    place       files are renamed to their places, a captured disk is published
    commit      the rows are written, and the journal's id with them, in one transaction: now the image is imported
    forget      the room and the journal go

Up to the journal a failure only leaves the room, which is deleted, or kept for a second try when the reading was cut short.
From the journal on, whatever fails before the commit is taken back, by this process or, after a crash, by the next one
(`recover`). One import at a time; whoever asks for another waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import LithoError, RefusedError
from litho.library import Library
from litho_controller.bundle import captured, faults
from litho_controller.bundle import journal as log_of
from litho_controller.bundle import site as site_of
from litho_controller.bundle.faults import telling
from litho_controller.bundle.intake import Tick
from litho_controller.bundle.job import ROOMS, Job
from litho_controller.bundle.journal import Journal
from litho_controller.bundle.plan import Plan
from litho_controller.bundle.requests import Imported, ImportRequest
from litho_controller.store import Store
from litho_controller.store.schema import bundle_import
from litho_controller.tables import rows
from litho_controller.tables.schema import TABLES

log = logging.getLogger("litho.bundle")

KEPT_S = 7 * 86400.0
"""Seconds that the room of a reading that was cut short waits for the second try."""


class Importer:
    """Imports bundles into one site. `library` is where captured disks go."""

    def __init__(self, store: Store, library: Library, state_dir: Path) -> None:
        self._store = store
        self._library = library
        self._journals = state_dir / "imports"
        self._one = asyncio.Lock()
        self._recovered = False

    async def run(
        self,
        request: ImportRequest,
        *,
        tick: Tick = lambda done, total: None,
        cancelled: threading.Event | None = None,
    ) -> Imported:
        """Import one bundle. `cancelled` ends the reading when it is set. Raises LithoError; then nothing has changed."""
        flag = cancelled or threading.Event()

        def stop() -> None:
            if flag.is_set():
                raise faults.cancelled()

        async with self._one:
            if not self._recovered:
                await self._recover()
            async with self._store.read() as conn:
                site = site_of.parse(await rows.column(conn, "site", "value"))
            work = Job(self._library, self._journals, request, site, tick=tick, stop=stop)
            try:
                await asyncio.to_thread(work.read)
                async with self._store.read() as conn:
                    await _refuse_taken(conn, work.plan.name, replace=request.replace)
                await asyncio.to_thread(work.check)
                if request.dry_run:
                    return work.report(dry_run=True)
                await asyncio.to_thread(work.assemble)
                # From here on nothing stops it half-way: it is done, or taken back.
                done = asyncio.ensure_future(self._finish(work))
                try:
                    return await asyncio.shield(done)
                except asyncio.CancelledError:
                    await asyncio.wait([done])
                    raise
            except LithoError as exc:
                await asyncio.to_thread(work.give_up, exc)
                raise

    async def _finish(self, work: Job) -> Imported:
        journal, path = await asyncio.to_thread(work.write_journal)
        try:
            await asyncio.to_thread(work.place)
            async with self._store.write() as conn:
                await _refuse_taken(conn, work.plan.name, replace=work.request.replace)
                await _put_rows(conn, work.plan)
                await conn.execute(
                    sa.insert(bundle_import).values(id=journal.id, imagename=work.plan.name, committed=time.time())
                )
        except BaseException:
            # When this fails as well, the journal stays, and the next start tries again.
            await asyncio.to_thread(work.close)
            await asyncio.to_thread(_take_back, self._library, journal)
            await asyncio.to_thread(log_of.forget, path, journal)
            raise
        report = work.report(dry_run=False)
        log.info("imported %s from %s", work.plan.name, work.request.tarball)
        # What is left is tidying up, and the next start does it when it fails here.
        try:
            await self._forget(path, journal)
        except LithoError as exc:
            log.warning("the import of %s is done, but its room could not be deleted: %s", work.plan.name, exc)
        return report

    async def _forget(self, path: Path, journal: Journal) -> None:
        await asyncio.to_thread(log_of.forget, path, journal)
        async with self._store.write() as conn:
            await conn.execute(sa.delete(bundle_import).where(bundle_import.c.id == journal.id))

    async def recover(self) -> None:
        """Bring every import that a crash interrupted to its end, one way or the other. Never raises: what cannot be done now is
        logged, and tried again before the next import.
        """
        async with self._one:
            try:
                await self._recover()
            except LithoError as exc:
                log.error(
                    "an import that was interrupted could not be put right: %s; nothing is imported until it is", exc
                )

    async def _recover(self) -> None:
        async with self._store.read() as conn:
            committed = set((await conn.execute(sa.select(bundle_import.c.id))).scalars())
            site = site_of.parse(await rows.column(conn, "site", "value"))
        for path, journal in await asyncio.to_thread(log_of.pending, self._journals):
            if journal.id not in committed:
                await asyncio.to_thread(_take_back, self._library, journal)
            await self._forget(path, journal)
            word = "completed" if journal.id in committed else "taken back"
            log.warning("an import of %s that was interrupted was %s", journal.name, word)
        if committed:
            async with self._store.write() as conn:
                # A journal that is gone with its id still here: the crash came between the two.
                await conn.execute(sa.delete(bundle_import))
        for base in (Path(site.install) / ROOMS, captured.rooms(self._library)):
            await asyncio.to_thread(_sweep_rooms, base)
        self._recovered = True


async def _refuse_taken(conn: AsyncConnection, name: str, *, replace: bool) -> None:
    for table in ("osimage", "linuximage"):
        if not replace and await rows.get(conn, table, name):
            raise RefusedError(
                f"there is an osimage {name} already (table {table})",
                hint="--replace writes over it, --rename NEW imports the image under another name",
                code="osimage-exists",
            )


async def _put_rows(conn: AsyncConnection, plan: Plan) -> None:
    """Both rows, whole: a column that the bundle does not have is empty afterwards."""
    for table, cells in (("osimage", plan.osimage), ("linuximage", plan.linuximage)):
        columns = [column for column in TABLES[table].columns if column != TABLES[table].key]
        await rows.put(conn, table, plan.name, {column: cells.get(column) for column in columns})


def _take_back(library: Library, journal: Journal) -> None:
    log_of.undo(journal)
    if journal.image:
        captured.take_back(library, journal.id, journal.image, journal.version, journal.sha256)


def _sweep_rooms(base: Path) -> None:
    """Delete rooms that nobody came back to."""
    with telling(base):
        if not base.is_dir():
            return
        for room in base.iterdir():
            if room.name.startswith("once-") or time.time() - room.stat().st_mtime > KEPT_S:
                if room.is_dir() and not room.is_symlink():
                    shutil.rmtree(room)
                else:
                    room.unlink()
        with contextlib.suppress(OSError):
            base.rmdir()
