"""Making a new version: files grow under `.part` names, then all become visible at once.

1. `Stage.open` reserves the next version number by creating `golden.v3.json.part` with O_EXCL, and says in it who works
   there. Two captures of one name at the same time get two numbers.
2. `create` opens `golden.v3-sda1.partclone.zst.part` and so on; the engine's stream goes in.
3. `publish` syncs every file, renames each to its own name, and writes the manifest last, by rename. Then the pointer
   `golden.json` is turned to the new version, unless a later one got there first.
4. `abort` (also on any exception inside `with`) deletes what there is.

A crash leaves the reservation, which names its owner; `litho.library.care.sweep` removes the remains of owners that are
dead. A sweep that was wrong about that empties the reservation first, and `publish` notices: it never publishes into a number
that it does not hold. Whoever holds it is told by what stands in the file, a random word among it: inode numbers are used
again at once, and over NFS they come from a cache.

The last step is safe against a sweep at the very same moment. `publish` makes the manifest's temporary file, *then* looks whether
it still holds the number, then renames. The sweep empties the reservation, *then* removes such temporary files, then looks
whether there is a manifest. Whatever the order, either the rename fails or the sweep sees the manifest and keeps its hands off.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from litho.errors import LibraryError, LithoError
from litho.job import Short
from litho.library import files, manifest, names
from litho.library.manifest import Manifest
from litho.library.shelf import MARKER, SMALL, Library


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
        return msgspec.json.decode(files.read_small(path, SMALL), type=Owner)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class Stage:
    """A version in the making. Use as a context manager: leaving it without `publish` deletes everything."""

    def __init__(self, library: Library, name: str, version: int, owner: Owner, claim: bytes) -> None:
        self.library = library
        self.name = name
        self.version = version
        self.owner = owner
        self._claim = claim
        self._made: list[str] = []
        self._open = True

    @classmethod
    def open(cls, library: Library, name: str, owner: Owner) -> Stage:
        """Reserve the next version of `name`. Raises UsageError for a bad name, LibraryError."""
        names.check_name(name)
        claim = msgspec.json.encode({**msgspec.to_builtins(owner), "stage": secrets.token_hex(16)}) + b"\n"
        version = max((f.version for _, f in library.entries() if f.image == name), default=0) + 1
        while True:
            reservation = library.root / (names.manifest_file(name, version) + ".part")
            try:
                files.create_whole(reservation, claim)
            except FileExistsError:
                version += 1
                continue
            except OSError as exc:
                raise files.library_error(exc, library.root) from exc
            return cls(library, name, version, owner, claim)

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

    def link(self, suffix: str, original: Path) -> None:
        """Let a file that lies on the same file system be one of the version's, as a hard link. Raises LibraryError."""
        name = self.file_name(suffix)
        with files.telling(self.library.root):
            os.link(original, self.library.root / (name + ".part"))
        self._made.append(name)

    def publish(self, finished: Manifest, *, before_pointer: Callable[[], None] | None = None) -> None:
        """Make the version exist. Every file that `finished` names must have been created here and be as long as it says.

        `before_pointer` is called when the version exists but is not current yet (tests stop there).
        Raises LibraryError; then the version does not exist. The code `pointer-stale` is the exception: the version exists, and
        only `<image>.json` could not be turned to it.
        """
        if not self._open:
            raise LibraryError(f"{self.name}:{self.version} is not being made any more", code="stage-lost")
        root = self.library.root
        data = manifest.dump(finished)
        manifest.parse(data, name=self.name, version=self.version)
        wanted = {ref.file: ref.bytes for ref in finished.files()}
        missing = set(wanted) - set(self._made)
        if missing:
            raise LibraryError(f"the manifest names files that were never made: {sorted(missing)}", code="stage-lost")
        with files.telling(root):
            self._check_held()
            try:
                for name in self._made:
                    self._sync(root / (name + ".part"), wanted.get(name))
                for name in self._made:
                    (root / (name + ".part")).rename(root / name)
            except FileNotFoundError as exc:
                raise self._lost() from exc
            files.fsync_dir(root)
            self._commit(root / names.manifest_file(self.name, self.version), data)
        # From here on the version exists; nothing below may take it back.
        self._open = False
        if before_pointer is not None:
            before_pointer()
        try:
            with files.telling(root):
                point_to_latest(self.library, self.name)
                self.reservation.unlink(missing_ok=True)
        except LibraryError as exc:
            # The reservation stays, so that the next sweep turns the pointer.
            raise LibraryError(
                f"{self.name}:{self.version} is published, but {names.pointer_file(self.name)} could not be turned to it "
                f"({exc.message})",
                hint=exc.hint,
                code="pointer-stale",
            ) from exc

    def _sync(self, path: Path, wanted: int | None) -> None:
        """Make a finished file last. Raises LibraryError when it is not as long as it should be, OSError."""
        fd = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            if size != wanted:
                raise LibraryError(
                    f"{path.name} has {size} bytes and the manifest says {wanted}",
                    hint="start the capture again",
                    code="stage-lost",
                )
            os.fsync(fd)
        finally:
            os.close(fd)

    def _commit(self, path: Path, data: bytes) -> None:
        """Make the manifest appear, if the number is still ours. Raises LibraryError, OSError."""
        beside = files.write_beside(path, data)
        try:
            self._check_held()
            beside.rename(path)
        except FileNotFoundError as exc:
            raise self._lost() from exc
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
        files.fsync_dir(path.parent)

    def abort(self) -> None:
        """Delete what there is. Never raises: what cannot be deleted now is swept up later."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError, LithoError):
            if not self._ours_to_delete():
                return
            # A manifest is there when only the sync after its rename failed: it goes first, a version is whole or it is not.
            published = self.library.root / names.manifest_file(self.name, self.version)
            if published.exists():
                published.unlink()
                files.fsync_dir(self.library.root)
            for name in self._made:
                for path in (self.library.root / (name + ".part"), self.library.root / name):
                    path.unlink(missing_ok=True)
            self.reservation.unlink(missing_ok=True)

    def _check_held(self) -> None:
        try:
            held = files.read_small(self.reservation, SMALL) == self._claim
        except FileNotFoundError:
            held = False
        if not held:
            raise self._lost()

    def _ours_to_delete(self) -> bool:
        """True while what was made here is nobody else's: the number is held, or it was swept away and nobody has it since."""
        try:
            found = files.read_small(self.reservation, SMALL)
        except FileNotFoundError:
            found = b""
        published = self.library.root / names.manifest_file(self.name, self.version)
        return found == self._claim or (not found and not published.exists())

    def _lost(self) -> LibraryError:
        with files.telling(self.library.root):
            mounted = (self.library.root / MARKER).exists()
        if not mounted:
            return LibraryError(
                f"the library {self.library.root} went away while {self.name}:{self.version} was being made",
                hint="check that it is still mounted, then start the capture again",
                code="library-missing",
            )
        return LibraryError(
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

    Two publishers may do this at once, or one that publishes and one that removes: each looks again after writing, so the last
    look sees what both did. A pointer that is right already is left alone: cleaning up a full library must not need space.
    """
    pointer = library.root / names.pointer_file(name)
    while True:
        published = library.versions(name)
        if not published:
            pointer.unlink(missing_ok=True)
        else:
            wanted = msgspec.json.encode(manifest.Pointer(image=name, version=published[-1])) + b"\n"
            if not (pointer.exists() and files.read_small(pointer, SMALL) == wanted):
                files.replace(pointer, wanted)
        if library.versions(name)[-1:] == published[-1:]:
            return
