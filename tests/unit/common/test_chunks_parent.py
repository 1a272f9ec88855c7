"""Where an image came from: the rules of the sample, and the look at real indexes."""

import hashlib
import itertools
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import LibraryError
from litho.library import ImageRef, Library, Manifest, manifest
from litho.library.chunks import parent
from litho.library.chunks.parent import Parent, best, find, likely, newest_first, spread
from support import chunked

MB = chunked.MB


# ---------------------------------------------------------------- rules


@given(st.lists(st.integers(0, 400), max_size=6), st.integers(1, 300))
def test_a_sample_is_spread_evenly_over_all_rows(counts: list[int], samples: int) -> None:
    found = spread(counts, samples)
    total = sum(counts)
    assert len(found) == min(samples, total)
    assert len(set(found)) == len(found)
    assert all(0 <= place < counts[which] for which, place in found)
    starts = [sum(counts[:which]) for which in range(len(counts))]
    flat = [starts[which] + place for which, place in found]
    steps = {after - before for before, after in itertools.pairwise(flat)}
    assert not steps or max(steps) - min(steps) <= 1
    for which, count in enumerate(counts):
        assert abs(Counter(one for one, _ in found)[which] - count * len(found) / max(1, total)) <= 1


A, B, C = ImageRef("a", 2), ImageRef("b", 1), ImageRef("a", 1)


@pytest.mark.parametrize(
    ("hits", "samples", "named", "wanted"),
    [
        ([], 256, False, None),
        ([(A, 31)], 256, False, None),
        ([(A, 32)], 256, False, A),
        ([(A, 1)], 256, True, A),
        ([(A, 0)], 256, True, None),
        ([(A, 40), (B, 41)], 256, False, B),
        ([(A, 40), (C, 40)], 256, False, A),
        ([(A, 1)], 3, False, A),
        ([(A, 0)], 0, False, None),
    ],
)
def test_the_parent_has_most_of_the_sample_and_enough(
    hits: list[tuple[ImageRef, int]], samples: int, named: bool, wanted: ImageRef | None
) -> None:
    assert best(hits, samples, named=named) == wanted


def test_the_look_ends_with_a_version_that_has_all() -> None:
    assert best(iter([(A, 1), (B, 8), pytest.fail]), 8, named=False) == B  # type: ignore[list-item]


def test_every_image_s_newest_version_comes_first() -> None:
    versions = {"b": [1, 2, 9], "a": [4], "c": [3, 1]}
    assert [str(one) for one in newest_first(versions)] == ["b:9", "a:4", "c:3", "b:2", "c:1", "b:1"]
    assert newest_first({}) == []


def test_versions_that_name_the_packs_of_the_sample_are_looked_at_first() -> None:
    packs = {A: frozenset({b"1", b"2"}), B: frozenset({b"3"}), C: frozenset[bytes]()}
    assert likely([A, B, C], packs.__getitem__, {b"3": 5, b"2": 4}) == [B, A, C]
    assert likely([C, B, A], packs.__getitem__, {b"1": 2, b"2": 4}) == [A, C, B]
    assert likely([C, B, A], packs.__getitem__, {}) == [C, B, A]


# ---------------------------------------------------------------- the look


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.create(tmp_path / "library")


def staged(library: Library, name: str, disk: Path) -> Manifest:
    """Capture `disk` and leave it as it is a moment before it is published: its index has its `.part` name."""
    done = chunked.capture(library, name, disk)
    [part] = done.parts
    assert part.data is not None
    (library.root / f"{name}.v{done.version}.json").unlink()
    (library.root / part.data.file).rename(library.root / f"{part.data.file}.part")
    return done


def disk_of(path: Path, data: bytes | bytearray) -> Path:
    path.write_bytes(data)
    return path


def test_the_parent_is_found_by_sampling_else_by_name_and_strangers_have_none(library: Library, tmp_path: Path) -> None:
    data = chunked.contents(1, 12 * MB)
    chunked.capture(library, "stranger", disk_of(tmp_path / "0", chunked.contents(7, 12 * MB)))
    chunked.capture(library, "golden", disk_of(tmp_path / "1", data))
    # 12 MB are 96 chunks; one of them changes.
    data[5 * MB] ^= 1
    changed = disk_of(tmp_path / "2", data)
    assert find(library, staged(library, "other", changed)) == Parent(
        image="golden", version=1, shared=12 * MB - 128 * 1024
    )
    assert find(library, staged(library, "golden", changed)) == Parent(
        image="golden", version=1, shared=12 * MB - 128 * 1024
    )
    unrelated = disk_of(tmp_path / "3", chunked.contents(9, 12 * MB))
    assert find(library, staged(library, "odd", unrelated)) is None
    # A name alone makes no parent where nothing is the same.
    assert find(library, staged(library, "stranger", unrelated)) is None
    # Nor does it keep the true one from being found.
    assert find(library, staged(library, "stranger", changed)) == Parent(
        image="golden", version=1, shared=12 * MB - 128 * 1024
    )


def test_an_old_parent_among_many_images_is_found_by_its_packs(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "_LOOKED_AT", 1)
    disk = disk_of(tmp_path / "1", chunked.contents(1, 4 * MB))
    chunked.capture(library, "golden", disk)
    for number in range(3):
        chunked.capture(library, f"young{number}", disk_of(tmp_path / "2", chunked.contents(number + 10, 2 * MB)))
    assert find(library, staged(library, "other", disk)) == Parent(image="golden", version=1, shared=4 * MB)


def test_of_several_versions_the_nearest_is_the_parent(library: Library, tmp_path: Path) -> None:
    data = chunked.contents(1, 12 * MB, noise=1.0)
    rng = random.Random(3)  # noqa: S311  the same change each time
    for number in range(3):
        chunked.capture(library, "golden", disk_of(tmp_path / f"v{number}", data))
        for _ in range(20):
            data[rng.randrange(len(data))] ^= 0xFF
    second = disk_of(tmp_path / "second", (tmp_path / "v1").read_bytes())
    assert find(library, staged(library, "copy", second)) == Parent(image="golden", version=2, shared=12 * MB)


def test_shared_is_counted_in_used_bytes_chunk_by_chunk(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "_SLICE", 5)
    data = chunked.contents(1, 6 * MB + 1000)
    chunked.capture(library, "golden", disk_of(tmp_path / "1", data))
    rng = random.Random(4)  # noqa: S311  the same change each time
    grain = 128 * 1024
    touched = set(rng.sample(range(48), 11)) | {48}
    for chunk in touched:
        data[chunk * grain] ^= 0xFF
    found = find(library, staged(library, "golden", disk_of(tmp_path / "2", data)))
    assert found is not None
    assert found.shared == len(data) - 11 * grain - 1000
    shorter = disk_of(tmp_path / "3", data[: 4 * MB])
    found = find(library, staged(library, "golden", shorter))
    assert found is not None
    assert found.shared == 4 * MB - grain * sum(chunk < 32 for chunk in touched)


def test_a_disk_of_zeros_has_no_parent(library: Library, tmp_path: Path) -> None:
    chunked.capture(library, "golden", disk_of(tmp_path / "1", bytes(2 * MB)))
    assert find(library, staged(library, "golden", disk_of(tmp_path / "1", bytes(2 * MB)))) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "other"])
def test_a_version_that_is_damaged_is_no_parent(library: Library, tmp_path: Path, damage: str) -> None:
    data = chunked.contents(1, 4 * MB)
    first = chunked.capture(library, "golden", disk_of(tmp_path / "1", data))
    [part] = first.parts
    assert part.data is not None
    new = staged(library, "other", tmp_path / "1")
    assert find(library, new) == Parent(image="golden", version=1, shared=4 * MB)
    index = library.root / part.data.file
    whole = index.read_bytes()
    if damage == "cut":
        index.write_bytes(whole[:-1])
    elif damage == "flipped":
        index.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    elif damage == "other":
        index.write_bytes(hashlib.sha256(b"").digest() * 10)
    else:
        index.unlink()
    assert find(library, new) is None


def test_a_manifest_names_a_parent_wholly_or_not_at_all(library: Library, tmp_path: Path) -> None:
    made = chunked.capture(library, "golden", disk_of(tmp_path / "1", chunked.contents(1, MB)))
    good = msgspec.structs.replace(made, parent=1, parent_image="golden", shared=5)
    assert manifest.parse(manifest.dump(good), name="golden", version=1) == good
    for bad in ({"parent": 1}, {"parent_image": "golden"}, {"parent": 1, "parent_image": "../x"}):
        data = manifest.dump(msgspec.structs.replace(made, **bad))
        with pytest.raises(LibraryError, match="names a parent that cannot be"):
            manifest.parse(data, name="golden", version=1)
