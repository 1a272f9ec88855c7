"""What partimage says, word for word as partimage 0.6.9 printed it with `-B x=y`, and what the agent makes of it."""

from pathlib import Path

import pytest

from litho.errors import EngineError
from litho_agent.engines.base import Source, Verdict
from litho_agent.engines.partimage import Partimage

ENGINE = Partimage()
DEVICE = Path("/dev/sda1")
SOURCE = Source(device=DEVICE, fs="ext3", size=125_829_120, used=32_000_000)

LINE = "\rstdout       S:  30 MiB \r\t\t\t\b\bT:00:00:01/00:00:00  R:2.64 GiB/min  P:{:>3}%"
START = "Volume size: 0 bytes (0 MiB)\npartimage: status: initializing the operation.\n"
DONE = START + LINE.format(99) + LINE.format(100) + "\n\npartimage: status: commiting buffer cache to disk."
END = b"x" * 100 + b"MAGIC-BEGIN-TAIL" + bytes(16384)


def verdict(words: str, *, code: int = 0, stream_bytes: int = 32_187_900, end: bytes = END) -> Verdict:
    return Verdict(code=code, words=words, stream_bytes=stream_bytes, end=end)


def test_a_save_that_reached_the_end_is_believed() -> None:
    ENGINE.judge_save(SOURCE, verdict(DONE))


def test_a_restore_that_reached_the_end_is_believed() -> None:
    ENGINE.judge_restore(DEVICE, verdict(DONE, end=b""))


def test_exit_code_0_at_99_percent_is_not_success() -> None:
    with pytest.raises(EngineError, match="its last word was 99% instead of 100%") as caught:
        ENGINE.judge_restore(DEVICE, verdict(START + LINE.format(99)))
    assert caught.value.code == "engine-unproven"


def test_exit_code_0_without_progress_is_not_success() -> None:
    with pytest.raises(EngineError, match="no progress"):
        ENGINE.judge_save(SOURCE, verdict(START))


def test_a_stream_without_its_tail_is_not_success() -> None:
    with pytest.raises(EngineError, match="does not end as a partimage stream ends"):
        ENGINE.judge_save(SOURCE, verdict(DONE, end=END[:-1]))


def test_fewer_bytes_than_used_blocks_are_not_success() -> None:
    with pytest.raises(EngineError, match="fewer than the 32000000 bytes of used blocks"):
        ENGINE.judge_save(SOURCE, verdict(DONE, stream_bytes=31_999_999))


MOUNTED = (
    "partimage: Error [Continue/Cancel]\npartimage:  The /dev/loop0 partition is mounted. Partition Image can't work on "
    'mounted partitions. Please, unmount it before. You can do it with "umount /tmp/m"\n'
    "partimage:  => (unspecified)\npartimage: invalid programmed response."
)


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "sentence"),
    [
        (
            "partimage: Error\nThe file system of [/dev/loop0] is [-unknown-], and is not supported\n",
            1,
            "wrong-fs",
            "does not know the file system",
        ),
        ("The second argument [/dev/loop777] must be a valid device (ex: /dev/hda1)", 1, "disk-missing", "not there"),
        (MOUNTED, 8, "mounted", "the partition is mounted"),
        ("partimage: status: reading partition properties\n", 1, "engine-failed", "journal that was not replayed"),
        ("partimage: status: reading partition properties\n", -11, "engine-crashed", "does on an XFS of version 5"),
    ],
)
def test_a_failed_save_names_the_partition_and_the_reason(words: str, exit_code: int, code: str, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence) as caught:
        ENGINE.judge_save(SOURCE, verdict(START + words, code=exit_code))
    assert caught.value.code == code
    assert caught.value.message.startswith("partimage could not save /dev/sda1: ")
    assert caught.value.hint


VOLUME = (
    "partimage: Volume not found (Can't read the following volume file:\n/stdin.001\n"
    "Enter another full path (directory & name)) no default"
)
CRC = (
    "partimage: local CRC error [Yes/No]\npartimage:  There was a CRC error in CCheck. Data may be damaged. "
    "Do you want to continue?\npartimage:  => (unspecified)\npartimage: invalid programmed response."
)


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "sentence"),
    [
        (LINE.format(60) + VOLUME, 8, "bad-stream", "ended early, and the target is half written"),
        (LINE.format(60) + CRC, 8, "bad-stream", "its CRC differs"),
        (MOUNTED, 8, "mounted", "is mounted"),
        ("", 1, "engine-failed", "smaller than the one that was captured"),
        ("", -11, "engine-failed", "not one of its own"),
    ],
)
def test_a_failed_restore_names_the_partition_and_the_reason(
    words: str, exit_code: int, code: str, sentence: str
) -> None:
    with pytest.raises(EngineError, match=sentence) as caught:
        ENGINE.judge_restore(DEVICE, verdict(START + words, code=exit_code))
    assert caught.value.code == code
    assert caught.value.message.startswith("partimage could not restore /dev/sda1: ")


@pytest.mark.parametrize("code", [-15, -2, 251, 141])
def test_every_other_end_is_a_failure_too(code: int) -> None:
    with pytest.raises(EngineError):
        ENGINE.judge_save(SOURCE, verdict(DONE, code=code))
    with pytest.raises(EngineError):
        ENGINE.judge_restore(DEVICE, verdict(DONE, code=code))


@pytest.mark.parametrize(
    ("words", "fraction"),
    [
        (LINE.format(96), 0.96),
        (LINE.format(96) + LINE.format(97), 0.97),
        ("T:00:00:00/00:00:00  R:0 Bytes/min  P: 94%", 0.94),
        ("T:00:01:02/00:03:04  R:512.5 MiB/min  P:  0%", 0.0),
        ("S:  30 MiB", None),
        ("P: 94%", None),
    ],
)
def test_progress_is_whole_percents(words: str, fraction: float | None) -> None:
    assert ENGINE.fraction(words) == fraction


def test_the_commands_ask_nothing_and_neither_pack_nor_split() -> None:
    assert ENGINE.save(SOURCE) == (
        "partimage", "-B", "x=y", "-y", "-z0", "-V0", "-f3", "-o", "-d", "-M", "-c", "save", DEVICE, "stdout",
    )  # fmt: skip
    assert ENGINE.restore(DEVICE, "ext3") == ("partimage", "-B", "x=y", "-y", "-f3", "restore", DEVICE, "stdin")
