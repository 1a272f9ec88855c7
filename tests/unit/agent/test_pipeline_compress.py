"""Compressors: their files are read by the standard tools and by the project's own decompressor."""

import io
import random
import subprocess

import pytest
import zstandard

from litho.library.unpack import unpacked
from litho_agent.compress import MEMBER, compressor

PLAIN = random.Random(3).randbytes(MEMBER) + bytes(MEMBER * 2) + b"words " * 300_000 + b"end"  # noqa: S311  data, no secret


def packed(compression: str, plain: bytes, *, level: int = 1, block: int = 256 * 1024, threads: int = 2) -> bytes:
    packer = compressor(compression, level, threads)  # type: ignore[arg-type]  # parametrized
    found = bytearray()
    buffer = bytearray(block)
    for start in range(0, len(plain), block):
        piece = plain[start : start + block]
        buffer[: len(piece)] = piece
        for out in packer.feed(memoryview(buffer)[: len(piece)]):
            found += out
        # The block goes round: whoever kept it would see this.
        buffer[:] = b"\xff" * block
    for out in packer.finish():
        found += out
    packer.close()
    return bytes(found)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("level", [1, 9, 19])
@pytest.mark.parametrize("plain", [PLAIN, PLAIN[: MEMBER * 2], b"x", b""], ids=["odd", "members", "byte", "empty"])
def test_what_is_packed_comes_back(compression: str, level: int, plain: bytes) -> None:
    data = packed(compression, plain, level=level)
    assert b"".join(unpacked(io.BytesIO(data), compression)) == plain


@pytest.mark.parametrize(
    ("compression", "tool"),
    [
        ("gzip", ["zcat"]),
        ("gzip", ["gzip", "-dc"]),
        ("gzip", ["pigz", "-dc"]),
        ("zstd", ["zstd", "-q", "-dc"]),
    ],
)
@pytest.mark.parametrize("plain", [PLAIN, b""], ids=["full", "empty"])
def test_standard_tools_read_it(compression: str, tool: list[str], plain: bytes) -> None:
    done = subprocess.run(tool, input=packed(compression, plain), capture_output=True, check=True)
    assert done.stdout == plain


def test_gzip_is_made_of_independent_members() -> None:
    data = packed("gzip", PLAIN)
    assert data.count(b"\x1f\x8b\x08\x00") >= len(PLAIN) // MEMBER


def test_zstd_carries_a_checksum() -> None:
    assert zstandard.get_frame_parameters(packed("zstd", PLAIN)).has_checksum


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_the_same_stream_gives_the_same_file_on_any_number_of_cores(compression: str) -> None:
    assert packed(compression, PLAIN, threads=1) == packed(compression, PLAIN, threads=4)


def test_a_gzip_that_is_given_up_leaves_no_thread_behind() -> None:
    packer = compressor("gzip", 9, 2)
    list(packer.feed(memoryview(PLAIN)))
    packer.close()
