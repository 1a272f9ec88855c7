"""Writing an archive's tree of files below one directory, and nowhere else.

A root image is a whole operating system: it has symbolic links with absolute targets, set-uid programs, device nodes. All
of it comes from a stranger and is written by root on the management node. So:

* every directory is opened from the one above it, with O_NOFOLLOW: a link that the archive made is never walked through;
* nothing is written twice, no name has a level `..`, none is absolute;
* a relative link that climbs above the tree's top is refused; an absolute one means the tree's own top, as it does once the
  node has booted, and is kept as text: nothing here follows it;
* set-uid and set-gid bits of files are taken off unless somebody asks for them: the tree lies in a directory that this
  machine's users can reach;
* devices, pipes and sockets are left out: a booted node has its own.

What was taken off or left out is counted, so that the person who imports is told.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from litho_controller.bundle.faults import bad, shown, telling
from litho_controller.bundle.limits import Limits, MiB
from litho_controller.bundle.tarread import Body, Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID = stat.S_ISUID | stat.S_ISGID
_NOBODY = 2**32 - 1
"""What chown takes as "leave it": in an archive it can only be a trick."""

Levels = tuple[bytes, ...]


class TreeWriter:
    """Writes entries below `root`, which is new and empty. Use as a context manager; then `finish`."""

    def __init__(
        self, root: Path, limits: Limits, *, set_uid: bool = False, stop: Callable[[], None] = lambda: None
    ) -> None:
        """`stop` is called now and then and raises when the work is to end."""
        self.root = root
        self.files = 0
        self.links = 0
        self.bytes = 0
        self.devices = 0
        """Devices, pipes and sockets that were left out."""
        self.stripped = 0
        """Files whose set-uid or set-gid bit was taken off."""
        self._limits = limits
        self._set_uid = set_uid
        self._stop = stop
        self._own = os.geteuid() == 0
        self._directories: dict[Levels, Entry | None] = {}
        self._since_check = 0
        self._parent: tuple[Levels, int] | None = None
        with telling(root):
            self._top = os.open(root, _DIRECTORY)

    def add(self, entry: Entry, body: Body) -> None:
        """Write one entry. Raises RefusedError, IntegrityError, LithoError."""
        self._stop()
        levels = self._levels(entry.name)
        with telling(self.root / os.fsdecode(b"/".join(levels))):
            if entry.kind == "dir":
                self._directory(levels, entry)
            elif entry.kind == "file":
                self._file(levels, entry, body)
            elif entry.kind == "symlink":
                self._symlink(levels, entry)
            elif entry.kind == "hardlink":
                self._hardlink(levels, entry, body)
            else:
                self.devices += 1

    def finish(self) -> None:
        """Give the directories their rights and times: last, because one may forbid writing into it. Raises LithoError."""
        with telling(self.root):
            for levels in sorted(self._directories, reverse=True):
                entry = self._directories[levels]
                if entry is not None:
                    fd = self._open(levels)
                    try:
                        # Whoever packs the tree again, or deletes it, must get in.
                        self._settle(fd, entry, entry.mode | 0o700)
                    finally:
                        os.close(fd)

    def _levels(self, name: bytes) -> Levels:
        if name.startswith(b"/"):
            raise bad(f"the root image has an absolute name ({shown(name)})", code="bundle-escape")
        levels = tuple(level for level in name.split(b"/") if level not in (b"", b"."))
        if b".." in levels:
            raise bad(f"the root image has a name that leaves its tree ({shown(name)})", code="bundle-escape")
        if len(levels) > self._limits.levels or any(len(level) > 255 for level in levels):
            raise bad(f"the root image has a name that is too long or too deep ({shown(name)})", code="bundle-limit")
        return levels

    # -- directories

    def _directory(self, levels: Levels, entry: Entry) -> None:
        if levels:
            if levels in self._directories and self._directories[levels] is not None:
                raise _twice(entry.name)
            if levels not in self._directories:
                self._make(levels)
        self._directories[levels] = entry

    def _make(self, levels: Levels) -> None:
        parent = self._parent_of(levels)
        try:
            os.mkdir(levels[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            raise _twice(b"/".join(levels)) from None
        self._directories[levels] = None
        os.chmod(levels[-1], 0o755, dir_fd=parent)  # noqa: S103 - a directory of a root image, as every other

    def _parent_of(self, levels: Levels) -> int:
        """The directory that an entry goes into, open; made where the archive does not name it."""
        above = levels[:-1]
        if self._parent is not None and self._parent[0] == above:
            return self._parent[1]
        for depth in range(1, len(above) + 1):
            if above[:depth] not in self._directories:
                self._make(above[:depth])
        fd = self._open(above)
        self._let_go()
        self._parent = (above, fd)
        return fd

    def _open(self, levels: Levels) -> int:
        """A directory of the tree, level by level. Raises RefusedError where a level is none, OSError."""
        fd = os.dup(self._top)
        for level in levels:
            try:
                below = os.open(level, _DIRECTORY, dir_fd=fd)
            except (NotADirectoryError, OSError) as exc:
                if isinstance(exc, NotADirectoryError):
                    raise bad(
                        f"the root image has a name that goes through something that is no directory ({shown(level)})",
                        code="bundle-escape",
                    ) from None
                raise
            finally:
                os.close(fd)
            fd = below
        return fd

    # -- everything else

    def _file(self, levels: Levels, entry: Entry, body: Body) -> None:
        self._need_name(levels, entry)
        fd = self._create(levels, entry)
        try:
            self._fill(fd, body)
            self._settle(fd, entry, self._mode(entry))
        finally:
            os.close(fd)
        self.files += 1

    def _create(self, levels: Levels, entry: Entry) -> int:
        try:
            return os.open(levels[-1], _NEW_FILE, 0o600, dir_fd=self._parent_of(levels))
        except FileExistsError:
            raise _twice(entry.name) from None

    def _fill(self, fd: int, body: Body) -> None:
        while piece := body.read():
            self._stop()
            self._count(len(piece))
            while piece:
                piece = piece[os.write(fd, piece) :]

    def _count(self, size: int) -> None:
        self.bytes += size
        self._since_check += size
        if self._since_check > 64 * MiB:
            self._since_check = 0
            room = os.statvfs(self.root)
            if room.f_bavail * room.f_frsize < self._limits.reserve:
                raise bad(
                    "the root image does not fit: the file system is full", hint="free some space", code="no-space"
                )

    def _mode(self, entry: Entry) -> int:
        if entry.mode & _SET_ID and not self._set_uid:
            self.stripped += 1
            return entry.mode & ~_SET_ID
        return entry.mode

    def _symlink(self, levels: Levels, entry: Entry) -> None:
        self._need_name(levels, entry)
        if not entry.link or b"\0" in entry.link:
            raise bad(f"the root image has a link to nothing ({shown(entry.name)})", code="bad-tar")
        refuse_climbing(entry.name, len(levels) - 1, entry.link)
        parent = self._parent_of(levels)
        try:
            os.symlink(entry.link, levels[-1], dir_fd=parent)
        except FileExistsError:
            raise _twice(entry.name) from None
        if self._own:
            os.chown(levels[-1], *self._owner(entry), dir_fd=parent, follow_symlinks=False)
        os.utime(levels[-1], (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
        self.links += 1

    def _hardlink(self, levels: Levels, entry: Entry, body: Body) -> None:
        """A second name for a file of this tree. With cpio the data may come with it: then it is the file's."""
        self._need_name(levels, entry)
        target = self._levels(entry.link)
        if not target:
            raise bad(f"the root image has a hard link to nothing ({shown(entry.name)})", code="bad-tar")
        above = self._open(target[:-1])
        try:
            if not stat.S_ISREG(os.stat(target[-1], dir_fd=above, follow_symlinks=False).st_mode):
                raise bad(f"the root image has a hard link to what is no file ({shown(entry.name)})", code="bad-tar")
            os.link(target[-1], levels[-1], src_dir_fd=above, dst_dir_fd=self._parent_of(levels), follow_symlinks=False)
            if body.left:
                fd = os.open(target[-1], os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                try:
                    self._fill(fd, body)
                    os.utime(fd, (entry.mtime, entry.mtime))
                finally:
                    os.close(fd)
        except FileNotFoundError:
            raise bad(
                f"the root image has a hard link to a file that did not come before it ({shown(entry.name)})",
                code="bad-tar",
            ) from None
        except FileExistsError:
            raise _twice(entry.name) from None
        finally:
            os.close(above)

    def _settle(self, fd: int, entry: Entry, mode: int) -> None:
        """Owner, rights, times; in this order, because chown takes bits off."""
        if self._own:
            os.fchown(fd, *self._owner(entry))
        os.fchmod(fd, mode)
        os.utime(fd, (entry.mtime, entry.mtime))

    def _owner(self, entry: Entry) -> tuple[int, int]:
        if entry.uid >= _NOBODY or entry.gid >= _NOBODY:
            raise bad(f"the root image has an owner that cannot be ({shown(entry.name)})", code="bad-tar")
        return entry.uid, entry.gid

    def _need_name(self, levels: Levels, entry: Entry) -> None:
        if not levels:
            raise bad(f"the root image has an entry without a name of its own ({shown(entry.name)})", code="bad-tar")

    def _let_go(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()
        os.close(self._top)


def refuse_climbing(name: bytes, depth: int, link: bytes) -> None:
    """Raise RefusedError for a relative link, in a directory `depth` levels deep, that climbs above the tree's top. Pure."""
    if link.startswith(b"/"):
        return
    for level in link.split(b"/"):
        depth += 0 if level in (b"", b".") else -1 if level == b".." else 1
        if depth < 0:
            raise bad(
                f"the root image has a link that leaves its tree ({shown(name)} to {shown(link)})",
                code="bundle-escape",
            )


def _twice(name: bytes) -> Exception:
    return bad(f"the root image has a name twice ({shown(name)})", code="bad-tar")
