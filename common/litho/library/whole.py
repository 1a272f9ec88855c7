"""Is a version whole? The files that are its own (`verify`), and the chunks that it shares with others (`chunks.scrub`)."""

from __future__ import annotations

from litho.library import verify
from litho.library.chunks import scrub
from litho.library.manifest import Manifest
from litho.library.shelf import Library
from litho.library.verify import Problem, Tick


def check(library: Library, manifest: Manifest, tick: Tick, *, deep: bool = False) -> list[Problem]:
    """Read every stored byte of the version and compare every hash; with `deep` unpack streams as well.

    Chunks are always unpacked: a chunk's name is the hash of its content. Raises LibraryError only when the library is gone.
    """
    problems = (verify.check_streams if deep else verify.check_files)(library, manifest, tick)
    # An index that is damaged has been told already.
    broken = {problem.file for problem in problems}
    return problems + [one for one in scrub.check_image(library, manifest, tick) if one.file not in broken]


def total(manifest: Manifest, *, deep: bool = False) -> int:
    """About as many bytes as `check` will read: the chunks' content counts, packed or not."""
    stored = sum(ref.bytes for ref in manifest.files())
    chunks = sum(part.used for part in manifest.parts if part.chunk_root)
    return stored + chunks + (sum(part.stream_bytes for part in manifest.parts) if deep else 0)
