"""A manifest comes back as it was written, or not at all."""

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litho.errors import IntegrityError, LibraryError
from litho.library import manifest as mf
from litho.library.manifest import BadRange, FileRef, Manifest, Part
from litho.messages import DiskFacts, OsFacts

SHA = "0123456789abcdef" * 4


def ref(file: str) -> FileRef:
    return FileRef(file=file, bytes=10, sha256=SHA)


def sample(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "image": "golden",
        "version": 2,
        "created": "2026-11-22T16:00:00Z",
        "software": "lithograph 0.1.0",
        "node": "n01",
        "disk": DiskFacts(path="/dev/sda", size=10**9, serial='S"1'),
        "disk_name": "sda",
        "table": "dos",
        "table_dump": ref("golden.v2-sda.sfdisk"),
        "head": ref("golden.v2-sda.head"),
        "parts": (stream(1), Part(number=5, kind="swap", start=2**29, size=2**20, uuid="u", label="l")),
        "os": OsFacts(name="Linux", vers="debian12"),
        "labels": {"who": "änne"},
        "notes": ("skipped sda3",),
        **changes,
    }
    return Manifest(**fields)


def stream(number: int, **changes: Any) -> Part:
    fields: dict[str, Any] = {
        "number": number,
        "kind": "stream",
        "start": 2**20,
        "size": 2**28,
        "fs": "ext4",
        "engine": "partclone",
        "compression": "zstd",
        "data": ref(f"golden.v2-sda{number}.partclone.zst"),
        "used": 100,
        "stream_bytes": 120,
        "stream_sha256": SHA,
        "bad": (BadRange(start=4096, size=512),),
        **changes,
    }
    return Part(**fields)


def sealed(body: object) -> bytes:
    """A manifest's file with any body, its hash right: what a forger would write."""
    packed = body if isinstance(body, bytes) else msgspec.json.encode(body)
    digest = hashlib.sha256(packed).hexdigest().encode()
    return b'{"format": 1,\n"sha256": "%s",\n"body": %s}\n' % (digest, packed)


def parse(data: bytes) -> Manifest:
    return mf.parse(data, name="golden", version=2)


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert parse(mf.dump(sample())) == sample()
    assert sample().stored == 30
    assert sample().used == 100
    assert [file.file for file in sample().files()] == [
        "golden.v2-sda.sfdisk",
        "golden.v2-sda.head",
        "golden.v2-sda1.partclone.zst",
    ]


short = st.text(max_size=256).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))


@given(
    label=short,
    note=short,
    used=st.integers(0, 2**62),
    numbers=st.lists(st.integers(0, 1024), unique=True, max_size=12),
)
def test_any_manifest_that_can_be_written_can_be_read(label: str, note: str, used: int, numbers: list[int]) -> None:
    written = sample(
        parts=tuple(stream(number, used=used, label=label) for number in numbers), notes=(note,), labels={note: label}
    )
    assert parse(mf.dump(written)) == written


def frame(number: int = 2, **changes: Any) -> Part:
    return Part(**{"number": number, "kind": "empty", "start": 2**30, "size": 2**30, **changes})


def inside(number: int, start: int, size: int, within: int = 2) -> Part:
    data = ref(f"golden.v2-sda2-lv{number}.partclone.zst")
    return stream(number, start=2**30 + start, size=size, within=within, data=data)


def test_parts_inside_of_a_partition_come_back_as_they_were_written() -> None:
    written = sample(parts=(stream(1), frame(), inside(258, 2**20, 2**20), inside(257, 2**21, 2**22)))
    assert parse(mf.dump(written)) == written


@pytest.mark.parametrize(
    "parts",
    [
        (inside(257, 0, 2**20),),
        (frame(), inside(257, 0, 2**20, within=3)),
        (frame(kind="skipped"), inside(257, 0, 2**20)),
        (frame(), inside(3, 0, 2**20)),
        (frame(), inside(257, -(2**20), 2**20)),
        (frame(), inside(257, 2**29, 2**29 + 1)),
        (frame(), inside(257, 0, 2**21), inside(258, 2**20, 2**20)),
        (frame(), frame(257, within=2), inside(258, 0, 2**20, within=257)),
    ],
)
def test_a_part_that_has_no_room_inside_of_another_is_refused(parts: tuple[Part, ...]) -> None:
    with pytest.raises(LibraryError, match="where it has no room") as refused:
        parse(mf.dump(sample(parts=parts)))
    assert refused.value.code == "bad-manifest"


def test_what_was_lost_is_counted_with_what_is_not_listed() -> None:
    listed = (BadRange(start=0, size=512), BadRange(start=4096, size=1024))
    assert stream(1, bad=listed).lost == (1536, 2)
    more = stream(2, bad=listed, bad_bytes=10**6, bad_places=900)
    assert more.lost == (10**6, 900)
    assert sample(parts=(stream(1, bad=listed), more)).lost == 10**6 + 1536


def test_a_manifest_from_before_there_were_these_fields_is_read() -> None:
    body = msgspec.json.decode(msgspec.json.encode(sample(parts=(stream(1),))))
    for key in ("within", "bad_bytes", "bad_places"):
        del body["parts"][0][key]
    assert parse(sealed(body)) == sample(parts=(stream(1),))


def test_every_single_flipped_bit_of_a_manifest_is_found() -> None:
    original = sample()
    data = mf.dump(original)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            try:
                found = parse(bytes(damaged))
            except LibraryError:
                continue
            assert found == original, f"bit {bit} of byte {position} slipped through"


def test_every_cut_of_a_manifest_is_found() -> None:
    data = mf.dump(sample())
    for length in range(len(data) - 2):
        with pytest.raises(IntegrityError) as refused:
            parse(data[:length])
        assert refused.value.code == "corrupt-manifest"
        assert "golden.v2.json" in refused.value.message


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_stretch_is_found(data: st.DataObject) -> None:
    whole = mf.dump(sample())
    start = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=40))
    damaged = whole[:start] + junk + whole[start + len(junk) :]
    try:
        assert parse(damaged) == sample()
    except LibraryError:
        assert damaged != whole


@given(st.binary(max_size=300))
def test_junk_is_an_integrity_error(junk: bytes) -> None:
    with pytest.raises(LibraryError):
        parse(junk)


@pytest.mark.parametrize("depth", [b"[" * 100_000, b'{"body":' * 100_000])
def test_a_deep_nest_is_an_integrity_error(depth: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse(depth)


HOSTILE = [
    "../../etc/shadow",
    "/etc/shadow",
    "golden.v2-../x",
    "golden.v3-sda1.zst",
    "other.v2-sda1.zst",
    "golden.v2.json",
    "golden.json",
    ".lithograph",
    "golden.v2-sda1.zst.part",
    "golden.v2-a\n",
    "golden.v2-a\x00",
    "",
    ".",
    "golden.v2-sda.sfdisk",
]


@pytest.mark.parametrize("file", HOSTILE)
def test_a_file_that_is_not_the_versions_own_is_refused(file: str) -> None:
    body = msgspec.to_builtins(sample())
    body["parts"][0]["data"]["file"] = file
    with pytest.raises(LibraryError) as refused:
        parse(sealed(body))
    assert refused.value.code == "bad-manifest"
    assert repr(file) in refused.value.message


def broken(path: list[str | int], value: object) -> bytes:
    body = msgspec.to_builtins(sample())
    at: Any = body
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return sealed(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["image"], "other"),
        (["version"], 3),
        (["version"], 0),
        (["disk_name"], "../sda"),
        (["disk_name"], "sda\n"),
        (["table"], "bsd"),
        (["parts", 0, "size"], -1),
        (["parts", 0, "size"], 2**63),
        (["parts", 0, "size"], 1.5),
        (["parts", 0, "number"], 5),
        (["parts", 0, "number"], 1025),
        (["parts", 0, "kind"], "swap"),
        (["parts", 0, "data"], None),
        (["parts", 0, "compression"], "xz"),
        (["parts", 0, "stream_sha256"], ""),
        (["parts", 0, "stream_sha256"], SHA + "\n"),
        (["parts", 0, "data", "sha256"], SHA.upper()),
        (["parts", 0, "data", "bytes"], "10"),
        (["parts", 0, "surprise"], 1),
        (["surprise"], 1),
        (["head", "file"], "golden.v2-sda.sfdisk"),
        (["notes"], ["n" * 257]),
        (["disk", "size"], None),
    ],
    ids=str,
)
def test_a_forged_manifest_with_a_right_hash_is_refused(path: list[str | int], value: object) -> None:
    with pytest.raises(LibraryError) as refused:
        parse(broken(path, value))
    assert refused.value.code == "bad-manifest"


def test_a_manifest_of_a_newer_format_says_so() -> None:
    data = mf.dump(sample()).replace(b'"format": 1', b'"format": 2', 1)
    with pytest.raises(LibraryError, match=r"format 2, and this program reads format 1: use a newer Lithograph"):
        parse(data)


def test_a_manifest_larger_than_any_is_not_parsed() -> None:
    with pytest.raises(LibraryError, match="more than any manifest has"):
        parse(b" " * (mf.MAX_BYTES + 1))


def test_a_manifest_under_another_name_is_refused() -> None:
    with pytest.raises(LibraryError, match=r"golden\.v3\.json speaks of 'golden' version 2"):
        mf.parse(mf.dump(sample()), name="golden", version=3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b'{"image":"golden"}',
        b'{"format":1,"image":"golden","version":0}',
        b"[" * 10**5,
    ],
    ids=range(6),
)
def test_a_damaged_pointer_is_an_integrity_error_with_a_way_out(data: bytes) -> None:
    with pytest.raises(IntegrityError) as refused:
        mf.parse_pointer(data, name="golden")
    assert "golden.json" in refused.value.message
    assert "golden:1" in refused.value.hint


def test_a_pointer_of_another_image_is_refused() -> None:
    with pytest.raises(IntegrityError, match="speaks of the image 'other'"):
        mf.parse_pointer(b'{"format":1,"image":"other","version":1}', name="golden")
