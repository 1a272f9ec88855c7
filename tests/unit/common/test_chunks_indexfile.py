"""An index that is read in pieces is the same index, and what is wrong with its file is found."""

import os
import random
from array import array
from pathlib import Path

import pytest

from litho.errors import IntegrityError, LibraryError
from litho.library.chunks import index, indexfile
from litho.library.chunks.hashes import WINDOW, StoredHashes
from litho.library.chunks.usedmap import UsedMap

GRAIN = 4096
CHUNKS = 5000
"""Two windows of hashes and a piece."""


@pytest.fixture(autouse=True)
def every_index_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexfile, "LARGE", 0)


@pytest.fixture
def made() -> index.Index:
    rng = random.Random(1)  # noqa: S311  the same each time
    used = UsedMap([(0, 100 * GRAIN), (200 * GRAIN, (CHUNKS - 100) * GRAIN - 1000)], CHUNKS * GRAIN * 2)
    numbers = used.chunks(GRAIN)
    pack_of = array("I", [index.ZEROS if n % 4 == 3 else n % 2 for n in range(len(numbers))])
    return index.make(
        GRAIN, used, numbers, rng.randbytes(32 * len(numbers)), pack_of=pack_of, packs=[b"a" * 16, b"b" * 16]
    )


@pytest.fixture
def path(made: index.Index, tmp_path: Path) -> Path:
    path = tmp_path / "golden.v1-sda1.chunks"
    path.write_bytes(index.dump(made))
    return path


def test_it_is_the_same_index_with_its_hashes_in_the_file(made, path):
    found = indexfile.load(path, what="it", expect_root=made.root)
    assert isinstance(found.digests, StoredHashes) and len(found.digests) == 32 * CHUNKS > 2 * WINDOW
    assert [found.digest(i) for i in range(CHUNKS)] == [made.digest(i) for i in range(CHUNKS)]
    assert found.digests[WINDOW - 100 : 2 * WINDOW + 50] == made.digests[WINDOW - 100 : 2 * WINDOW + 50]
    assert (found.numbers, found.pack_of, found.packs, found.used, found.root) == (
        made.numbers,
        made.pack_of,
        made.packs,
        made.used,
        made.root,
    )
    assert index.dump(found) == path.read_bytes()


def test_a_small_one_is_held_whole(made, path, monkeypatch):
    monkeypatch.setattr(indexfile, "LARGE", 1 << 30)
    assert indexfile.load(path, what="it") == made


def test_reading_short_pieces_makes_no_difference(made, path, monkeypatch):
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: whole(fd, [views[0][:30_011]], at))
    assert indexfile.load(path, what="it").digest(CHUNKS - 1) == made.digest(CHUNKS - 1)


def test_every_flipped_byte_of_a_thousand_and_every_cut_is_found(made, path):
    data = path.read_bytes()
    rng = random.Random(2)  # noqa: S311  the same each time
    for at in [*range(120), *rng.choices(range(120, len(data)), k=880)]:
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(LibraryError):
            indexfile.load(path, what="it")
    for cut in (0, 7, 119, 120, 121, 50_000, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(IntegrityError):
            indexfile.load(path, what="it")
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="not what the manifest says"):
        indexfile.load(path, what="it", expect_root=b"x" * 32)


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_file_that_changes_while_it_is_used_is_told_and_nothing_of_it_believed(made, path, how):
    found = indexfile.load(path, what="it")
    hashes = path.stat().st_size - 32 * len(made.packs) // 2 - 36 * CHUNKS
    with path.open("r+b") as file:
        if how == "cut":
            file.truncate(hashes + 10)
        else:
            file.seek(hashes + 40)
            file.write(b"lie")
    with pytest.raises(IntegrityError, match="has changed while it was used"):
        found.digest(0)


def test_the_root_of_other_hashes_is_worked_out_window_by_window(made, path):
    other = bytearray(made.digests)
    other[WINDOW + 64 : WINDOW + 96] = b"y" * 32
    wanted = index.root(GRAIN, made.used, made.numbers, other)
    found = indexfile.load(path, what="it")
    instead = {1: other[WINDOW : 2 * WINDOW]}
    assert index.root(GRAIN, found.used, found.numbers, found.digests, instead=instead) == wanted != made.root
