"""What a library says of itself: what each version costs, and what differs between two."""

import pytest

from litho.library import ImageRef, Library, care
from litho.library.chunks import ChunkStore, gc
from litho.library.chunks.compare import compare
from litho.library.chunks.scrub import read_index
from litho.library.chunks.usage import usage
from support.chunked import MB, capture, contents
from support.images import publish


@pytest.fixture
def library(tmp_path):
    """v1 has 8 MB; v2 has the same first half and its own second; `single` is a stream."""
    library = Library.create(tmp_path / "lib")
    source = tmp_path / "source"
    data = contents(1, 8 * MB)
    source.write_bytes(data)
    capture(library, "golden", source)
    data[4 * MB :] = contents(2, 4 * MB)
    source.write_bytes(data)
    capture(library, "golden", source)
    publish(library, "single")
    publish(library, "single")
    publish(library, "single", b"other blocks " * 500)
    return library


def test_shared_chunks_count_once_and_alone_is_what_deleting_gives_back(library):
    counted = usage(library)
    one, two, *_ = counted.versions
    assert (one.image, one.version, two.version) == ("golden", 1, 2)
    shared = one.chunks - one.alone
    assert shared == two.chunks - two.alone > 0
    assert counted.chunks == one.alone + two.alone + shared
    assert counted.condemned == 0 and counted.packs > counted.chunks
    assert [(each.chunks, each.alone) for each in counted.versions[2:]] == [(0, 0)] * 3
    care.remove(library, ImageRef("golden", 1))
    for _ in range(3):
        gc.collect(ChunkStore(library), grace_s=0, pack_bytes=MB)
    after = usage(library)
    assert after.chunks == counted.chunks - one.alone
    assert after.versions[0].alone == after.versions[0].chunks == two.chunks


def test_a_version_whose_index_is_damaged_is_listed_with_its_error(library):
    (library.root / "golden.v1-sda1.chunks").write_bytes(b"junk" * 100)
    one, two, *_ = usage(library).versions
    assert "damaged" in one.error and two.error == "" and two.alone == two.chunks


def test_versions_in_chunks_are_compared_chunk_by_chunk(library):
    first, second = (library.manifest(ImageRef("golden", number)) for number in (1, 2))
    found = compare(library, first, second)
    (part,) = found.parts
    assert (part.how, part.equal, found.table, found.equal) == ("chunks", False, True, False)
    assert part.same >= 4 * MB and part.changed > 0
    assert part.same + part.changed + part.gone == sum(high - low for low, high in _spans(library, first))
    assert compare(library, first, first).equal


def _spans(library, manifest):
    index = read_index(library, manifest.parts[0])
    return [index.span(i) for i in range(len(index.numbers))]


def test_streams_are_the_same_or_not_and_tables_are_compared_without_the_name_of_the_disk(library):
    one, same, other = (library.manifest(ImageRef("single", number)) for number in (1, 2, 3))
    assert compare(library, one, same).equal
    found = compare(library, one, other)
    assert [(part.number, part.how, part.equal) for part in found.parts] == [(1, "stream", False), (5, "facts", True)]
    between = compare(library, one, library.manifest(ImageRef("golden", 1)))
    assert {part.how for part in between.parts} == {"stream", "first only"} and not between.table
