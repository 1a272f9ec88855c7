"""The rules of raw (dd) and of partimage-ng, and the last sectors that engines leave out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import DiskError, EngineError, IntegrityError
from litho_agent.engines import tail
from litho_agent.engines.base import Source, Verdict
from litho_agent.engines.partimage_ng import PartimageNg
from litho_agent.engines.raw import Raw

DEVICE = Path("/dev/sda1")
RAW_SOURCE = Source(device=DEVICE, fs="", size=62_914_560)
COPIED = "60+0 records in\n60+0 records out\n62914560 bytes (63 MB, 60 MiB) copied, 0.120844 s, 521 MB/s\n"


def verdict(words: str, *, code: int = 0, stream_bytes: int = 62_914_560) -> Verdict:
    return Verdict(code=code, words=words, stream_bytes=stream_bytes)


def test_raw_is_believed_when_the_count_is_the_partition_s_size() -> None:
    Raw().judge_save(RAW_SOURCE, verdict(COPIED))
    Raw().judge_restore(DEVICE, verdict(COPIED))


def test_a_device_that_gave_fewer_bytes_than_its_size_is_told() -> None:
    words = "1+0 records in\n1+0 records out\n1048576 bytes (1.0 MB, 1.0 MiB) copied, 0.1 s, 10 MB/s\n"
    with pytest.raises(EngineError, match="has 1048576 bytes, and the partition 62914560"):
        Raw().judge_save(RAW_SOURCE, verdict(words, stream_bytes=1_048_576))


def test_a_missing_device_that_dd_read_as_an_empty_file_is_told() -> None:
    words = "0+0 records in\n0+0 records out\n0 bytes copied, 3.4001e-05 s, 0.0 kB/s\n"
    with pytest.raises(EngineError, match="has 0 bytes, and the partition 62914560"):
        Raw().judge_save(RAW_SOURCE, verdict(words, stream_bytes=0))


def test_a_count_that_differs_from_what_moved_is_told() -> None:
    with pytest.raises(EngineError, match="copied 62914560 bytes where 62914561 bytes moved"):
        Raw().judge_restore(DEVICE, verdict(COPIED, stream_bytes=62_914_561))
    with pytest.raises(EngineError, match="copied nothing"):
        Raw().judge_restore(DEVICE, verdict(""))


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("dd: error writing '/dev/loop1': No space left on device\n" + COPIED, "target-too-small", "half written"),
        ("dd: error reading '/dev/loop1': Input/output error\n" + COPIED, "disk-io", "cannot be read"),
        ("dd: fsync failed for '/dev/loop1': Input/output error\n" + COPIED, "disk-io", "did not take all"),
        ("dd: failed to open '/dev/sdz1': No such file or directory\n", "disk-missing", "not there"),
    ],
)
def test_a_failed_dd_names_the_partition_and_the_reason(words: str, code: str, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence) as caught:
        Raw().judge_restore(DEVICE, verdict(words, code=1))
    assert caught.value.code == code


def test_raw_never_makes_a_file_where_a_device_is_missing() -> None:
    assert "conv=notrunc,nocreat,fsync" in Raw().restore(DEVICE, "")


NG = PartimageNg()


def test_partimage_ng_is_driven_by_the_attested_command_lines() -> None:
    assert NG.save(RAW_SOURCE) == ("partimage-ng", "save", DEVICE, "stdout")
    assert NG.restore(DEVICE, "ext3") == ("partimage-ng", "-u", "1", "restore", "stdin", DEVICE)


@pytest.mark.parametrize(
    ("line", "fraction"),
    [
        ("1 2 42.5 4 5 6", 0.425),
        ("a\tb\t7.0\td\te\tf", 0.07),
        ("a b 100 d e f g h", 1.0),
        ("a b 10.0 d e f\na b 20.0 d e f\nReading superblock", 0.2),
        ("a b 142.5 d e f", None),
        ("a b -1 d e f", None),
        ("a b nan d e f", None),
        ("a b 42.5 d e", None),
        ("The image of a disk is restored", None),
        ("", None),
    ],
)
def test_partimage_ng_s_progress_is_read_leniently(line: str, fraction: float | None) -> None:
    assert NG.fraction(line) == fraction


@given(st.text())
def test_no_words_of_partimage_ng_make_progress_that_cannot_be(words: str) -> None:
    found = NG.fraction(words)
    assert found is None or 0.0 <= found <= 1.0


def test_partimage_ng_needs_exit_code_0_and_a_stream() -> None:
    NG.judge_save(RAW_SOURCE, verdict("anything"))
    NG.judge_restore(DEVICE, verdict(""))
    with pytest.raises(EngineError, match="its stream is empty"):
        NG.judge_save(RAW_SOURCE, verdict("", stream_bytes=0))
    with pytest.raises(EngineError, match=r"could not save /dev/sda1: partimage-ng ended with exit code 1 \(no disk\)"):
        NG.judge_save(RAW_SOURCE, verdict("no disk", code=1))
    with pytest.raises(EngineError, match="partimage-ng was ended by SIGSEGV"):
        NG.judge_restore(DEVICE, verdict("", code=-11))


@given(st.binary(max_size=tail.TAIL_BYTES))
def test_last_sectors_come_back_from_the_manifest_as_they_were(data: bytes) -> None:
    extra = tail.to_extra(data)
    assert tail.from_extra({"fat.cluster": "4096", **extra}) == data
    assert all(len(key) <= 256 and len(value) <= 256 for key, value in extra.items())


def test_a_part_without_last_sectors_has_none() -> None:
    assert tail.from_extra({"fat.cluster": "4096"}) == b""


@pytest.mark.parametrize(
    "extra",
    [
        {"tail.0": "!!!"},
        {"tail.0": "aGVsbG8="},
        {"tail.1": "aGVsbG8="},
        {"tail.0": "é"},
        {"tail.x": ""},
        tail.to_extra(bytes(tail.TAIL_BYTES + 1)),
        {"tail.0": tail.to_extra(bytes(range(256)) * 8)["tail.0"]},
    ],
)
def test_damaged_last_sectors_are_refused(extra: dict[str, str]) -> None:
    with pytest.raises(IntegrityError):
        tail.from_extra(extra)


def test_last_sectors_are_read_and_written_at_the_source_s_end(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"a" * 8192 + b"b" * 4096)
    new.write_bytes(b"c" * 20000)
    data = tail.read(old, 12288, tail.TAIL_BYTES)
    assert data == b"b" * 4096
    tail.write(new, 12288, data)
    assert new.read_bytes() == b"c" * 8192 + b"b" * 4096 + b"c" * (20000 - 12288)


def test_last_sectors_of_a_device_that_is_shorter_or_missing_are_told(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"a" * 4096)
    with pytest.raises(DiskError, match="shorter than 12288 bytes"):
        tail.read(short, 12288, tail.TAIL_BYTES)
    with pytest.raises(DiskError, match="No such file"):
        tail.read(tmp_path / "none", 12288, tail.TAIL_BYTES)
