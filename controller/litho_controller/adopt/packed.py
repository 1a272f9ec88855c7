"""Opening the files of an image: one or several, each packed in a way that its first bytes tell.

Two habits exist, and they look alike in names:

* **volumes** (partimage `-V`, or more than 2 GB): `.000 .001 …`, each with a header of its own and packed by itself;
* **splits** (`split`, Clonezilla): `.aa .ab …` or `.000 .001 …`, pieces of one packed file, which mean nothing alone.

So it is the second file's first bytes that tell which they are. Every packed file must end where its packing ends.
"""

from __future__ import annotations

import bz2
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from litho.errors import IntegrityError, LithoError, NotFoundError, RefusedError
from litho.library.unpack import BLOCK, Readable, unpacked
from litho_controller.adopt import partimage

Packing = Literal["none", "gzip", "bzip2", "zstd"]
Tap = Callable[[bytes], None]
"""Given every packed byte as it is read."""

_MAGICS: tuple[tuple[bytes, Packing], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (partimage.MAGIC, "none"),
    (b"partclone-image", "none"),
)
_FOREIGN = (
    (b"\x89LZO", "lzop", "lzop -dc"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"),
    (b"\xfd7zXZ", "xz", "xz -dc"),
    (b"LRZI", "lrzip", "lrzcat"),
    (b"\0ntfsclone-image", "ntfsclone", ""),
)


class Packed:
    """The files of one partition's image, in their order."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Look at the first bytes. Raises NotFoundError, RefusedError."""
        first = _head(files[0])
        self.packing = _packing(files[0], first)
        splits = len(files) > 1 and not any(_head(files[1]).startswith(magic) for magic, _ in _MAGICS)
        self.volumes: tuple[tuple[Path, ...], ...] = (
            (tuple(files),) if splits else tuple((path,) for path in files)
        )  # fmt: skip
        self.bytes = sum(path.stat().st_size for path in files)

    @property
    def whole(self) -> bool:
        """True when it is one file that the library can keep as it is."""
        return len(self.volumes) == 1 and len(self.volumes[0]) == 1 and self.packing != "bzip2"

    def kind(self) -> str:
        """`partimage` or `partclone`, by the first plain bytes. Raises RefusedError, IntegrityError."""
        first = next(_plain(self.volumes[0], lambda _: None), b"")
        if first.startswith(partimage.MAGIC):
            return "partimage"
        if first.startswith(b"partclone-image"):
            return "partclone"
        name = self.volumes[0][0].name
        raise RefusedError(
            f"{name} holds neither a partimage nor a partclone image",
            hint="these two formats can be adopted",
            code="unknown-format",
        )

    def blocks(self, tap: Tap) -> Iterator[bytes]:
        """The plain bytes: of partimage's volumes one stream that has the first one's header only.

        Raises IntegrityError about a volume that is damaged or not the one that belongs there.
        """
        identifier = 0
        for number, files in enumerate(self.volumes):
            blocks = _plain(files, tap)
            if len(self.volumes) == 1:
                yield from blocks
                return
            head, rest = _split_header(files[0], blocks)
            with _about(files[0]):
                found = partimage.parse_volume_header(head)
                if number == 0:
                    identifier = found.identifier
                if found.number != number or found.identifier != identifier:
                    what = f"volume {found.number}" if found.identifier == identifier else "a volume of another image"
                    raise IntegrityError(
                        f"it is {what}, and volume {number} is expected here",
                        hint="give the volumes of one image, each once; nothing was adopted",
                        code="wrong-volume",
                    )
            if number == 0:
                yield head
            if rest:
                yield rest
            yield from blocks


class _about:  # noqa: N801 - reads like the function that it is
    """Puts a file's name before what went wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, IntegrityError):
            raise about(self._path, exc) from exc


def about(path: Path, exc: LithoError) -> IntegrityError:
    """`exc` with the file's name in front."""
    message = exc.message if exc.message.startswith(path.name) else f"{path.name} cannot be adopted: {exc.message}"
    return IntegrityError(message, hint=exc.hint or "nothing was adopted", code=exc.code)


def _split_header(path: Path, blocks: Iterator[bytes]) -> tuple[bytes, bytes]:
    head = b""
    while len(head) < partimage.VOLUME_HEADER:
        block = next(blocks, b"")
        if not block:
            raise IntegrityError(
                f"{path.name} cannot be adopted: it ends within its header",
                hint="nothing was adopted",
                code="image-cut",
            )
        head += block
    return head[: partimage.VOLUME_HEADER], head[partimage.VOLUME_HEADER :]


class _Chain:
    """Several files read as one."""

    def __init__(self, files: Sequence[Path], tap: Tap) -> None:
        self._left = list(files)
        self._tap = tap
        self._file: IO[bytes] | None = None

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty behind the last file."""
        while True:
            if self._file is None:
                if not self._left:
                    return b""
                self._file = _opened(self._left.pop(0))
            data = self._file.read(size)
            if data:
                self._tap(data)
                return data
            self.close()

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _plain(files: Sequence[Path], tap: Tap) -> Iterator[bytes]:
    packing = _packing(files[0], _head(files[0]))
    chain = _Chain(files, tap)
    try:
        blocks = _bunzip(chain) if packing == "bzip2" else unpacked(chain, packing)
        while True:
            try:
                block = next(blocks, b"")
            except IntegrityError as exc:
                raise about(files[0], exc) from exc
            except OSError as exc:
                raise _unreadable(files[0], exc) from exc
            if not block:
                return
            yield block
    finally:
        chain.close()


def _bunzip(file: Readable) -> Iterator[bytes]:
    """The plain bytes of a bzip2 file of one stream or several."""
    unpacker = bz2.BZ2Decompressor()
    begun = False
    packed = b""
    while True:
        if unpacker.eof:
            packed = unpacker.unused_data or file.read(BLOCK)
            if not packed:
                return
            unpacker, begun = bz2.BZ2Decompressor(), False
        elif unpacker.needs_input:
            packed = file.read(BLOCK)
            if not packed:
                raise IntegrityError("the bzip2 stream ends early" if begun else "not a bzip2 stream")
        else:
            packed = b""
        begun = True
        try:
            plain = unpacker.decompress(packed, BLOCK)
        except OSError as exc:
            raise IntegrityError(f"not a whole bzip2 stream ({exc})") from exc
        if plain:
            yield plain


def _packing(path: Path, first: bytes) -> Packing:
    for magic, packing in _MAGICS:
        if first.startswith(magic):
            return packing
    for magic, name, command in _FOREIGN:
        if first.startswith(magic):
            way = (
                f"unpack it with `{command}` and adopt what comes out" if command else "restore it and capture it again"
            )
            raise RefusedError(
                f"{path.name} was written by {name}, which is not read here", hint=way, code="unknown-format"
            )
    if not first:
        raise RefusedError(f"{path.name} is empty", code="unknown-format")
    raise RefusedError(
        f"{path.name} is no image that can be adopted: its first bytes are those of no format that is known here",
        hint="partimage and partclone images can be adopted, plain or packed with gzip, bzip2 or zstd",
        code="unknown-format",
    )


def _head(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read(32)


def _opened(path: Path) -> IO[bytes]:
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise NotFoundError(f"{path} {what}", code="file-missing")
        return path.open("rb", buffering=0)
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: Path, exc: OSError) -> NotFoundError:
    return NotFoundError(f"{path} cannot be read ({exc.strerror or exc})", code="file-unreadable")
