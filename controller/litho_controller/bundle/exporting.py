"""Exporting an image, from top to bottom.

    collect     the files, from what osimage and linuximage say (`collect`)
    hash        every file, for SHA256SUMS, and the signature over that when a key is named
    write       the tarball, in one order, reproducibly, beside its name; then it gets its name

A file that changes in between is an error, not a bundle that nobody can import: of every file the inode's times must be those
that it had when it was found, and small files are hashed a second time while they are written.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import posixpath
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from litho.errors import LithoError, RefusedError, UsageError
from litho.library import Library, parse_ref
from litho.library.files import fsync_dir
from litho_controller.bundle import collect, leftovers, sums, xcat
from litho_controller.bundle import manifest as cfg
from litho_controller.bundle import rows as rows_of
from litho_controller.bundle.collect import Collected, Piece, Row
from litho_controller.bundle.faults import telling
from litho_controller.bundle.intake import Tick
from litho_controller.bundle.model import COLUMN_FILES
from litho_controller.bundle.plan import TREE
from litho_controller.bundle.requests import Exported, ExportRequest
from litho_controller.bundle.rows import KEY
from litho_controller.bundle.site import Site
from litho_controller.bundle.tarwrite import BLOCK, TarWriter, packing_of
from litho_controller.bundle.xcat import XcatExtra, XcatManifest

log = logging.getLogger("litho.bundle")

BY_TIME = 64 * 1024 * 1024
"""Bytes; a larger file that was hashed a moment ago is the same while inode, size and times are."""
FLUSH = 32 * 1024 * 1024
"""Bytes that are written before the disk is asked to take them."""


def export(
    request: ExportRequest,
    osimage: Row,
    linuximage: Row,
    *,
    site: Site,
    library: Library,
    tick: Tick = lambda done, total: None,
    stop: Callable[[], None] = lambda: None,
) -> Exported:
    """Write the tarball that `request` asks for, of the image with these two rows. Blocks.

    Raises NotFoundError, RefusedError, UsageError, LibraryError, LithoError; then there is no new tarball.
    """
    target = Path(request.tarball)
    packing = packing_of(target.name)
    ref = parse_ref(request.name)
    with telling(target):
        if os.path.lexists(target) and not request.replace:
            raise RefusedError(f"{target} exists already", hint="use --replace, or another name", code="file-exists")
        if os.path.lexists(target) and not target.is_file():
            # A rename would put the tarball in the place of a device or a directory.
            raise RefusedError(f"{target} is not a file", hint="name a file", code="file-exists")
    for gone in leftovers.sweep(target.parent):
        log.warning("%s was left by an export that did not end, and is taken away", gone)
    with contextlib.ExitStack() as stack:
        found = collect.collect(
            ref,
            osimage,
            linuximage,
            request.extra,
            site=site,
            library=library,
            scratch=lambda: stack.enter_context(_scratch(target.parent)),
        )
        work = _Work(found, tick, stop)
        about = work.about_xcat(request) if request.form == "xcat" else work.about(request)
        size = work.write(target, packing, about)
    return Exported(
        name=found.manifest.name,
        tarball=str(target),
        bytes=size,
        files=tuple(piece.member for piece in (*about, *found.files)),
        signed=bool(request.sign),
        notes=tuple(work.notes),
    )


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A directory for what is packed on the way, beside the tarball, where there must be room anyway."""
    with contextlib.ExitStack() as stack:
        with telling(folder):
            made = stack.enter_context(leftovers.scratch(folder))
        yield made


class _Work:
    """The bytes of one export."""

    def __init__(self, found: Collected, tick: Tick, stop: Callable[[], None]) -> None:
        self.notes: list[str] = []
        self._found = found
        self._tick = tick
        self._stop = stop
        self._done = 0
        self._total = sum(piece.size for piece in found.files)

    def about(self, request: ExportRequest) -> list[Piece]:
        """manifest.cfg and what else stands in front, in the order in which it is written."""
        found = self._found
        described = collect.made(cfg.FILE, cfg.dump(found.manifest))
        rows = collect.made(rows_of.FILE, rows_of.dump(found.rows))
        self._hash([piece for piece in found.files if not piece.sha256])
        listed = [described, rows, *found.files]
        promised = sums.dump({piece.member: piece.sha256 for piece in listed}, sum(piece.size for piece in listed))
        signature = [collect.made(sums.SIGNATURE, sums.sign(promised, Path(request.sign)))] if request.sign else []
        return [described, collect.made(sums.FILE, promised), *signature, rows]

    def about_xcat(self, request: ExportRequest) -> list[Piece]:
        """manifest.xml, after the files have got the names that xCAT's imgimport looks for."""
        found = self._found
        manifest, rows = found.manifest, found.rows
        if request.sign:
            raise UsageError("xCAT's form has no place for a signature", hint="leave out --sign, or --format xcat")
        if manifest.method == "image":
            raise UsageError("xCAT's form cannot carry a captured disk", hint="leave out --format xcat")
        places = {}
        if manifest.method != "install":
            rootimg = "rootimg" if manifest.method == "netboot" else "rootimgtree"
            if rootimg == "rootimgtree" and manifest.rootimg != "rootimgtree.gz":
                raise RefusedError(
                    f"xCAT's form has the tree of a statelite image as rootimgtree.gz, and here is {manifest.rootimg}",
                    hint="remove the packed root image; then the tree is packed for the export",
                    code="not-exportable",
                )
            below = f"{TREE}/" if rootimg == "rootimgtree" else ""
            places = {
                "kernel": f"{found.home}/{manifest.kernel}",
                "ramdisk": f"{found.home}/{manifest.initrd}",
                rootimg: f"{found.home}/{below}{manifest.rootimg}",
            }
        extra_members = {extra.file for extra in manifest.extra}
        folder = manifest.name
        self._column_files()
        for piece in found.files:
            piece.member = (
                f"{folder}/extra/{piece.member}" if piece.member in extra_members else f"{folder}/{piece.member}"
            )
        collect.need_distinct(found.files)
        linuximage = dict(rows.linuximage)
        if manifest.method == "install":
            linuximage["template"] = found.home
        described = XcatManifest(
            osimage={**rows.osimage, KEY: manifest.name},
            linuximage={**linuximage, KEY: manifest.name},
            files=places,
            media=manifest.media,
            extra=tuple(XcatExtra(extra.file, extra.path) for extra in manifest.extra),
        )
        return [collect.made(f"{folder}/{xcat.FILE}", xcat.dump(described))]

    def _column_files(self) -> None:
        """xCAT's form carries package lists and such along; one that is missing is left out, as there."""
        for table, columns in COLUMN_FILES.items():
            for column in columns:
                for path in self._found.rows.table(table).get(column, "").split(","):
                    if path and Path(path).is_file():
                        piece = collect.piece_of(posixpath.basename(path), Path(path), f"{table}.{column}")
                        self._found.files.append(piece)
                        self._total += piece.size
                    elif path:
                        self.notes.append(f"{table}.{column} names {path}, which is not there and was left out")

    def _hash(self, pieces: list[Piece]) -> None:
        """Hash what nobody has hashed yet."""
        self._total += sum(piece.size for piece in pieces)
        for piece in pieces:
            with _Digest() as digest:
                for block in self._blocks(piece):
                    digest.update(block)
                piece.sha256 = digest.hexdigest()
            piece.hashed = True

    def write(self, target: Path, packing: str, about: list[Piece]) -> int:
        """Write the tarball; answers its size in bytes."""
        with telling(target):
            beside, raw = leftovers.write_beside(target)
            try:
                with raw:
                    with _Flushing(raw) as out, TarWriter(out, packing) as tar:
                        for piece in (*about, *self._found.files):
                            self._add(tar, piece)
                    os.fsync(raw.fileno())
                    size = raw.tell()
                beside.rename(target)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            fsync_dir(target.parent)
        return size

    def _add(self, tar: TarWriter, piece: Piece) -> None:
        if piece.path is None and piece.source is None:
            tar.add(piece.member, piece.data)
            return
        tar.begin(piece.member, piece.size, executable=piece.executable)
        # Whoever changes a large file while it is hashed takes longer than the file system's clock ticks.
        by_time = piece.size > BY_TIME and bool(piece.seen) and piece.hashed
        with _Digest() as digest:
            for block in self._blocks(piece):
                if not by_time:
                    digest.update(block)
                tar.write(block)
            same = by_time or not piece.sha256 or digest.hexdigest() == piece.sha256
        # Its times were looked at when it was found: so all files of a bundle are of one moment, and none was cut to the size
        # that it had then.
        if not same or (piece.path is not None and piece.seen and collect.seen(piece.path) != piece.seen):
            raise LithoError(
                f"{piece.path or piece.member} changed while it was exported, or is not what its manifest says",
                hint="export when nobody changes the image; a captured disk: litho image verify",
                code="changed",
            )

    def _blocks(self, piece: Piece) -> Iterator[bytes]:
        """A file's bytes, exactly as many as it had in the beginning."""
        if piece.source is not None:
            for block in piece.source():
                self._stop()
                self._done += len(block)
                self._tick(self._done, self._total)
                yield block
        if piece.path is None:
            return
        left = piece.size
        with telling(piece.path), piece.path.open("rb", buffering=0) as file:
            while left:
                self._stop()
                block = file.read(min(BLOCK, left))
                if not block:
                    raise LithoError(f"{piece.path} became shorter while it was exported", code="changed")
                left -= len(block)
                self._done += len(block)
                self._tick(self._done, self._total)
                yield block


class _Flushing:
    """A file that goes to the disk while it is written, so that the last sync has little left to do."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._since = 0
        self._last: Future[None] | None = None

    def write(self, data: bytes, /) -> int:
        """As the file's own."""
        count = self._file.write(data)
        self._since += count
        if self._since >= FLUSH and (self._last is None or self._last.done()):
            self._since = 0
            if self._last is not None:
                # The kernel tells an error of writing back once, to whoever asks first, and that may have been this.
                self._last.result()
            self._last = self._pool.submit(os.fdatasync, self._file.fileno())
        return count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if kind is None and self._last is not None:
            self._last.result()


class _Digest:
    """SHA-256 of blocks, worked out in a thread while the caller does something else with them."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._last: Future[None] | None = None

    def update(self, block: bytes) -> None:
        self._wait()
        self._last = self._pool.submit(self._digest.update, block)

    def hexdigest(self) -> str:
        self._wait()
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
