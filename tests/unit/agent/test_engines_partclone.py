"""What partclone says, word for word as partclone 0.3.23 printed it, and what the agent makes of it."""

from pathlib import Path

import pytest

from litho.errors import EngineError
from litho_agent.engines.base import Source, Verdict
from litho_agent.engines.partclone import PROGRAMS, Partclone

ENGINE = Partclone()
DEVICE = Path("/dev/sda1")
SOURCE = Source(device=DEVICE, fs="ext4", size=314_572_800, used=48_429_056)

BANNER = "Partclone v0.3.23 http://partclone.org\n"
SAVED = (
    BANNER + "Starting to clone device (/dev/loop0) to image (-)\nReading Super Block\n"
    "Calculating bitmap... Please wait... \n"
    "\r                                        \rElapsed: 00:00:01, Remaining: 00:00:00, Completed: 100.00%\n"
    "Total Time: 00:00:01, 100.00% completed!\ndone!\nFile system:  EXTFS\nDevice size:  314.6 MB = 307200 Blocks\n"
    "Space in use:  48.4 MB = 47294 Blocks\nFree Space:   266.1 MB = 259906 Blocks\nBlock size:   1024 Byte\n"
    "\r          \rElapsed: 00:00:01, Remaining: 00:01:39, Completed:   1.00%,   0.00byte/min,"
    "\r          \rElapsed: 00:00:01, Remaining: 00:00:00, Completed: 100.00%, Rate:   2.91GB/min,\n"
    "Total Time: 00:00:01, 100.00% completed!\nSyncing... OK!\n"
    "Partclone successfully cloned the device (/dev/loop0) to the image (-)\nCloned successfully.\n"
)
RESTORED = (
    BANNER + "Starting to restore image (-) to device (/dev/loop1)\nCalculating bitmap... Please wait...\n"
    "Syncing... OK!\nPartclone successfully restored the image (-) to the device (/dev/loop1)\nCloned successfully.\n"
)
FAIL = "Partclone fail, please check /dev/null !\n"


def verdict(words: str, *, code: int = 0, stream_bytes: int = 48_467_570) -> Verdict:
    return Verdict(code=code, words=words, stream_bytes=stream_bytes)


def test_a_save_that_said_its_word_and_moved_all_used_bytes_is_believed() -> None:
    ENGINE.judge_save(SOURCE, verdict(SAVED))


def test_a_restore_that_said_its_word_is_believed() -> None:
    ENGINE.judge_restore(DEVICE, verdict(RESTORED))


def test_a_usage_error_with_exit_code_0_is_not_success() -> None:
    usage = "partclone.ext4: unrecognized option '--badopt'\nUsage: unset_name [OPTIONS]\n"
    with pytest.raises(EngineError, match="never said that it had succeeded") as caught:
        ENGINE.judge_save(SOURCE, verdict(usage))
    assert caught.value.code == "engine-unproven"


def test_fewer_bytes_than_used_blocks_are_not_success() -> None:
    with pytest.raises(EngineError, match="48429055 bytes, fewer than the 48429056 bytes of used blocks"):
        ENGINE.judge_save(SOURCE, verdict(SAVED, stream_bytes=48_429_055))


def test_an_empty_stream_is_not_success_even_when_the_used_bytes_are_unknown() -> None:
    blind = Source(device=DEVICE, fs="ext4", size=314_572_800)
    with pytest.raises(EngineError, match="0 bytes"):
        ENGINE.judge_save(blind, verdict(SAVED, stream_bytes=0))


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "sentence"),
    [
        ("ntfsclone-ng.c: NOT NTFS partition, ntfs mount error 22\n", 1, "wrong-fs", "does not hold the file system"),
        ("clone: open /dev/loop777 error\n", 1, "disk-missing", "the partition is not there"),
        ("device (/dev/loop0) is mounted at /tmp/m\nerror exit\n", 1, "mounted", "the partition is mounted"),
        (
            "extfsclone.c: bitmap free count err, partclone get free:73568 but extfs get 91534.\n"
            "Please run fsck to check and repair the file system\n",
            1,
            "fs-dirty",
            "not cleanly unmounted",
        ),
        ("extfsclone.c: FS contains a file system with errors\n", 1, "fs-errors", "marked as having errors"),
        (
            "Volume is scheduled for a check or it was shutdown uncleanly.\n",
            1,
            "fs-dirty",
            "Windows was not fully shut down",
        ),
        ("read error: Input/output error\n", 1, "disk-io", "I/O error"),
    ],
)
def test_a_failed_save_names_the_partition_and_the_reason(words: str, exit_code: int, code: str, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence) as caught:
        ENGINE.judge_save(SOURCE, verdict(BANNER + words + FAIL, code=exit_code))
    assert caught.value.code == code
    assert caught.value.message.startswith("partclone could not save /dev/sda1: ")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("This is not partclone image.\n", "bad-stream", "not a partclone stream"),
        ("read image_hdr error=0\n", "bad-stream", "not a partclone stream"),
        (
            "Completed:  62.07%, 398.46MB/min,read ERROR:No such file or directory\n",
            "bad-stream",
            "ended early, and the target is half written",
        ),
        (
            "Target partition size(63 MB) is smaller than source(126 MB). Use option -C to disable size checking(Dangerous).\n",
            "target-too-small",
            "smaller than the one that was captured, and nothing was written",
        ),
        ("device (/dev/loop0) is mounted at /tmp/m\nerror exit\n", "mounted", "is mounted"),
    ],
)
def test_a_failed_restore_names_the_partition_and_the_reason(words: str, code: str, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence) as caught:
        ENGINE.judge_restore(DEVICE, verdict(BANNER + words + FAIL, code=1))
    assert caught.value.code == code
    assert caught.value.message.startswith("partclone could not restore /dev/sda1: ")


def test_a_word_of_failure_outweighs_exit_code_0() -> None:
    with pytest.raises(EngineError):
        ENGINE.judge_restore(DEVICE, verdict(RESTORED + FAIL))


def test_a_signal_is_told_from_an_exit_code() -> None:
    with pytest.raises(EngineError, match="partclone was ended by SIGSEGV") as caught:
        ENGINE.judge_save(SOURCE, verdict(BANNER, code=-11))
    assert caught.value.code == "engine-crashed"


def test_an_unknown_failure_quotes_the_last_words() -> None:
    with pytest.raises(EngineError, match=r"ended with exit code 3 \(something new\)"):
        ENGINE.judge_save(SOURCE, verdict("something new\r\n\n", code=3))


@pytest.mark.parametrize(
    ("words", "fraction"),
    [
        ("Elapsed: 00:00:02, Remaining: 00:00:01, Completed:  46.00%,   2.22GB/min,", 0.46),
        ("Completed: 100.00%, Rate:   2.91GB/min,", 1.0),
        ("Completed:  10.00%,   1.00GB/min,\rCompleted:  12.50%,   1.00GB/min,", 0.125),
        ("Elapsed: 00:00:01, Remaining: 00:00:00, Completed: 100.00%\n", None),
        ("current block:     141313, total block:     307200, Complete:  46.00%", None),
        ("Reading Super Block", None),
        ("", None),
    ],
)
def test_only_the_copy_s_percents_are_progress(words: str, fraction: float | None) -> None:
    assert ENGINE.fraction(words) == fraction


def test_the_commands_run_without_checksum_log_or_terminal() -> None:
    assert ENGINE.save(SOURCE) == (
        "partclone.ext4", "-c", "-a0", "-B", "-f", "1", "-s", DEVICE, "-o", "-", "-L", "/dev/null",
    )  # fmt: skip
    assert ENGINE.restore(DEVICE, "ext4") == (
        "partclone.restore", "-B", "-f", "1", "-s", "-", "-O", DEVICE, "-L", "/dev/null",
    )  # fmt: skip


def test_it_knows_what_debian_s_build_has_a_program_for() -> None:
    assert {"ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "ntfs", "exfat", "f2fs"} <= set(PROGRAMS)
    assert not any(ENGINE.knows(fs) for fs in ("reiserfs", "jfs", "swap", "crypto_LUKS", ""))


def test_only_ntfs_has_a_tail_outside_the_stream() -> None:
    assert [fs for fs in PROGRAMS if ENGINE.tail(fs)] == ["ntfs"]
