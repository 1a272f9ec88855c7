"""The roll, `.chunks/roll`: which packs count and which catalogs there are, for readers that cannot list a directory.

One name a line, as in the directory: `<id>.idx` for a live pack, `<id>.catalog`. The collector writes it at the end of each run,
and it alone moves chunks to other packs; so whoever misses a pack finds in the roll where its chunks are now, however old
the roll is. A name in it may be gone already, and a pack that was made later is not in it.
"""

from __future__ import annotations

from litho.library import files
from litho.library.chunks.store import ChunkStore, Listing, sort_names

NAME = "roll"
MAX_BYTES = 64 * 1024 * 1024
"""A million packs have 37 MB of names."""


def write(store: ChunkStore) -> None:
    """Write what there is now. Raises LibraryError."""
    listing = store.listing()
    with files.telling(store.root):
        files.replace(store.root / NAME, dump(listing))


def dump(listing: Listing) -> bytes:
    """The file. Pure."""
    names = [f"{pack.hex()}.idx" for pack in listing.live & listing.pack]
    names += [f"{name.hex()}.catalog" for name in listing.catalogs]
    return "".join(f"{name}\n" for name in sorted(names)).encode()


def parse(data: bytes) -> Listing:
    """What the file says; lines that are no names of `.chunks` count for nothing. Pure."""
    return sort_names(data[:MAX_BYTES].decode("ascii", "replace").split("\n"))
