"""Reading a bundle once, from its first byte to its last, into a room where nothing of it can do harm yet.

Every member must be a plain file (or a directory, which is skipped) under a plain name, each name once. Small members that
are about the bundle stay in memory; the rest is written into the room under names of our own, hashed on the way. At the end
every hash must be what SHA256SUMS says, when there is one, and the signature must hold when one is demanded; a bundle in
our own order has both in front, and then a signature that does not hold stops the reading before a byte is written.

The room of a bundle with SHA256SUMS in front is named by it. What arrived whole is kept there under its final name when the
reading is cut short, and a second reading of the same bundle checks it against the stream instead of writing it again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from litho.errors import LithoError
from litho.library import manifest as library
from litho_controller.bundle import manifest as cfg
from litho_controller.bundle import model, sums, xcat
from litho_controller.bundle.faults import bad, damaged, shown, telling
from litho_controller.bundle.limits import BUNDLE, Limits, MiB
from litho_controller.bundle.packed import PlainReader
from litho_controller.bundle.sums import Key, Sums
from litho_controller.bundle.tarread import Body, Entry, entries

Tick = Callable[[int, int], None]
"""Told how many bytes of the tarball were read, and how many it has."""
_SET_ID = 0o6000
_CHECK_EVERY = 64 * MiB


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the bundle that has arrived."""

    name: str
    size: int
    sha256: str
    executable: bool
    path: Path | None
    """Where it lies; None when nothing was written, and for small members."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that was read to its end and whose hashes hold."""

    members: dict[str, Member]
    small: dict[str, bytes]
    sums: Sums | None
    signed: bool
    signer: Key | None
    room: Path | None

    def hashes(self) -> dict[str, str]:
        """Every member's hash, by name."""
        return {name: member.sha256 for name, member in self.members.items()}


class Intake:
    """One reading of one bundle."""

    def __init__(
        self,
        tarball: Path,
        base: Callable[[cfg.Manifest | None], Path] | None,
        *,
        limits: Limits = BUNDLE,
        tick: Tick = lambda done, total: None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """`base` is the directory in which the room is made, which may depend on the manifest; None only reads and checks."""
        self.room: Path | None = None
        self._tarball = tarball
        self._base = base
        self._keys: Sequence[Key] = ()
        self._demanded = False
        self._limits = limits
        self._tick = tick
        self._stop = stop
        self._members: dict[str, Member] = {}
        self._small: dict[str, bytes] = {}
        self._manifest: cfg.Manifest | None = None
        self._sums: Sums | None = None
        self._signer: Key | None = None
        self._judged = False
        self._payload = False
        self._since_check = 0

    def trust(self, keys: Sequence[Key], *, demanded: bool) -> None:
        """These keys are trusted; `demanded`: one of them must have signed."""
        self._keys = keys
        self._demanded = demanded

    def run(self) -> Taken:
        """Read it. Blocks. Raises RefusedError, IntegrityError, CancelledError, LithoError.

        After RefusedError and IntegrityError the room is gone: nothing of such a bundle is kept.
        """
        with telling(self._tarball):
            found = self._tarball.stat()
        if not stat.S_ISREG(found.st_mode):
            # A pipe would be waited for as long as nobody writes, and with it every other import.
            raise bad(f"{self._tarball} is no plain file", hint="save the bundle in a file first", code="bad-file")
        size = found.st_size
        with PlainReader(self._tarball, self._limits) as source:
            for entry, body in entries(source, self._limits):
                self._stop()
                self._entry(entry, body)
                self._tick(min(source.packed, size), size)
        if not self._judged:
            self._judge()
        if self._sums is not None:
            sums.require(self._sums, {name: member.sha256 for name, member in self._members.items()})
        self._tick(size, size)
        return Taken(
            members=self._members,
            small=self._small,
            sums=self._sums,
            signed=sums.SIGNATURE in self._small,
            signer=self._signer,
            room=self.room,
        )

    def _entry(self, entry: Entry, body: Body) -> None:
        name = _name(entry)
        if not name:
            return
        if name in self._members:
            raise bad(f"the bundle has {shown(name)} twice", code="bad-bundle")
        limit = model.SMALL.get(name) or (xcat.MAX_BYTES if model.is_xcat_manifest(name) else 0)
        if self._manifest is not None and name == self._manifest.image:
            limit = library.MAX_BYTES
        if limit:
            self._take_small(name, entry, body, limit)
        else:
            if not self._payload:
                self._begin_payload()
            self._take(name, entry, body)

    def _take_small(self, name: str, entry: Entry, body: Body, limit: int) -> None:
        if entry.size > limit:
            raise bad(f"{shown(name)} in the bundle has {entry.size} bytes, more than it can have", code="bundle-limit")
        if name in (sums.FILE, sums.SIGNATURE) and self._payload and self._judged:
            raise bad(f"{name} stands behind the files it speaks of", hint="put it in front", code="bad-bundle")
        data = bytearray()
        while piece := body.read():
            data += piece
        self._small[name] = bytes(data)
        self._put(name, entry, hashlib.sha256(data).hexdigest(), None)
        if name == cfg.FILE:
            self._manifest = cfg.parse(self._small[name])
        elif name == sums.FILE:
            self._sums = sums.parse(self._small[name])

    def _begin_payload(self) -> None:
        self._payload = True
        if self._sums is not None or self._demanded:
            self._judge()
        if self._base is not None:
            self.make_room()

    def _judge(self) -> None:
        """Find who signed, and refuse what must be signed and is not. Raises RefusedError."""
        self._judged = True
        signature = self._small.get(sums.SIGNATURE)
        if signature is not None:
            if sums.FILE not in self._small:
                raise bad(f"the bundle has a signature and no {sums.FILE} that it could be of", code="bad-signature")
            self._signer = sums.signer(self._small[sums.FILE], signature, self._keys)
        sums.check_trust(self._signer, signed=signature is not None, demanded=self._demanded)

    # -- the room

    def make_room(self) -> Path:
        """The room, made when there is none yet. Raises LithoError."""
        if self.room is not None:
            return self.room
        if self._base is None:
            raise LithoError("a bundle that is only looked at has no room")
        base = self._base(self._manifest)
        if self._sums is not None:
            key = hashlib.sha256(self._small[sums.FILE] + self._small.get(cfg.FILE, b"")).hexdigest()[:32]
        else:
            key = "once-" + os.urandom(8).hex()
        room = base / key
        with telling(room):
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            room.mkdir(mode=0o700, exist_ok=True)
            self.room = room
            # Half of something, left by a reading that was cut short.
            for path in room.iterdir():
                if not path.name.startswith("m"):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            kept = sum(path.stat().st_size for path in room.iterdir())
            needed = max(self._tarball.stat().st_size, self._sums.bytes if self._sums else 0) - kept
            free = _free(base)
        if needed + self._limits.reserve > free:
            raise LithoError(
                f"{base} has {free} bytes free, and the bundle needs {needed}", hint="free some space", code="no-space"
            )
        return room

    def _take(self, name: str, entry: Entry, body: Body) -> None:
        if self.room is None:
            digest = hashlib.sha256()
            while piece := body.read():
                self._stop()
                digest.update(piece)
            self._put(name, entry, digest.hexdigest(), None)
            return
        # What a name in the room stands for is told by its hash, too: another bundle with the same SHA256SUMS may have had
        # something else in this place.
        promised = self._sums.hashes.get(name, "") if self._sums is not None else ""
        if self._sums is not None and not promised:
            raise damaged(f"the bundle has {shown(name)}, which its {sums.FILE} does not list")
        final = self.room / f"m{len(self._members):06d}-{promised}"
        with telling(final):
            if final.is_file() and final.stat().st_size == entry.size and self._sums is not None:
                sha = self._compare(name, body)
            else:
                sha = self._write(final, name, body)
        self._put(name, entry, sha, final)

    def _write(self, final: Path, name: str, body: Body) -> str:
        digest = hashlib.sha256()
        beside = final.with_name("part-" + final.name)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while piece := body.read():
                self._stop()
                digest.update(piece)
                self._watch_space(len(piece))
                while piece:
                    piece = piece[os.write(fd, piece) :]
            # Synced before it has its name: a name in the room means that all of it is there, also after a power cut.
            os.fsync(fd)
        finally:
            os.close(fd)
        self._hold(name, digest.hexdigest())
        beside.rename(final)
        return digest.hexdigest()

    def _compare(self, name: str, body: Body) -> str:
        """The hash of a member that has arrived before. What lies in the room has the same, which is in its name."""
        digest = hashlib.sha256()
        while piece := body.read():
            self._stop()
            digest.update(piece)
        self._hold(name, digest.hexdigest())
        return digest.hexdigest()

    def _hold(self, name: str, sha: str) -> None:
        if self._sums is not None and self._sums.hashes.get(name, sha) != sha:
            raise damaged(f"{shown(name)} in the bundle is damaged: its SHA-256 is not what {sums.FILE} says")

    def _watch_space(self, size: int) -> None:
        self._since_check += size
        if self._since_check > _CHECK_EVERY and self.room is not None:
            self._since_check = 0
            if _free(self.room) < self._limits.reserve:
                raise LithoError("the bundle does not fit: the file system is full", hint="free space", code="no-space")

    def _put(self, name: str, entry: Entry, sha: str, path: Path | None) -> None:
        self._members[name] = Member(
            name=name, size=entry.size, sha256=sha, executable=bool(entry.mode & 0o100), path=path
        )


def drop(room: Path | None) -> None:
    """Delete a room, and the directory of rooms when it was the last. Raises LithoError."""
    if room is not None:
        with telling(room):
            if room.exists():
                shutil.rmtree(room)
            if not any(room.parent.iterdir()):
                room.parent.rmdir()


def _name(entry: Entry) -> str:
    """The plain name of a member; empty for what is skipped. Raises RefusedError for what may not be in a bundle."""
    if entry.kind not in ("file", "dir"):
        raise bad(
            f"the bundle has a {entry.kind} ({shown(entry.name)})",
            hint="a bundle holds plain files only",
            code="bundle-escape" if entry.kind.endswith("link") else "bad-bundle",
        )
    raw = entry.name
    while raw.startswith(b"./"):
        raw = raw[2:]
    if entry.kind == "dir":
        raw = raw.rstrip(b"/")
        if raw in (b"", b"."):
            return ""
    try:
        name = raw.decode("ascii")
    except UnicodeDecodeError:
        name = ""
    if not cfg.is_member(name):
        escapes = raw.startswith(b"/") or b".." in raw.split(b"/")
        raise bad(
            f"the bundle has a name that is not taken ({shown(entry.name)})",
            hint="names are relative, without .. levels, of ASCII letters, digits and . _ + @ % = , -",
            code="bundle-escape" if escapes else "bad-bundle",
        )
    if entry.mode & _SET_ID and entry.kind == "file":
        raise bad(f"the bundle has a file with a set-uid or set-gid bit ({shown(name)})", code="bundle-setuid")
    return "" if entry.kind == "dir" else name


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
