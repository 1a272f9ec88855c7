"""The library for one job: a directory as it is, or one whose packs come over HTTP.

With the mounted library among the sources everything but the packs is read there. Without it, the few small files of the one
version (manifest, partition table, heads, indexes of partitions) are fetched first, each checked, into a directory of the node
that looks like a library with that one version and no pack in it. So what reads manifests and tables knows nothing of HTTP. The
directory lies in the root image's memory: 40 bytes for each chunk of the image, 0.3 GB for a terabyte of used data.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from litho.errors import IntegrityError, LibraryError, NotFoundError, RefusedError
from litho.job import Job
from litho.library import FileRef, Library, Manifest, files, manifest, names, shelf
from litho.library.chunks.store import DIRECTORY
from litho.library.names import ImageRef
from litho_agent.mover import WorkOrder
from litho_agent.remote import wire
from litho_agent.remote.answers import SourceError
from litho_agent.remote.several import Mounted, Several, Source
from litho_agent.remote.web import WebSource
from litho_agent.telling import Teller


@contextlib.contextmanager
def opened(order: WorkOrder, teller: Teller) -> Iterator[Library]:
    """The library that `order` reads, for as long as the block lasts.

    Raises LibraryError, NotFoundError, RefusedError when the image is not in chunks and no directory is among the sources,
    UsageError, CancelledError.
    """
    if not order.sources:
        yield Library.open(Path(order.library))
        return
    tls = wire.context(Path(order.ca) if order.ca else None)
    webs = [WebSource(one, tls=tls, cancelled=teller.cancelled) for one in order.sources]
    try:
        with contextlib.ExitStack() as held:
            members: list[Source] = [*webs]
            if order.library:
                library = Library.open(Path(order.library))
                members.insert(0, Mounted(library.root, library.root / DIRECTORY))
                library.packs = several = Several(
                    members, note=teller.note, cancelled=teller.cancelled, identity=library.identity
                )
            else:
                several = Several(members, note=teller.note, cancelled=teller.cancelled)
                room = held.enter_context(tempfile.TemporaryDirectory(prefix="litho-image-"))
                library = fetched(several, order.job, Path(room))
                library.packs = several
            yield library
            teller.note(several.told())
    finally:
        for one in webs:
            one.close()


def fetched(several: Several, job: Job, room: Path) -> Library:
    """A library in the empty directory `room` that holds the small files of the job's version. Raises as `opened` does."""
    name = names.check_name(job.image)
    try:
        version = job.version or _current(several, name)
        data, found = several.whole(
            names.manifest_file(name, version),
            manifest.MAX_BYTES,
            lambda data: (data, manifest.parse(data, name=name, version=version)),
        )
    except SourceError as exc:
        if not exc.missing:
            raise
        raise _no_image(job, several) from exc
    require_chunks(found, several)
    with files.telling(room):
        free = os.statvfs(room)
        wanted = sum(ref.bytes for ref in found.files())
        if wanted > free.f_bavail * free.f_frsize:
            raise LibraryError(
                f"the tables and indexes of {name}:{version} take {wanted} bytes, and the node has no room for them in {room}",
                hint="give the node more memory, or read the library over NFS",
                code="no-room",
            )
        marker = shelf.Marker(library=several.identity)
        (room / shelf.MARKER).write_bytes(msgspec.json.encode(marker))
        (room / DIRECTORY).mkdir()
        several.room = room / DIRECTORY
        for ref in found.files():
            (room / ref.file).write_bytes(several.whole(ref.file, ref.bytes, partial(_same, ref)))
        (room / names.manifest_file(name, version)).write_bytes(data)
    return Library.open(room)


def current(order: WorkOrder, *, note: Callable[[str], None], cancelled: Callable[[], bool]) -> int:
    """The version that a restore from web servers alone would take. Raises as `opened` does."""
    tls = wire.context(Path(order.ca) if order.ca else None)
    webs = [WebSource(one, tls=tls, cancelled=cancelled) for one in order.sources]
    try:
        several = Several(webs, note=note, cancelled=cancelled)
        return order.job.version or _current(several, names.check_name(order.job.image))
    except SourceError as exc:
        if not exc.missing:
            raise
        raise _no_image(order.job, several) from exc
    finally:
        for one in webs:
            one.close()


def _current(several: Several, name: str) -> int:
    return several.whole(names.pointer_file(name), shelf.SMALL, lambda data: manifest.parse_pointer(data, name=name))


def _no_image(job: Job, several: Several) -> NotFoundError:
    return NotFoundError(
        f"there is no image {ImageRef(job.image, job.version)} at {several}",
        hint="see what there is with: litho image ls",
        code="image-missing",
    )


def require_chunks(found: Manifest, several: Several) -> None:
    """Raise RefusedError unless every part that holds something is in chunks."""
    for part in found.parts:
        if part.kind == "stream" and not part.chunk_root:
            raise RefusedError(
                f"partition {part.number} of {found.image}:{found.version} is a stream of {part.engine}, and over HTTP "
                f"({several}) only images in chunks can be read",
                hint="add nfs to the sources, or capture it with --engine chunk",
                code="not-chunks",
            )


def _same(ref: FileRef, data: bytes) -> bytes:
    if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise IntegrityError(f"the file {ref.file} is damaged: its SHA-256 is not what the manifest says")
    return data
