"""Restoring through the pipeline with real processes onto a loop device: nothing but the right stream is called a success."""

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard

from litho.errors import CancelledError, DiskError, EngineError, IntegrityError, LibraryError
from litho.job import Compression
from litho.library.manifest import FileRef
from support.filesystems import MIB
from support.loop import loop_disk, needs_root
from support.pace import Moment
from support.transfers import StandInEngine, Stored

pytestmark = needs_root

PLAIN = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(250_000))
SWALLOW = """
with open(sys.argv[1], "r+b") as device:
    while block := sys.stdin.buffer.read(1 << 20): device.write(block)
print("done", file=sys.stderr)
"""
GOOD = StandInEngine(restore=SWALLOW)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    with loop_disk(tmp_path / "target.img", size=16 * MIB) as disk:
        yield disk


def packed(compression: Compression, plain: bytes = PLAIN) -> bytes:
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(plain)
    return gzip.compress(plain, 1) if compression == "gzip" else plain


def stored(path: Path, data: bytes, compression: Compression = "zstd", plain: bytes = PLAIN) -> Stored:
    """`data` in a file, and what a manifest says about it."""
    path.write_bytes(data)
    file = FileRef(file=path.name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    return Stored(path, compression, file, len(plain), hashlib.sha256(plain).hexdigest())


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_the_stream_reaches_the_device_and_every_figure_is_true(
    compression: Compression, device: Path, tmp_path: Path
) -> None:
    image = stored(tmp_path / "p", packed(compression), compression)
    told: list[tuple[int, int]] = []
    restored = image.restore(GOOD, device, tick=lambda stream, read: told.append((stream, read)))
    assert device.read_bytes()[: len(PLAIN)] == PLAIN
    assert (restored.stream_bytes, restored.file_bytes) == (len(PLAIN), image.file.bytes)
    assert told == sorted(told)
    assert [stage.name for stage in restored.stages] == ["library read", "unpack", "hash", "engine", "sync"]


def test_a_file_of_another_length_is_refused_before_the_engine_starts(device: Path, tmp_path: Path) -> None:
    data = packed("zstd")
    image = stored(tmp_path / "p", data)
    for wrong in (data[:-1], data + b"x"):
        image.path.write_bytes(wrong)
        with pytest.raises(IntegrityError, match=f"has {len(wrong)} bytes instead of {len(data)}"):
            image.restore(GOOD, device)
    assert device.read_bytes() == bytes(16 * MIB)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("place", [0.02, 0.5, 0.9999])
def test_a_flipped_bit_never_ends_as_success(
    compression: Compression, place: float, device: Path, tmp_path: Path
) -> None:
    image = stored(tmp_path / "p", packed(compression), compression)
    data = bytearray(image.path.read_bytes())
    data[int(len(data) * place)] ^= 0x10
    image.path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"the file p (is damaged|cannot be unpacked)"):
        image.restore(GOOD, device)


def test_a_stream_that_is_not_the_manifest_s_is_told_before_the_engine_can_end_well(
    device: Path, tmp_path: Path
) -> None:
    image = msgspec.structs.replace(stored(tmp_path / "p", packed("zstd")), stream_sha256="0" * 64)
    mark = tmp_path / "ended"
    engine = StandInEngine(restore=SWALLOW + f"\nopen({str(mark)!r}, 'w')")
    with pytest.raises(IntegrityError, match="the stream in p is not what the manifest says"):
        image.restore(engine, device)
    assert not mark.exists()


def test_a_stream_that_ends_early_with_a_clean_end_is_told(device: Path, tmp_path: Path) -> None:
    image = msgspec.structs.replace(stored(tmp_path / "p", packed("zstd")), stream_bytes=len(PLAIN) + 1)
    with pytest.raises(IntegrityError, match="the stream in p is not what the manifest says"):
        image.restore(GOOD, device)


def test_bytes_after_the_stream_s_end_are_told(device: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "p", packed("zstd") + packed("zstd", b"more"))
    with pytest.raises(IntegrityError, match=f"goes on after its end at {len(PLAIN)} bytes"):
        image.restore(GOOD, device)


def test_a_bomb_is_stopped_at_the_stream_s_length_in_little_memory(device: Path, tmp_path: Path) -> None:
    bomb = zstandard.ZstdCompressor(level=19, write_content_size=False).compressobj()
    data = b"".join(bomb.compress(bytes(MIB)) for _ in range(2048)) + bomb.flush()
    image = stored(tmp_path / "p", data, plain=PLAIN[:1000])
    script = f"""
import resource
from pathlib import Path
from litho.errors import IntegrityError
from litho.library.manifest import FileRef
from support.transfers import StandInEngine, Stored
image = Stored(Path({str(image.path)!r}), "zstd", {image.file!r}, 1000, {image.stream_sha256!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    image.restore(StandInEngine(restore={SWALLOW!r}), Path({str(device)!r}))
except IntegrityError as exc:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, exc.message)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    grown, _, sentence = done.stdout.partition(" ")
    assert "goes on after its end at 1000 bytes" in sentence
    assert int(grown) < 50 * 1024


def test_an_engine_that_gives_up_is_told_with_its_own_words(device: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "p", packed("zstd"))
    engine = StandInEngine(restore="sys.stdin.buffer.read(1000)\nprint('no room', file=sys.stderr)\nsys.exit(4)")
    with pytest.raises(EngineError, match=r"could not restore .*: stand-in ended with exit code 4 \(no room\)"):
        image.restore(engine, device)


def test_an_engine_that_says_done_before_it_took_all_is_not_believed(device: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "p", packed("zstd"))
    engine = StandInEngine(restore="sys.stdin.buffer.read(1000)\nprint('done', file=sys.stderr)")
    with pytest.raises(EngineError, match=f"took only .* of {len(PLAIN)} bytes") as caught:
        image.restore(engine, device)
    assert caught.value.code == "engine-unproven"


def test_a_crash_in_the_middle_is_told(device: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "p", packed("zstd"))
    with pytest.raises(EngineError, match="stand-in was ended by SIGSEGV"):
        image.restore(StandInEngine(restore="sys.stdin.buffer.read(1000)\nos.kill(os.getpid(), 11)"), device)


def test_an_engine_that_chokes_on_a_damaged_file_is_not_blamed(device: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "p", PLAIN, "none")
    data = bytearray(PLAIN)
    data[500] ^= 1
    image.path.write_bytes(data)
    engine = StandInEngine(restore="sys.stdin.buffer.read(1000)\nprint('CRC error', file=sys.stderr)\nsys.exit(8)")
    with pytest.raises(IntegrityError, match="the file p is damaged"):
        image.restore(engine, device)


def test_the_words_on_standard_output_count_too(device: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "p", packed("zstd"))
    engine = StandInEngine(restore=SWALLOW.replace("file=sys.stderr", "flush=True") + "\nprint('half')")
    seen: list[float | None] = []
    image.restore(engine, device, watcher=lambda watch: seen.append(watch.fraction))
    assert seen[-1] == 0.5


def test_cancelling_an_engine_that_stopped_reading_takes_less_than_a_second(device: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "p", packed("zstd"))
    begun = Moment()
    with pytest.raises(CancelledError):
        image.restore(StandInEngine(restore="time.sleep(60)"), device, cancelled=lambda: begun.passed() > 0.5)
    assert begun.took() < 1.5


def test_cancelling_an_engine_that_took_all_and_does_not_end_takes_less_than_a_second(
    device: Path, tmp_path: Path
) -> None:
    image = stored(tmp_path / "p", packed("zstd"))
    begun = Moment()
    with pytest.raises(CancelledError):
        image.restore(StandInEngine(restore=SWALLOW + "time.sleep(60)"), device, cancelled=lambda: begun.passed() > 1.5)
    assert begun.took() < 2.5


def test_a_device_that_is_missing_or_none_is_never_made(tmp_path: Path) -> None:
    image = stored(tmp_path / "p", packed("zstd"))
    absent = tmp_path / "sdz1"
    with pytest.raises(DiskError, match="No such file") as caught:
        image.restore(GOOD, absent)
    assert caught.value.code == "disk-missing"
    assert not absent.exists()
    plain = tmp_path / "file"
    plain.write_bytes(b"kept")
    with pytest.raises(DiskError, match="not a block device"):
        image.restore(GOOD, plain)
    assert plain.read_bytes() == b"kept"


def test_a_file_that_is_missing_is_told(device: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "p", packed("zstd"))
    image.path.unlink()
    with pytest.raises(LibraryError) as caught:
        image.restore(GOOD, device)
    assert caught.value.code == "library-missing"


def test_a_kill_that_comes_too_late_still_counts_every_byte(device: Path, tmp_path: Path) -> None:
    # The engine takes all, says its word, and is killed before it can end: not a success.
    image = stored(tmp_path / "p", packed("zstd"))
    with pytest.raises(EngineError, match="SIGKILL"):
        image.restore(StandInEngine(restore=SWALLOW + "\nsys.stderr.flush()\nos.kill(os.getpid(), 9)"), device)
