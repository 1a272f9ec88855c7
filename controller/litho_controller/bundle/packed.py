"""The plain bytes of a packed file: bounded, counted, and unpacked in a thread beside the one that reads.

How a file is packed is told by its first bytes, never by its name: gzip, zstd, xz, or not at all. gzip and zstd come from
`litho.library.unpack`; xz is here. Each tells a cut file from a whole one, and none uses more memory than a few blocks, whatever
the file says. The next blocks are unpacked while the last one is being hashed and written: the decompressors let go of Python's
lock, so two cores work.
"""

from __future__ import annotations

import lzma
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from litho.errors import IntegrityError, LithoError
from litho.library.unpack import BLOCK, Readable, Unpacker, unpacker
from litho_controller.bundle.faults import bad, damaged, telling
from litho_controller.bundle.limits import Limits, MiB

MAX_XZ_MEMORY = 256 * MiB
"""Bytes; `xz -9` needs 65 MiB to unpack."""
AHEAD = 4
"""Blocks that may wait for the reader."""
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"))


def packing(head: bytes) -> str:
    """How a file that begins with `head` is packed: gzip, zstd, xz or none. Pure."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


def head_of(path: Path, size: int = 512) -> bytes:
    """The first bytes of a file. Raises LithoError."""
    with telling(path), path.open("rb") as file:
        return file.read(size)


class PlainReader:
    """Reads a packed file as plain bytes. Use as a context manager; every method raises IntegrityError, RefusedError,
    LithoError.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.plain = 0
        """Bytes handed out so far."""
        self._limits = limits
        self._blocks: queue.Queue[bytes | Exception] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._rest = memoryview(b"")
        self._ended = False
        with telling(path):
            self._file = _Counted(path.open("rb", buffering=0))
        self._thread = threading.Thread(target=self._unpack, name=f"unpack {path.name}", daemon=True)

    @property
    def packed(self) -> int:
        """Bytes of the file read so far; a few blocks ahead of what was handed out."""
        return self._file.count

    def read(self, size: int) -> memoryview:
        """At most `size` bytes, at least one until the end. Valid until the next call."""
        if not self._rest and not self._ended:
            block = self._blocks.get()
            if isinstance(block, IntegrityError):
                raise damaged(f"{self.path.name} is damaged: {block.message}") from block
            if isinstance(block, LithoError):
                raise block
            if isinstance(block, Exception):
                with telling(self.path):
                    raise block
            self._rest = memoryview(block)
            self._ended = not block
            self.plain += len(block)
            self._check()
        taken = self._rest[:size]
        self._rest = self._rest[size:]
        return taken

    def read_exactly(self, size: int) -> bytes:
        """`size` bytes, no fewer; `size` is small."""
        found = bytearray()
        while len(found) < size:
            piece = self.read(size - len(found))
            if not piece:
                raise damaged(f"{self.path.name} ends in the middle of an entry")
            found += piece
        return bytes(found)

    def _check(self) -> None:
        limits = self._limits
        if self.plain > limits.ratio_from and self.plain > limits.ratio * max(1, self.packed):
            raise bad(
                f"{self.path.name} unpacks to more than {limits.ratio} times its size",
                hint="that is what a decompression bomb does",
                code="bundle-bomb",
            )

    def _unpack(self) -> None:
        try:
            buffer = bytearray(BLOCK)
            view = memoryview(buffer)
            source = _unpacker(self._file)
            while not self._stopped.is_set():
                count = source.read_into(view)
                self._put(bytes(view[:count]))
                if not count:
                    return
        except Exception as exc:  # noqa: BLE001, RUF100 - handed to the reader, who raises it
            self._put(exc)

    def _put(self, block: bytes | Exception) -> None:
        while not self._stopped.is_set():
            try:
                self._blocks.put(block, timeout=0.2)
                return
            except queue.Full:
                continue

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        while not self._blocks.empty():
            self._blocks.get_nowait()
        self._thread.join()
        self._file.close()


class _Counted:
    """A file that counts what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data

    def peek(self) -> bytes:
        """The first bytes, without counting them."""
        head = self._file.read(8)
        self._file.seek(0)
        return head

    def close(self) -> None:
        self._file.close()


def _unpacker(file: _Counted) -> Unpacker:
    kind = packing(file.peek())
    return _Xz(file) if kind == "xz" else unpacker(file, kind)


class _Xz:
    """xz streams after each other, with their padding."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._stream: lzma.LZMADecompressor | None = None
        self._packed = b""

    def read_into(self, view: memoryview) -> int:
        try:
            while True:
                if self._stream is None and not self._begin():
                    return 0
                if self._stream is None:
                    continue
                if self._stream.needs_input:
                    packed = self._packed or self._file.read(BLOCK)
                    self._packed = b""
                    if not packed:
                        raise IntegrityError("the xz stream ends early")
                else:
                    packed = b""
                plain = self._stream.decompress(packed, len(view))
                if self._stream.eof:
                    self._packed = self._stream.unused_data
                    self._stream = None
                if plain:
                    view[: len(plain)] = plain
                    return len(plain)
        except (lzma.LZMAError, EOFError) as exc:
            raise IntegrityError(f"not a whole xz stream ({exc})") from exc

    def _begin(self) -> bool:
        """Skip padding and make a decompressor for the next stream; false at the end of the file."""
        self._packed = self._packed.lstrip(b"\0") or self._file.read(BLOCK)
        if not self._packed:
            return False
        if self._packed.lstrip(b"\0"):
            self._packed = self._packed.lstrip(b"\0")
            self._stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)
        return True
