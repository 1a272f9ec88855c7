"""Captured disks in bundles: the library's own manifest and files, under the number 1.

In a bundle an image has the names that it would have as the first version of a new library: `golden.v1.json`,
`golden.v1-sda1.partclone.zst`. So the same image makes the same bundle wherever it is exported, and whoever has no
Lithograph at hand can unpack the tarball into a library. `renamed` turns a manifest from one name and number to another,
which is all that differs.

An import writes the parts below the library, in a room of their own, and publishes them with `litho.library.Stage`, so that
what the library promises to readers holds here too. What is stored as chunks is told in `chunked`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from litho.errors import LibraryError, NotFoundError
from litho.library import FileRef, ImageRef, Library, Manifest, Owner, Stage, care, names
from litho.library import manifest as library_manifest
from litho.library.chunks import ChunkStore
from litho.library.chunks.store import missing as chunks_missing
from litho_controller.bundle import chunked
from litho_controller.bundle.faults import bad, damaged, shown, telling
from litho_controller.bundle.intake import Member

ROOMS = ".import"
"""Directory of rooms in the library. It begins with a dot, so that no program that looks at names takes it for an image."""
NUMBER = 1
"""Every image's number in a bundle."""


def renamed(manifest: Manifest, name: str, version: int) -> Manifest:
    """The same image under another name and number. Pure. What only meant something in its old library is taken out."""

    def moved(ref: FileRef | None) -> FileRef | None:
        return None if ref is None else msgspec.structs.replace(ref, file=_name(ref.file, name, version))

    return msgspec.structs.replace(
        manifest,
        image=name,
        version=version,
        parent=0,
        parent_image="",
        shared=0,
        task="",
        table_dump=moved(manifest.table_dump),
        head=moved(manifest.head),
        log=moved(manifest.log),
        parts=tuple(msgspec.structs.replace(part, data=moved(part.data)) for part in manifest.parts),
    )


def _name(file: str, name: str, version: int) -> str:
    parsed = names.parse_file(file)
    if parsed is None:
        raise LibraryError(f"{shown(file)} is no file of an image", code="bad-manifest")
    return names.part_file(name, version, parsed.suffix)


def parse(data: bytes, member: str, members: Mapping[str, Member]) -> Manifest:
    """The library manifest in a bundle, held against the files beside it. Raises RefusedError, IntegrityError, LibraryError."""
    base = member.rpartition("/")[2]
    parsed = names.parse_file(base)
    if parsed is None or parsed.suffix or parsed.part:
        raise bad(f"the bundle's image manifest is called {shown(base)}", hint="NAME.v1.json", code="bad-manifest")
    manifest = library_manifest.parse(data, name=parsed.image, version=parsed.version)
    for ref in manifest.files():
        found = members.get(ref.file)
        if found is None:
            raise damaged(f"the bundle has no {shown(ref.file)}, which its image is made of")
        if (found.size, found.sha256) != (ref.bytes, ref.sha256):
            raise damaged(f"{shown(ref.file)} in the bundle is not what the image's manifest says")
    return manifest


class Publication:
    """A version in the making, from the room of a bundle. `close` gives up what was not published."""

    def __init__(
        self,
        library: Library,
        name: str,
        manifest: Manifest,
        members: Mapping[str, Member],
        mark: str,
        *,
        room: Path,
        stop: Callable[[], None],
    ) -> None:
        """Reserves the number, and stores the chunks of an image that has some. Blocks. Raises IntegrityError, LibraryError."""
        self._old = manifest
        self._lying = {name: member.path for name, member in members.items() if member.path is not None}
        self._packs: frozenset[bytes] = frozenset()
        if chunked.has(manifest):
            brought = chunked.bring(library, manifest, members, room, stop)
            manifest = brought.manifest
            self._lying.update(brought.indexes)
            self._packs = brought.packs
        self._stage = Stage.open(library, name, owner(mark))
        self.manifest = renamed(manifest, name, self._stage.version)

    @property
    def version(self) -> int:
        """The number that it has here."""
        return self._stage.version

    @property
    def sha256(self) -> str:
        """Of the manifest's file as it will be."""
        return hashlib.sha256(library_manifest.dump(self.manifest)).hexdigest()

    def publish(self) -> None:
        """Move the parts in and make the version exist. Blocks. Raises LibraryError, LithoError."""
        for old, new in zip(self._old.files(), self.manifest.files(), strict=True):
            parsed = names.parse_file(new.file)
            lying = self._lying.get(old.file)
            if parsed is None or lying is None:
                raise LibraryError(f"{shown(new.file)} cannot be published", code="bad-manifest")
            self._stage.create(parsed.suffix).close()
            with telling(lying):
                os.chmod(lying, 0o644)  # noqa: PTH101 - beside the other calls of os that a crash is tried at
                os.rename(lying, self._stage.library.root / (new.file + ".part"))  # noqa: PTH104 - as above
        if self._packs:
            # A collector that begins now sees the indexes; what one has condemned since they were written comes back here.
            gone = ChunkStore(self._stage.library).hold(self._packs)
            if gone:
                raise chunks_missing(gone)
        self._stage.publish(self.manifest)

    def close(self) -> None:
        """Give up what was not published. Never raises."""
        self._stage.abort()


def owner(mark: str) -> Owner:
    """Who makes a version here: told from captures by its session, and from imports of another controller by its host."""
    return Owner(session=f"import-{mark}", host=socket.gethostname(), pid=os.getpid())


def take_back(library: Library, mark: str, name: str, version: int, sha256: str) -> None:
    """Remove what an import that did not come to its end left in the library. Blocks. Raises LithoError.

    A published version is removed only when its manifest is the very one that the import wrote.
    """

    def dead(found: Owner | None) -> bool:
        return found is not None and (found.session, found.host) == (f"import-{mark}", socket.gethostname())

    if version:
        path = library.root / names.manifest_file(name, version)
        with telling(path):
            ours = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        if ours:
            with contextlib.suppress(NotFoundError):
                care.remove(library, ImageRef(name, version))
    care.sweep(library, dead=dead)


def rooms(library: Library) -> Path:
    """Where rooms are made in a library."""
    return library.root / ROOMS
