"""Joins an engine's process with compressor, hashes and file, and believes nothing but proof.

    save      engine ─pipe─> read ─> hash ─> compress ─> write + hash ─> file
    restore   file ─> read ─> unpack ─> hash ─> feed ─pipe─> engine ─> device, synced

Every arrow without a pipe is a bounded channel between two threads (`flow`). No shell, no second process: what `engine
| zstd > file` does with two programs is done here with one, and the hashes, the byte counts and the progress come from
the same pass.

A transfer succeeds when all of this is true: the engine's own rules are content (exit code, word of success, bytes moved),
every byte was written, the packed stream was closed; on restore also: the file has its length, the stream has the length and
SHA-256 of the manifest and does not go on after its end, and the device took the final sync. The file's own SHA-256 is not
computed on the way: the stream's says more, what it was unpacked to; the job checks the files before its first write.

Whatever fails first is what is reported. The engine's death by SIGPIPE because the library is full is a consequence, and
a broken pipe because the engine gave up is one too: then the engine's words tell.

On any failure the engine is killed. `cancelled` is asked ten times a second by the thread that called, which has nothing else
to do, so a stalled pipe does not delay an answer; a program that hangs in the kernel cannot be killed, and the error says so.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import IO

import msgspec

from litho.errors import EngineError, IntegrityError
from litho.job import Compression
from litho.library import files
from litho.library.manifest import FileRef
from litho.library.unpack import BLOCK, unpacker
from litho_agent import endpoints
from litho_agent.child import Child
from litho_agent.compress import compressor
from litho_agent.engines.bad import BadMap, too_many
from litho_agent.engines.base import END_BYTES, Engine, Source, Verdict, unproven
from litho_agent.flow import Channel, Flow, Stage, StageRate
from litho_agent.transfer import DEPTH, Block, Cancelled, Tick, Transfer, Watch, Watcher

__all__ = ["Cancelled", "Restored", "Saved", "Tick", "Watch", "Watcher", "restore", "save"]


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that lies in its file, and was proven whole. The file is not synced yet: publishing does that."""

    stream_bytes: int
    stream_sha256: str
    bad: BadMap
    """What could not be read."""
    file_bytes: int
    file_sha256: str
    seconds: float
    stages: tuple[StageRate, ...]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that is on the device, proven whole, and synced."""

    stream_bytes: int
    file_bytes: int
    seconds: float
    stages: tuple[StageRate, ...]


def save(
    engine: Engine,
    source: Source,
    sink: IO[bytes],
    *,
    compression: Compression,
    level: int,
    tick: Tick,
    cancelled: Cancelled,
    watcher: Watcher | None = None,
) -> Saved:
    """Save a partition's stream into `sink`, an open, empty, unbuffered file.

    Raises EngineError (MissingProgramError) when the engine failed or could not prove success, DiskError when more could not be
    read than `source` may lose, LibraryError when the file could not be written, CancelledError.
    """
    transfer = Transfer(tick, cancelled, watcher)
    with transfer.flow as flow, _reader(engine, source) as child:
        saving = _Saving(transfer, child, sink.fileno(), compression, level)
        transfer.follow(child, flow.idle)
        transfer.follow(child, child.ended)
        words = child.words()
        if child.lost_too_much:
            raise too_many(source.device, child.bad.bytes)
        engine.judge_save(
            source, Verdict(code=child.code, words=words, stream_bytes=transfer.stream_bytes, end=bytes(saving.end))
        )
        return Saved(
            stream_bytes=transfer.stream_bytes,
            stream_sha256=saving.stream_hash.hexdigest(),
            bad=child.bad,
            file_bytes=transfer.file_bytes,
            file_sha256=saving.file_hash.hexdigest(),
            seconds=time.monotonic() - transfer.begun,
            stages=flow.rates(),
        )


def _reader(engine: Engine, source: Source) -> Child:
    return Child(engine, engine.save(source), reads=False, may_lose=source.may_lose)


class _Saving:
    """The stages of a save: engine, hash, compress, write."""

    def __init__(self, transfer: Transfer, child: Child, fd: int, compression: Compression, level: int) -> None:
        flow: Flow = transfer.flow
        self._transfer = transfer
        self._child = child
        self._packer = compressor(compression, level)
        # A descriptor of its own: if the writer hangs in a dead file server, the caller may still close the file.
        self._fd = os.dup(fd)
        self._pool = transfer.pool(DEPTH * 2)
        self._raw: Channel[Block | None] = flow.channel(DEPTH)
        self._hashed: Channel[Block | None] = flow.channel(DEPTH)
        self._packed: Channel[bytes | memoryview | None] = flow.channel(DEPTH * 2)
        self.stream_hash = hashlib.sha256()
        self.file_hash = hashlib.sha256()
        self.end = bytearray()
        flow.spawn("engine", self._read)
        flow.spawn("hash", self._digest)
        flow.spawn("compress", self._compress)
        flow.spawn("library write", self._write)

    def _read(self, stage: Stage) -> None:
        try:
            while True:
                block = self._pool.get()
                since = time.perf_counter()
                block.used = self._child.read_into(block.view)
                stage.worked(since, block.used)
                if block.used == 0:
                    self._raw.put(None)
                    return
                self.end.extend(block.data[-END_BYTES:])
                del self.end[:-END_BYTES]
                self._raw.put(block)
        finally:
            self._child.close()

    def _digest(self, stage: Stage) -> None:
        while (block := self._raw.get()) is not None:
            since = time.perf_counter()
            self.stream_hash.update(block.data)
            stage.worked(since, block.used)
            self._hashed.put(block)
        self._hashed.put(None)

    def _compress(self, stage: Stage) -> None:
        try:
            while (block := self._hashed.get()) is not None:
                since = time.perf_counter()
                ready = list(self._packer.feed(block.data))
                stage.worked(since, block.used)
                self._transfer.stream_bytes += block.used
                self._pool.put(block)
                for piece in ready:
                    self._packed.put(piece)
            for piece in self._packer.finish():
                self._packed.put(piece)
            self._packed.put(None)
        finally:
            self._packer.close()

    def _write(self, stage: Stage) -> None:
        try:
            while (piece := self._packed.get()) is not None:
                since = time.perf_counter()
                self.file_hash.update(piece)
                endpoints.write_all(self._fd, piece)
                stage.worked(since, len(piece))
                self._transfer.file_bytes += len(piece)
        except OSError as exc:
            raise files.library_error(exc, endpoints.directory_of(self._fd)) from exc
        finally:
            os.close(self._fd)


def restore(
    engine: Engine,
    path: Path,
    device: Path,
    fs: str,
    *,
    compression: Compression,
    expect_file: FileRef,
    expect_stream_bytes: int,
    expect_stream_sha256: str,
    tick: Tick,
    cancelled: Cancelled,
    watcher: Watcher | None = None,
) -> Restored:
    """Restore the stream in the file `path` to `device`, which holds a partition of at least the source's size.

    Raises IntegrityError when file or stream differ from what is expected, LibraryError when the file cannot be read,
    EngineError when the engine failed or could not prove success, DiskError when the device fails, CancelledError.
    After any error but one about the file's length the content of `device` is undefined.
    """
    transfer = Transfer(tick, cancelled, watcher)
    with (
        endpoints.opened(path, expect_file) as file,
        endpoints.Target(device) as target,
        transfer.flow as flow,
        Child(engine, engine.restore(device, fs), reads=True) as child,
    ):
        feeding = _Feeding(
            transfer,
            child,
            file,
            path,
            compression=compression,
            expect_stream_bytes=expect_stream_bytes,
            expect_stream_sha256=expect_stream_sha256,
        )
        try:
            transfer.follow(child, flow.idle)
            transfer.follow(child, child.ended)
            verdict = Verdict(code=child.code, words=child.words(), stream_bytes=transfer.stream_bytes)
            engine.judge_restore(device, verdict)
            if not feeding.all_fed:
                why = f"took only {transfer.stream_bytes} of {expect_stream_bytes} bytes"
                raise unproven(engine.name, f"restore {device}", why)
        except (EngineError, IntegrityError):
            # A damaged file shows in many ways: an engine that chokes, a stream that differs. Those are consequences then.
            child.kill()
            endpoints.require_whole(path, expect_file, cancelled)
            raise
        flow.spawn("sync", target.sync)
        transfer.follow(child, flow.idle)
        return Restored(
            stream_bytes=transfer.stream_bytes,
            file_bytes=transfer.file_bytes,
            seconds=time.monotonic() - transfer.begun,
            stages=flow.rates(),
        )


class _Feeding:
    """The stages of a restore: read, unpack, hash, feed."""

    def __init__(
        self,
        transfer: Transfer,
        child: Child,
        file: IO[bytes],
        path: Path,
        *,
        compression: Compression,
        expect_stream_bytes: int,
        expect_stream_sha256: str,
    ) -> None:
        flow: Flow = transfer.flow
        self._transfer = transfer
        self._child = child
        self._path = path
        self._compression = compression
        self._expect_bytes = expect_stream_bytes
        self._expect_sha256 = expect_stream_sha256
        self._fd = os.dup(file.fileno())
        self._packed: Channel[bytes] = flow.channel(DEPTH)
        self._pool = transfer.pool(DEPTH * 2)
        self._plain: Channel[Block | None] = flow.channel(DEPTH)
        self._hashed: Channel[Block | None] = flow.channel(DEPTH)
        self._stream_hash = hashlib.sha256()
        self.all_fed = False
        """True when the engine took the whole stream, and it was the right one."""
        flow.spawn("library read", self._read)
        flow.spawn("unpack", self._unpack)
        flow.spawn("hash", self._digest)
        flow.spawn("engine", self._feed)

    def _read(self, stage: Stage) -> None:
        try:
            piece = b"-"
            while piece:
                since = time.perf_counter()
                with files.telling(self._path.parent):
                    piece = os.read(self._fd, BLOCK)
                stage.worked(since, len(piece))
                self._transfer.file_bytes += len(piece)
                self._packed.put(piece)
        finally:
            os.close(self._fd)

    def _unpack(self, stage: Stage) -> None:
        pieces = _Pieces(self._packed)
        source = unpacker(pieces, self._compression)
        total = 0
        while True:
            block = self._pool.get()
            since, waited = time.perf_counter(), pieces.waited_s
            try:
                block.used = source.read_into(block.view)
            except IntegrityError as exc:
                raise IntegrityError(f"the file {self._path.name} cannot be unpacked: {exc.message}") from exc
            stage.worked(since + pieces.waited_s - waited, block.used)
            total += block.used
            if total > self._expect_bytes:
                raise IntegrityError(
                    f"the stream in {self._path.name} goes on after its end at {self._expect_bytes} bytes"
                )
            if block.used == 0:
                self._plain.put(None)
                return
            self._plain.put(block)

    def _digest(self, stage: Stage) -> None:
        while (block := self._plain.get()) is not None:
            since = time.perf_counter()
            self._stream_hash.update(block.data)
            stage.worked(since, block.used)
            self._hashed.put(block)
        self._hashed.put(None)

    def _feed(self, stage: Stage) -> None:
        try:
            while (block := self._hashed.get()) is not None:
                since = time.perf_counter()
                self._child.write(block.data)
                stage.worked(since, block.used)
                self._transfer.stream_bytes += block.used
                self._pool.put(block)
            # Before the engine learns that this was all, and can end well.
            found = self._stream_hash.hexdigest()
            if self._transfer.stream_bytes != self._expect_bytes or found != self._expect_sha256:
                raise IntegrityError(f"the stream in {self._path.name} is not what the manifest says")
            self.all_fed = True
        except BrokenPipeError:
            # The engine gave up; its exit code and words tell why.
            self._transfer.flow.stop()
        except BaseException:
            # Closing the pipe would tell the engine that this was all, so it must be dead before.
            self._child.kill()
            raise
        finally:
            self._child.close()


class _Pieces:
    """The packed blocks of a channel, read like a file."""

    def __init__(self, pieces: Channel[bytes]) -> None:
        self._pieces = pieces
        self._ended = False
        self.waited_s = 0.0
        """Seconds in which no piece was there."""

    def read(self, _: int, /) -> bytes:
        """The following piece, of at most BLOCK bytes; empty at the end."""
        if self._ended:
            return b""
        since = time.perf_counter()
        piece = self._pieces.get()
        self.waited_s += time.perf_counter() - since
        self._ended = not piece
        return piece
