"""What is known of damage in a library: which packs, which chunks, which images; and when somebody last looked at everything.

`.chunks/health.json` holds what the last scrubs found, for `litho image ls`, `show` and `stats`. It is made anew by the next one
and nothing depends on it: what it says is a hint to people. Times are seconds by the file server's clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Set

import msgspec

from litho.errors import IntegrityError, LibraryError
from litho.library import files, names
from litho.library.chunks import gc
from litho.library.chunks.index import Index
from litho.library.chunks.known import Known
from litho.library.chunks.pack import PackIndex
from litho.library.chunks.store import ChunkStore

_NAME = "health.json"
_MOST = 16 * 1024 * 1024
_TOLD = 20
"""Sentences kept of one pack."""


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A pack that is not whole."""

    pack: str
    """Its identifier, in hex."""
    sentences: tuple[str, ...]
    images: tuple[str, ...]
    """Index files of the image versions that need a damaged chunk of it."""
    at: float
    """When it was found so."""
    chunks: tuple[str, ...] = ()
    """Hashes of its damaged chunks, in hex."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What the last looks found."""

    format: int = 1
    ended: float = 0.0
    """When the last round that saw every pack and every image ended; 0: never."""
    packs: int = 0
    """Packs that there were then."""
    bytes: int = 0
    """In them."""
    damaged: tuple[Damage, ...] = ()
    lacking: dict[str, str] = {}
    """Index files of image versions that cannot be restored, and why."""

    def of(self, image: str, version: int) -> str:
        """Why this version cannot be restored, one sentence; empty when nothing is known against it."""
        begin = f"{image}.v{version}-"
        return next((why for name, why in sorted(self.lacking.items()) if name.startswith(begin)), "")


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What damage means for images."""

    packs: dict[bytes, set[str]]
    """For each damaged pack the index files that rely on what is damaged in it."""
    lacking: dict[str, str]


Bad = Mapping[bytes, Set[bytes]]
"""Damaged packs and the hashes of their damaged chunks; of a pack whose index is damaged none are known, and none are needed."""


def read(store: ChunkStore) -> Health:
    """What was written last; nothing when that is not to be had. Raises LibraryError when the library is gone."""
    try:
        return msgspec.json.decode(files.read_small(store.root / _NAME, _MOST), type=Health)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return Health()
    except OSError as exc:
        raise files.library_error(exc, store.root) from exc


def write(store: ChunkStore, health: Health) -> None:
    """Keep it; a library that cannot be written goes without."""
    cut = tuple(
        msgspec.structs.replace(one, sentences=one.sentences[:_TOLD]) if len(one.sentences) > _TOLD else one
        for one in health.damaged
    )
    with contextlib.suppress(OSError):
        files.replace(store.root / _NAME, msgspec.json.encode(msgspec.structs.replace(health, damaged=cut)))


def needs(store: ChunkStore, bad: Bad, *, beat: Callable[[], None] = lambda: None) -> Needs:
    """Go through every index of every published version and see which chunks no pack has whole.

    `beat` is called now and then; what it raises ends this. Raises LibraryError.
    """
    here = _Here(store, bad)
    packs: dict[bytes, set[str]] = {}
    lacking: dict[str, str] = {}
    damaged: dict[str, str] = {}
    for name, index in gc.image_indexes(store, damaged=damaged):
        beat()
        relies: set[bytes] = set()
        if not here.why(index, relies, beat):
            continue
        # Packs may have been rewritten since the look at their names, or the version is in the making or gone meanwhile.
        here, relies = _Here(store, bad), set()
        why = here.why(index, relies, beat)
        if why and _published(store, name):
            lacking[name] = why
            for pack in relies:
                packs.setdefault(pack, set()).add(name)
    lacking |= {name: why for name, why in damaged.items() if _published(store, name)}
    return Needs(packs=packs, lacking=lacking)


def _published(store: ChunkStore, name: str) -> bool:
    parsed = names.parse_file(name)
    if parsed is None:
        return False
    with files.telling(store.library.root):
        return (store.library.root / names.manifest_file(parsed.image, parsed.version)).exists()


class _Here:
    """Looks for chunks the way a restore does."""

    def __init__(self, store: ChunkStore, bad: Bad) -> None:
        self._store = store
        self._bad = bad
        listing = store.listing()
        self._there = (listing.live | listing.condemned) & listing.pack
        self._known: Known | None = None

    def why(self, index: Index, relies: set[bytes], beat: Callable[[], None]) -> str:
        """What is wrong with the chunks that an index needs; empty: nothing. Adds to `relies` the bad packs that it relies on."""
        missing = damaged = 0
        for i in range(len(index.numbers)):
            if i % 65536 == 0:
                beat()
            named = index.pack(i)
            if named is None:
                continue
            digest = index.digest(i)
            if self._has(named, digest):
                pack: bytes | None = named
            else:
                pack = self._elsewhere(digest)
                if named in self._bad and pack is None:
                    relies.add(named)
            if pack is None:
                missing += 1
            elif self._is_bad(pack, digest):
                damaged += 1
                relies.add(pack)
        said = [f"{damaged} of its chunks are damaged"] if damaged else []
        said += [f"{missing} of its chunks are in no pack"] if missing else []
        return " and ".join(said)

    def _is_bad(self, pack: bytes, digest: bytes) -> bool:
        return digest in self._bad.get(pack, ())

    def _has(self, pack: bytes, digest: bytes) -> bool:
        if pack not in self._there:
            return False
        try:
            return self._store.index(pack).position(digest) >= 0
        except IntegrityError:
            return False

    def _elsewhere(self, digest: bytes) -> bytes | None:
        if self._known is None:
            self._known = Known.load(self._store)

        def sound(index: PackIndex, _: int) -> bool:
            return not self._is_bad(index.pack, digest)

        return self._known.find(digest, sound) or self._known.find(digest)


def now(store: ChunkStore) -> float:
    """The file server's clock; 0 for a library that cannot be written, as the clock is read off a file."""
    try:
        return store.now()
    except LibraryError:
        return 0.0
