"""The one decompressor: whole files, several frames, cut files, hostile ones, in pieces of any size."""

import contextlib
import gzip
import io
import random
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from litho.errors import IntegrityError
from litho.library.unpack import unpacked, unpacker

PLAIN = random.Random(7).randbytes(300_000) + bytes(400_000) + b"text " * 20_000  # noqa: S311  data, no secret
SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\x00\x00\x00hello"


class Dripping:
    """A file that gives at most `size` bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._size))


def zstd(plain: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(plain)


PACKED = {
    "zstd": zstd(PLAIN, write_checksum=True),
    "gzip": gzip.compress(PLAIN, 1),
    "none": PLAIN,
}


def whole(data: bytes, compression: str, *, drip: int = 1 << 20, piece: int = 1 << 20) -> bytes:
    source = unpacker(Dripping(data, drip), compression)
    view = memoryview(bytearray(piece))
    found = bytearray()
    while count := source.read_into(view):
        found += view[:count]
    assert source.read_into(view) == 0
    return bytes(found)


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize(("drip", "piece"), [(1 << 20, 1 << 20), (1 << 20, 999), (7, 1 << 20), (1, 65536)])
def test_a_whole_file_is_unpacked_whatever_the_pieces(compression: str, drip: int, piece: int) -> None:
    assert whole(PACKED[compression], compression, drip=drip, piece=piece) == PLAIN


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_several_frames_after_each_other_are_one_stream(compression: str) -> None:
    assert whole(PACKED[compression] * 3, compression, drip=1000) == PLAIN * 3


def test_frames_of_every_header_are_walked() -> None:
    one_pass = zstd(b"x" * 10, write_content_size=True, write_checksum=False)
    large = zstd(PLAIN, write_content_size=True)
    unsized = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compressobj()
    streamed = unsized.compress(PLAIN) + unsized.flush()
    empty = zstd(b"")
    data = SKIPPABLE + one_pass + large + empty + SKIPPABLE + streamed + SKIPPABLE
    assert whole(data, "zstd", drip=3) == b"x" * 10 + PLAIN + PLAIN


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@given(keep=st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_is_told(compression: str, keep: int) -> None:
    data = PACKED[compression]
    with pytest.raises(IntegrityError, match="ends early"):
        whole(data[: keep % len(data)], compression)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("junk", [b"\x00", b"junk", b"x" * 100])
def test_bytes_after_the_end_are_told(compression: str, junk: bytes) -> None:
    with pytest.raises(IntegrityError):
        whole(PACKED[compression] + junk, compression)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@given(at=st.integers(0, 10**9), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_flipped_byte_never_unpacks_to_other_bytes(compression: str, at: int, flip: int) -> None:
    data = bytearray(PACKED[compression])
    # The file name, time and system in a gzip header are in no checksum and change nothing.
    data[at % len(data)] ^= flip
    with contextlib.suppress(IntegrityError):
        assert whole(bytes(data), compression) == PLAIN


def test_a_hostile_ratio_comes_in_small_pieces() -> None:
    bomb = zstandard.ZstdCompressor(level=19, write_content_size=False).compressobj()
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(512)) + bomb.flush()
    assert len(packed) < 60_000
    sizes = [len(piece) for piece in unpacked(io.BytesIO(packed), "zstd")]
    assert (max(sizes), sum(sizes)) == (1 << 20, 512 << 20)
    squeezed = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(squeezed.compress(bytes(1 << 20)) for _ in range(64)) + squeezed.flush()
    sizes = [len(piece) for piece in unpacked(io.BytesIO(packed), "gzip")]
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == 64 << 20


def test_a_window_that_would_fill_the_memory_is_refused() -> None:
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"
    with pytest.raises(IntegrityError, match="not a whole zstd stream"):
        whole(header, "zstd")
