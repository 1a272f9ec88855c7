"""Reading every byte of an image and checking every hash.

Two depths: `check_files` compares each stored file with the manifest's length and SHA-256 (a restore does this before
its first write), `check_streams` also unpacks each and compares the engine's stream. Both answer with problems as
sentences, not by raising at the first one: a person who asks for a check wants to know all that is wrong.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import zstandard

from litho.errors import IntegrityError
from litho.library import files
from litho.library.manifest import FileRef, Manifest, Part
from litho.library.shelf import Library

BLOCK = 1024 * 1024
"""Bytes read at a time."""

Tick = Callable[[int], None]
"""Told how many bytes were read since the last call."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with an image."""

    file: str
    sentence: str


def _silent(_: int) -> None:
    pass


def check_files(library: Library, manifest: Manifest, tick: Tick = _silent) -> list[Problem]:
    """Compare every file with its length and hash. Raises LibraryError only when the library itself is gone."""
    found = (_check_file(library.root, ref, tick) for ref in manifest.files())
    return [problem for problem in found if problem is not None]


def check_streams(library: Library, manifest: Manifest, tick: Tick = _silent) -> list[Problem]:
    """The same, and unpack each part and compare the stream's length and hash."""
    problems = check_files(library, manifest, tick)
    broken = {problem.file for problem in problems}
    for part in manifest.parts:
        if part.data is not None and part.data.file not in broken:
            problem = _check_stream(library.root, part, part.data, tick)
            if problem is not None:
                problems.append(problem)
    return problems


def require(problems: list[Problem]) -> None:
    """Raise IntegrityError naming the first of `problems`, if there is one."""
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise IntegrityError(
            f"{problems[0].sentence}{more}", hint="nothing was written; use another version, or capture again"
        )


def _check_file(root: Path, ref: FileRef, tick: Tick) -> Problem | None:
    path = root / ref.file
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return Problem(ref.file, f"the file {ref.file} is missing")
    except OSError as exc:
        raise files.library_error(exc, root) from exc
    if size != ref.bytes:
        return Problem(ref.file, f"the file {ref.file} has {size} bytes instead of {ref.bytes}")
    digest = hashlib.sha256()
    with files.telling(root), path.open("rb", buffering=0) as file:
        for block in _blocks(file):
            digest.update(block)
            tick(len(block))
    if digest.hexdigest() != ref.sha256:
        return Problem(ref.file, f"the file {ref.file} is damaged: its SHA-256 is not what the manifest says")
    return None


def _check_stream(root: Path, part: Part, ref: FileRef, tick: Tick) -> Problem | None:
    digest = hashlib.sha256()
    size = 0
    try:
        with files.telling(root), (root / ref.file).open("rb", buffering=0) as file:
            for block in unpacked(file, part.compression):
                digest.update(block)
                size += len(block)
                tick(len(block))
    except IntegrityError as exc:
        return Problem(ref.file, f"the file {ref.file} cannot be unpacked: {exc.message}")
    if size != part.stream_bytes or digest.hexdigest() != part.stream_sha256:
        return Problem(ref.file, f"the stream in {ref.file} is not what the manifest says")
    return None


def unpacked(file: IO[bytes], compression: str) -> Iterator[bytes]:
    """The plain stream in a stored file, in blocks. Raises IntegrityError when it is cut or damaged."""
    if compression == "none":
        yield from _blocks(file)
    elif compression == "zstd":
        yield from _unzstd(file)
    else:
        yield from _gunzip(file)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    begun = False
    try:
        for packed in _blocks(file):
            block = packed
            while block:
                if frame.eof:
                    frame = decompressor.decompressobj()
                begun = True
                plain = frame.decompress(block)
                block = frame.unused_data if frame.eof else b""
                if plain:
                    yield plain
    except zstandard.ZstdError as exc:
        raise IntegrityError(f"not a whole zstd stream ({exc})") from exc
    if not begun or not frame.eof:
        raise IntegrityError("the zstd stream ends early")


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    begun = False
    try:
        for packed in _blocks(file):
            block = packed
            while block:
                if member.eof:
                    member = zlib.decompressobj(wbits=31)
                begun = True
                plain = member.decompress(block, BLOCK * 4)
                block = member.unused_data if member.eof else member.unconsumed_tail
                if plain:
                    yield plain
    except zlib.error as exc:
        raise IntegrityError(f"not a whole gzip stream ({exc})") from exc
    if not begun or not member.eof:
        raise IntegrityError("the gzip stream ends early")
