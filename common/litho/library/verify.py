"""Reading every byte of an image and checking every hash.

Two depths: `check_files` compares each stored file with the manifest's length and SHA-256 (a restore does this before
its first write), `check_streams` also unpacks each and compares the engine's stream. Both answer with problems as
sentences, not by raising at the first one: a person who asks for a check wants to know all that is wrong.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from litho.errors import IntegrityError
from litho.library import files
from litho.library.manifest import FileRef, Manifest, Part
from litho.library.shelf import Library
from litho.library.unpack import BLOCK, unpacked

Tick = Callable[[int], None]
"""Told how many bytes were read since the last call."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with an image."""

    file: str
    sentence: str


def _silent(_: int) -> None:
    pass


def check_files(library: Library, manifest: Manifest, tick: Tick = _silent, *, staged: bool = False) -> list[Problem]:
    """Compare every file with its length and hash; with `staged` while they still have their `.part` names.

    Raises LibraryError only when the library itself is gone.
    """
    ending = ".part" if staged else ""
    found = (_check_file(library.root / (ref.file + ending), ref, tick) for ref in manifest.files())
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


def _check_file(path: Path, ref: FileRef, tick: Tick) -> Problem | None:
    root = path.parent
    try:
        found = path.stat()
    except FileNotFoundError:
        return Problem(ref.file, f"the file {ref.file} is missing")
    except OSError as exc:
        raise files.library_error(exc, root) from exc
    if not stat.S_ISREG(found.st_mode):
        # Opening a pipe would wait for ever.
        return Problem(ref.file, f"{ref.file} is not a regular file")
    if found.st_size != ref.bytes:
        return Problem(ref.file, f"the file {ref.file} has {found.st_size} bytes instead of {ref.bytes}")
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


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
