"""Reading the whole library again and again, a pack at a time, so that damage is found while there is still time to do something.

The receipts beside the packs (`litho.library.chunks.trust`) say when each was read whole, so they are all the progress that is
kept: a patrol that is broken off goes on with the packs that have no young receipt. A damaged pack is looked at again after the
same time. When nothing is due any more, every image is asked whether each of its chunks is in a pack that has it whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from litho.library import files
from litho.library.chunks import health as healths
from litho.library.chunks import trust
from litho.library.chunks.health import Damage, Health, Needs
from litho.library.chunks.scrub import check_pack, counts
from litho.library.chunks.store import ChunkStore

AT_ONCE = 4
"""Damaged packs that are told of as soon as they are found. To know the images that need one takes a look at every index there
is; where much is damaged the others are told of together, at the end of the round."""


class Stopped(Exception):  # noqa: N818 - no failure: the caller asked for it
    """The patrol was told to stop."""


def patrol(
    store: ChunkStore,
    *,
    every_s: float,
    cancelled: Callable[[], bool] = lambda: False,
    rest: Callable[[float], None] = lambda _: None,
    found: Callable[[Damage], None] = lambda _: None,
) -> Health:
    """Read what nobody has read whole for `every_s` seconds.

    After each pack `rest` is told the seconds that it took, and may sleep. `found` is told of a damaged pack, with the
    images that need it. Answers what is known then. Raises LibraryError, Stopped when `cancelled` says so.
    """

    def beat(_: int = 0) -> None:
        if cancelled():
            raise Stopped

    health = healths.read(store)
    if not store.root.is_dir():
        return health
    begun = store.now()
    listing = store.listing()
    here = sorted(listing.live | listing.condemned)
    damaged = {one.pack: one for one in health.damaged if bytes.fromhex(one.pack) in here}
    # What is known of damaged packs is kept in chunks only while they are looked at; images are asked about those alone.
    bad: dict[bytes, frozenset[bytes]] = {}
    untold: dict[bytes, Damage] = {}
    read = False
    for pack in here:
        beat()
        before = damaged.get(pack.hex())
        if before is not None and 0 <= begun - before.at < every_s and not counts(store, pack, before.at):
            bad[pack] = frozenset(bytes.fromhex(word) for word in before.chunks)
            continue
        # A capture signs what agrees with its CRCs. A chunk that was stored under a wrong hash does, and is damage all the same.
        if before is None and trust.fresh(trust.checked_at(store, pack), begun, every_s):
            continue
        read = True
        since = time.monotonic()
        sentences, chunks = check_pack(store, pack, beat)
        if not sentences:
            damaged.pop(pack.hex(), None)
        else:
            bad[pack] = frozenset(chunks)
            damage = Damage(
                pack=pack.hex(),
                sentences=tuple(sentences),
                images=(),
                # Of no time until it was told: whoever goes on looks at it again.
                at=0.0,
                chunks=tuple(sorted(one.hex() for one in chunks)),
            )
            untold[pack] = damage
            if len(untold) <= AT_ONCE:
                needs = healths.needs(store, {pack: bad[pack]}, beat=beat)
                damage = _told(damage, needs, begun, found)
            damaged[pack.hex()] = damage
            health = msgspec.structs.replace(health, damaged=tuple(damaged.values()))
            healths.write(store, health)
        rest(time.monotonic() - since)
    if not read and 0 <= begun - health.ended < every_s:
        return health
    needs = healths.needs(store, bad, beat=beat)
    for pack, damage in untold.items():
        if not damaged[pack.hex()].at:
            damaged[pack.hex()] = _told(damage, needs, begun, found)
    with files.telling(store.root):
        size = sum(_size(store, pack) for pack in here)
    health = Health(
        ended=store.now(), packs=len(here), bytes=size, damaged=tuple(damaged.values()), lacking=needs.lacking
    )
    healths.write(store, health)
    return health


def _told(damage: Damage, needs: Needs, at: float, found: Callable[[Damage], None]) -> Damage:
    """Tell of a damaged pack, with the images that need it."""
    images = tuple(sorted(needs.packs.get(bytes.fromhex(damage.pack), ())))
    damage = msgspec.structs.replace(damage, images=images, at=at)
    found(damage)
    return damage


def _size(store: ChunkStore, pack: bytes) -> int:
    try:
        return store.path(pack, "pack").stat().st_size
    except FileNotFoundError:
        return 0
