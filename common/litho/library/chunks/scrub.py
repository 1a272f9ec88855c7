"""Reading every byte of the chunks, and saying in words what is damaged and which images need it.

`check_image` looks at what one version needs, `scrub` at the whole library. Both answer with problems as sentences. With `mend`,
a damaged chunk is taken out of its pack's index, so that the next capture which meets the same bytes stores them again, and every
image that needs the chunk is whole again without being touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

import msgspec
import zstandard

from litho.errors import IntegrityError, LibraryError
from litho.library import files
from litho.library.chunks import catalog, indexfile
from litho.library.chunks import health as healths
from litho.library.chunks import pack as packs
from litho.library.chunks.health import Damage, Health
from litho.library.chunks.index import Index
from litho.library.chunks.lock import Lock
from litho.library.chunks.mend import take_out
from litho.library.chunks.reader import ChunkReader, Locator, Wanted, unpack
from litho.library.chunks.store import MAX_CATALOG, ChunkStore, Listing
from litho.library.chunks.trust import sign, unsign
from litho.library.chunks.usedmap import units
from litho.library.manifest import Manifest, Part
from litho.library.shelf import Library
from litho.library.verify import Problem, Tick

ENGINE = "chunk"


class PackReport(msgspec.Struct, frozen=True, kw_only=True):
    """A pack that is not whole."""

    pack: str
    """Its identifier, in hex; empty when it is an image that lacks something which no pack has."""
    sentences: tuple[str, ...]
    images: tuple[str, ...]
    """Index files of the image versions that need a damaged chunk of it."""
    mended: bool


def read_index(library: Library, part: Part) -> Index:
    """The index that a manifest's part names, checked against it. Raises IntegrityError, LibraryError."""
    if part.data is None or not part.chunk_root:
        raise LibraryError(f"partition {part.number} was not captured in chunks", code="not-chunks")
    with files.telling(library.root):
        path = library.root / part.data.file
        index = indexfile.load(path, what=f"the index {path.name}", expect_root=bytes.fromhex(part.chunk_root))
    if index.size != part.size:
        raise IntegrityError(
            f"the index {part.data.file} is of a partition of {index.size} bytes, and the manifest says {part.size}",
            code="corrupt-index",
        )
    return index


def check_image(library: Library, manifest: Manifest, tick: Tick = lambda _: None) -> list[Problem]:
    """Read every chunk that the version needs. Raises LibraryError only when the library itself is gone."""
    problems: list[Problem] = []
    store = ChunkStore(library)
    for part in manifest.parts:
        if part.engine != ENGINE or part.data is None:
            continue
        try:
            index = read_index(library, part)
        except IntegrityError as exc:
            problems.append(Problem(part.data.file, exc.message))
            continue
        problems.extend(Problem(part.data.file, words) for words in check_index(store, index, tick))
    return problems


def check_index(store: ChunkStore, index: Index, tick: Tick = lambda _: None) -> Iterator[str]:
    """What is wrong with the chunks that an index needs, one sentence for each run of chunks in one unit of I/O."""
    locator = Locator(store)
    said: set[str] = set()
    view = memoryview(bytearray(index.grain))
    with ChunkReader(locator) as reader:
        for begin, end in units(index.numbers, index.grain):
            for i in range(begin, end):
                named = index.pack(i)
                if named is None:
                    continue
                low, high = index.span(i)
                try:
                    reader.fetch([Wanted(index.digest(i), named, view[: high - low])])
                except IntegrityError as exc:
                    if exc.message not in said:
                        said.add(exc.message)
                        yield exc.message
                tick(high - low)


def scrub(store: ChunkStore, *, mend: bool = False, tick: Callable[[int], None] = lambda _: None) -> list[PackReport]:
    """Read every pack from its first byte to its last, and ask every image for each of its chunks.

    What is found is kept for `litho.library.chunks.health`. Raises LibraryError when the library is gone, RefusedError when
    something is to be mended while a collector runs.
    """
    listing = store.listing()
    at = healths.now(store)
    damaged: dict[bytes, tuple[list[str], set[bytes]]] = {}
    size = 0

    def count(read: int) -> None:
        nonlocal size
        size += read
        tick(read)

    for pack in sorted(listing.live | listing.condemned):
        sentences, chunks = check_pack(store, pack, count)
        if sentences:
            damaged[pack] = (sentences, chunks)
    needs = healths.needs(store, {pack: chunks for pack, (_, chunks) in damaged.items()})
    reports: list[PackReport] = []
    with Lock(store) if mend and damaged else contextlib.nullcontext():
        for pack, (sentences, chunks) in damaged.items():
            mended = mend and take_out(store, pack, chunks)
            images = tuple(sorted(needs.packs.get(pack, ())))
            reports.append(PackReport(pack=pack.hex(), sentences=tuple(sentences), images=images, mended=mended))
    told = {name for report in reports for name in report.images}
    for name, why in sorted(needs.lacking.items()):
        if name not in told:
            reports.append(PackReport(pack="", sentences=(f"{name}: {why}",), images=(name,), mended=False))
    if at:
        left = _left(at, reports, {pack: chunks for pack, (_, chunks) in damaged.items()})
        health = Health(ended=at, packs=len(listing.pack), bytes=size, damaged=left, lacking=needs.lacking)
        healths.write(store, health)
    return reports + _scrub_catalogs(store, listing, mend=mend)


def _left(at: float, reports: list[PackReport], chunks: dict[bytes, set[bytes]]) -> tuple[Damage, ...]:
    """The damaged packs that nobody has mended."""
    return tuple(
        Damage(
            pack=one.pack,
            sentences=one.sentences,
            images=one.images,
            at=at,
            chunks=tuple(sorted(chunk.hex() for chunk in chunks[bytes.fromhex(one.pack)])),
        )
        for one in reports
        if one.pack and not one.mended
    )


def _scrub_catalogs(store: ChunkStore, listing: Listing, *, mend: bool) -> list[PackReport]:
    reports: list[PackReport] = []
    for name in sorted(listing.catalogs):
        path = store.path(name, "catalog")
        try:
            catalog.parse(files.read_small(path, MAX_CATALOG))
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise files.library_error(exc, store.root) from exc
        except IntegrityError as exc:
            if mend:
                with files.telling(store.root):
                    path.unlink(missing_ok=True)
            words = f"{path.name}: {exc.message} (it is only a cache)"
            reports.append(PackReport(pack=name.hex(), sentences=(words,), images=(), mended=mend))
    return reports


def check_pack(store: ChunkStore, pack: bytes, tick: Callable[[int], None]) -> tuple[list[str], set[bytes]]:
    """Unpack all of a pack: what is wrong with it, and which of its chunks are damaged; a whole one gets its receipt.

    When not even the index can be read, no chunk is known. Raises LibraryError when the library is gone, and what `tick` raises.
    """
    store.forget(pack)
    try:
        index = store.index(pack)
    except IntegrityError as exc:
        return ([exc.message], set()) if counts(store, pack) else ([], set())
    sentences: list[str] = []
    bad: set[bytes] = set()
    view = memoryview(bytearray(max((record.length for record in index), default=0)))
    unzstd = zstandard.ZstdDecompressor(max_window_size=packs.MAX_CHUNK)
    try:
        with store.path(pack, "pack").open("rb", buffering=0) as file:
            seen = os.fstat(file.fileno())
            # What the disk has is to be read, not what this machine remembers.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                packs.check_pack_header(_read(file.fileno(), packs.PACK_HEADER, 0), pack)
            except LibraryError as exc:
                sentences.append(exc.message)
                bad.update(record.digest for record in index)
            for record in sorted(index, key=lambda one: one.offset):
                frame = _read(file.fileno(), record.end - record.offset, record.offset)
                tick(record.end - record.offset)
                try:
                    unpack(pack, record, memoryview(frame), view[: record.length], unzstd)
                except IntegrityError as exc:
                    sentences.append(exc.message)
                    bad.add(record.digest)
    except FileNotFoundError:
        if not counts(store, pack):
            # The collector came by.
            return [], set()
        return [f"the pack {pack.hex()} is missing"], {record.digest for record in index}
    except OSError as exc:
        raise files.library_error(exc, store.root) from exc
    if seen.st_size != index.size:
        sentences.append(f"the pack {pack.hex()} has {seen.st_size} bytes instead of {index.size}")
    if sentences:
        unsign(store, pack)
    else:
        sign(store, pack, seen)
    return sentences, bad


def counts(store: ChunkStore, pack: bytes, since: float = float("-inf")) -> bool:
    """True when the pack is live or condemned, and its index was written after that moment."""
    for kind in ("idx", "idx.condemned", "idx"):
        with contextlib.suppress(OSError):
            return store.path(pack, kind).stat().st_mtime > since
    return False


def _read(fd: int, length: int, offset: int) -> bytes:
    """Bytes of a pack; none where the disk below cannot read, which is damage like any other. Raises OSError."""
    try:
        return os.pread(fd, length, offset)
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise
        return b""
