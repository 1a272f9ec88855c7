"""Making a new version: files grow under `.part` names, then all become visible at once.

1. `Stage.open` reserves the next version number by creating `golden.v3.json.part` with O_EXCL, and says in it who works
   there. Two captures of one name at the same time get two numbers.
2. `create` opens `golden.v3-sda1.partclone.zst.part` and so on; the engine's stream goes in.
3. `publish` syncs every file, renames each to its own name, and writes the manifest last, by rename. Then the pointer
   `golden.json` is turned to the new version, unless a later one got there first.
4. `abort` (also on any exception inside `with`) deletes what there is.

A crash leaves the reservation, which names its owner; `litho.library.care.sweep` removes the remains of owners that are
dead. A sweep that was wrong about that takes the reservation away, and `publish` notices: it never publishes into a number
that it does not hold.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from litho.errors import LibraryError, LithoError
from litho.job import Short
from litho.library import files, manifest, names
from litho.library.manifest import Manifest
from litho.library.shelf import Library


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a version."""

    session: Short
    """Unique for one attempt: the agent's session, or a random one of a local run."""
    node: Short = ""
    task: Short = ""
    host: Short = ""
    pid: int = 0


def read_owner(path: Path) -> Owner | None:
    """The owner that a reservation names; None when it cannot be told. Raises OSError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class Stage:
    """A version in the making. Use as a context manager: leaving it without `publish` deletes everything."""

    def __init__(self, library: Library, name: str, version: int, owner: Owner, inode: int) -> None:
        self.library = library
        self.name = name
        self.version = version
        self.owner = owner
        self._inode = inode
        self._made: list[str] = []
        self._open = True

    @classmethod
    def open(cls, library: Library, name: str, owner: Owner) -> Stage:
        """Reserve the next version of `name`. Raises UsageError for a bad name, LibraryError."""
        names.check_name(name)
        version = max((f.version for _, f in library.entries() if f.image == name), default=0) + 1
        while True:
            reservation = library.root / (names.manifest_file(name, version) + ".part")
            try:
                files.create(reservation, msgspec.json.encode(owner) + b"\n")
            except FileExistsError:
                version += 1
                continue
            except OSError as exc:
                raise files.library_error(exc, library.root) from exc
            with files.telling(library.root):
                return cls(library, name, version, owner, reservation.stat().st_ino)

    @property
    def reservation(self) -> Path:
        """`golden.v3.json.part`."""
        return self.library.root / (names.manifest_file(self.name, self.version) + ".part")

    def file_name(self, suffix: str) -> str:
        """The name that the file with `suffix` will have once published."""
        return names.part_file(self.name, self.version, suffix)

    def create(self, suffix: str) -> IO[bytes]:
        """Open a new, empty, unbuffered file of the version. Raises LibraryError."""
        name = self.file_name(suffix)
        path = self.library.root / (name + ".part")
        with files.telling(self.library.root):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._made.append(name)
        return os.fdopen(fd, "wb", buffering=0)

    def publish(self, finished: Manifest, *, before_pointer: Callable[[], None] | None = None) -> None:
        """Make the version exist. Every file that `finished` names must have been created here and be as long as it says.

        `before_pointer` is called when the version exists but is not current yet (tests stop there).
        Raises LibraryError; then the version does not exist.
        """
        if not self._open:
            raise LibraryError(f"{self.name}:{self.version} is not being made any more", code="stage-lost")
        root = self.library.root
        data = manifest.dump(finished)
        manifest.parse(data, name=self.name, version=self.version)
        wanted = {ref.file: ref.bytes for ref in finished.files()}
        with files.telling(root):
            self._check_held()
            for name in self._made:
                path = root / (name + ".part")
                size = path.stat().st_size
                if wanted.get(name) != size:
                    raise LibraryError(
                        f"{path.name} has {size} bytes and the manifest says {wanted.get(name)}",
                        code="stage-lost",
                    )
                _fsync(path)
            missing = set(wanted) - set(self._made)
            if missing:
                raise LibraryError(
                    f"the manifest names files that were never made: {sorted(missing)}", code="stage-lost"
                )
            for name in self._made:
                (root / (name + ".part")).rename(root / name)
            files.fsync_dir(root)
            self._check_held()
            files.replace(root / names.manifest_file(self.name, self.version), data)
        # From here on the version exists; nothing below may take it back.
        self._open = False
        if before_pointer is not None:
            before_pointer()
        with files.telling(root):
            point_to_latest(self.library, self.name)
            self.reservation.unlink(missing_ok=True)

    def abort(self) -> None:
        """Delete what there is. Never raises: what cannot be deleted now is swept up later."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError, LithoError):
            self._check_held()
            for name in self._made:
                for path in (self.library.root / (name + ".part"), self.library.root / name):
                    path.unlink(missing_ok=True)
            self.reservation.unlink(missing_ok=True)

    def _check_held(self) -> None:
        try:
            held = self.reservation.stat().st_ino == self._inode
        except FileNotFoundError:
            held = False
        if not held:
            raise LibraryError(
                f"version {self.version} of {self.name} was taken away while it was being made",
                hint="the task was believed dead; start it again",
                code="stage-lost",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def point_to_latest(library: Library, name: str) -> None:
    """Turn `<name>.json` to the highest published version, or remove it when there is none. Raises OSError, LibraryError.

    Two publishers may do this at once: each looks again after writing, so the last look sees both versions.
    """
    pointer = library.root / names.pointer_file(name)
    while True:
        published = library.versions(name)
        if not published:
            pointer.unlink(missing_ok=True)
            return
        files.replace(pointer, msgspec.json.encode(manifest.Pointer(image=name, version=published[-1])) + b"\n")
        if library.versions(name)[-1:] == published[-1:]:
            return


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
