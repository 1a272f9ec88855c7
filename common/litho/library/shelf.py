"""Finding what is in a library.

A version exists when its manifest does, an image when its pointer (`golden.json`) does. Nothing here changes a library but
`Library.create`, which makes a new empty one.

The marker `.lithograph` tells a library from an empty directory: a mount point on which nothing is mounted has none, and writing
there would fill the node's memory instead of the file server.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from litho.errors import LibraryError, NotFoundError, RefusedError
from litho.library import files, manifest, names
from litho.library.manifest import Manifest
from litho.library.names import ImageRef

if TYPE_CHECKING:
    from litho.library.chunks.spans import PackSource

MARKER = ".lithograph"
EMPTY = frozenset({"lost+found"})
"""What may lie in a directory that counts as empty: what mkfs makes."""
SMALL = 64 * 1024
"""Bytes; more than any marker, pointer or reservation has."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What the marker file holds."""

    format: Literal[1] = 1
    library: Annotated[str, msgspec.Meta(max_length=64)]
    """A random identifier, so that two mounts of one library can be told from two libraries."""


def _check_empty(root: Path) -> None:
    """Raise RefusedError when something lies in `root`."""
    ours = {path.name for path, target in files.temporaries(root) if target == MARKER}
    foreign = sorted({path.name for path in root.iterdir()} - EMPTY - ours)
    if foreign:
        some = ", ".join(name[:40] for name in foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise RefusedError(
            f"{root} is not empty: it holds {some}",
            hint="name an empty directory, or say --here: then it becomes a library, and what lies there is left alone",
            code="not-empty",
        )


class Library:
    """An opened image library."""

    def __init__(self, root: Path, identity: str) -> None:
        self.root = root
        self.identity = identity
        self.packs: PackSource | None = None
        """Where the chunks' packs are read from, when that is not the directory alone."""

    def __repr__(self) -> str:
        return f"Library({str(self.root)!r})"

    @classmethod
    def create(cls, root: Path, *, here: bool = True) -> Library:
        """Make `root` a library if it is none yet, and open it. Without `here` only an empty directory becomes one. Raises
        RefusedError, LibraryError."""
        with files.telling(root):
            if root.exists() and not root.is_dir():
                raise LibraryError(f"{root} is no directory", hint="name a directory, or one that is still to be made")
            root.mkdir(parents=True, exist_ok=True)
            if not (root / MARKER).exists():
                if not here:
                    _check_empty(root)
                marker = Marker(library=str(uuid.uuid4()))
                # Of two that do this at once one wins, and both go on with the winner's.
                with contextlib.suppress(FileExistsError):
                    files.create_whole(root / MARKER, msgspec.json.encode(marker) + b"\n")
                files.fsync_dir(root)
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> Library:
        """Open the library at `root`. Raises LibraryError when there is none."""
        try:
            data = files.read_small(root / MARKER, SMALL)
        except FileNotFoundError as exc:
            with files.telling(root):
                what = "has no marker file .lithograph" if root.is_dir() else "does not exist"
            raise LibraryError(
                f"{root} is not an image library: it {what}",
                hint="check that it is mounted, or make one with: litho library init DIR",
                code="library-missing",
            ) from exc
        except OSError as exc:
            raise files.library_error(exc, root) from exc
        try:
            marker = msgspec.json.decode(data, type=Marker)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise LibraryError(f"the marker {root / MARKER} is damaged ({exc})", code="library-missing") from exc
        return cls(root, marker.library)

    def free(self) -> int:
        """Bytes that may still be written. Raises LibraryError."""
        with files.telling(self.root):
            stat = os.statvfs(self.root)
        return stat.f_bavail * stat.f_frsize

    def check_writable(self) -> None:
        """Write and remove a small file. Raises LibraryError that says why not."""
        probe = self.root / f".write-test.{secrets.token_hex(6)}.part"
        with files.telling(self.root):
            files.create(probe, b"lithograph\n")
            probe.unlink()

    def entries(self) -> Iterator[tuple[str, names.FileName]]:
        """Every file that belongs to a version, sorted by name. Raises LibraryError."""
        with files.telling(self.root):
            found = sorted(path.name for path in self.root.iterdir())
        for name in found:
            parsed = names.parse_file(name)
            if parsed is not None:
                yield name, parsed

    def versions(self, name: str) -> list[int]:
        """The published versions of an image, ascending; empty when there is none. Raises LibraryError."""
        names.check_name(name)
        return sorted(f.version for _, f in self.entries() if f.image == name and not f.suffix and not f.part)

    def images(self) -> list[str]:
        """Names of all images that have a version. Raises LibraryError."""
        return sorted({f.image for _, f in self.entries() if not f.suffix and not f.part})

    def current(self, name: str) -> int:
        """The version that `name` alone means. Raises NotFoundError, IntegrityError or LibraryError.

        That is what the pointer names. Where a crash left a pointer to a version that is gone, or none at all, the highest
        version counts: it is whole, or it would have no manifest. A pointer that is damaged is an error, not a guess.
        """
        names.check_name(name)
        try:
            data = files.read_small(self.root / names.pointer_file(name), SMALL)
        except FileNotFoundError:
            data = b""
        except OSError as exc:
            raise files.library_error(exc, self.root) from exc
        named = manifest.parse_pointer(data, name=name) if data else 0
        published = self.versions(name)
        if named in published:
            return named
        if published:
            return published[-1]
        raise NotFoundError(
            f"there is no image {name} in the library {self.root}",
            hint="see what there is with: litho image ls",
            code="image-missing",
        )

    def resolve(self, ref: ImageRef) -> ImageRef:
        """`ref` with its version filled in. Raises NotFoundError, IntegrityError or LibraryError."""
        names.check_name(ref.name)
        version = ref.version or self.current(ref.name)
        with files.telling(self.root):
            there = (self.root / names.manifest_file(ref.name, version)).exists()
        if not there:
            known = ", ".join(str(number) for number in self.versions(ref.name)) or "none"
            raise NotFoundError(
                f"the image {ref.name} has no version {version} (it has: {known})",
                hint="see what there is with: litho image ls",
                code="image-missing",
            )
        return ImageRef(ref.name, version)

    def manifest(self, ref: ImageRef) -> Manifest:
        """The manifest of a version. Raises NotFoundError, IntegrityError or LibraryError."""
        found = self.resolve(ref)
        path = self.root / names.manifest_file(found.name, found.version)
        with files.telling(self.root):
            data = files.read_small(path, manifest.MAX_BYTES + 1)
        return manifest.parse(data, name=found.name, version=found.version)
