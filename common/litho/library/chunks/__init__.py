"""Chunks: what the library holds of partitions that the chunk engine captured, shared by all images.

    golden.v3-sda1.chunks           index: which bytes of the partition were used, and the hash of each chunk
    .chunks/<id>.pack               some hundreds of megabytes of chunks, one self-describing frame each
    .chunks/<id>.idx                where each chunk of that pack lies; a pack counts when this exists
    .chunks/<id>.catalog            a cache: hash prefixes of many packs in one sorted file

A partition is cut on a fixed grid from its first byte. Blocks that no file uses are read as zeros, so they never count as a
change. Each chunk is named by the BLAKE3 hash of its bytes and stored once, however many images hold it. An index
names chunks by hash and says in which pack each lay when it was written; where it lies today the pack's own index tells, so packs
can be rewritten without touching an image.

Nothing here is a database: every file can be read with `docs/reference/chunks.md` beside it, and whatever is not a pack or
an index of an image can be made anew from those two.

`usedmap` has the arithmetic of used bytes, `pack`, `index` and `catalog` the formats (pure), `store` the directory, `known` what
the library has, `writer` and `reader` the way in and out, `gc` takes away what nothing needs. `trust` says which packs were read
whole lately, `scrub` reads everything at once and `patrol` now and then, `mend` takes damaged chunks out of their packs' indexes,
`health` is what is known of damage.
"""

from litho.library.chunks.index import Index
from litho.library.chunks.reader import ChunkReader
from litho.library.chunks.store import ChunkStore
from litho.library.chunks.usedmap import Extent, UsedMap
from litho.library.chunks.writer import ChunkWriter

__all__ = ["ChunkReader", "ChunkStore", "ChunkWriter", "Extent", "Index", "UsedMap"]
