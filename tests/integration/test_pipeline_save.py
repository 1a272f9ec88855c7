"""Saving through the pipeline with real processes: what is stored, and that the first thing that goes wrong is what is told."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from litho.errors import CancelledError, EngineError, LibraryError, MissingProgramError
from litho.process import Argv
from litho_agent import pipeline
from litho_agent.engines import Source
from litho_agent.flow import limit
from support.loop import needs_root, sh
from support.pace import Moment
from support.transfers import StandInEngine, never, save, silent

SOURCE = Source(device=Path("/dev/null"), fs="ext3", size=1)
STREAM = "block = bytes(range(256)) * 4096\nfor n in range(20): os.write(1, block)\n"
PLAIN = bytes(range(256)) * 4096 * 20
GOOD = STREAM + "print('done', file=sys.stderr)"


def children() -> list[str]:
    """The command lines of this process's children that run stand-ins."""
    found = []
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for pid in path.read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"import os, sys, time" in words:
                found.append(words.decode())
    return found


@pytest.mark.parametrize(("compression", "tool"), [("zstd", ["zstd", "-dc"]), ("gzip", ["zcat"]), ("none", ["cat"])])
def test_what_is_saved_is_the_stream_and_every_figure_about_it_is_true(
    compression: str, tool: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "p"
    told: list[tuple[int, int]] = []
    saved, _ = save(
        StandInEngine(save=GOOD), SOURCE, path, compression, tick=lambda stream, stored: told.append((stream, stored))
    )
    assert subprocess.run([*tool, path], capture_output=True, check=True).stdout == PLAIN
    assert (saved.stream_bytes, saved.stream_sha256) == (len(PLAIN), hashlib.sha256(PLAIN).hexdigest())
    stored = path.read_bytes()
    assert (saved.file_bytes, saved.file_sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    assert told == sorted(told)
    assert told[-1] == (saved.stream_bytes, saved.file_bytes)
    assert [stage.name for stage in saved.stages] == ["engine", "hash", "compress", "library write"]
    assert saved.stages[0].bytes == len(PLAIN)


def test_a_stream_of_nothing_is_a_whole_file_too(tmp_path: Path) -> None:
    saved, stored = save(StandInEngine(save="print('done', file=sys.stderr)"), SOURCE, tmp_path / "p", "gzip")
    assert saved.stream_bytes == 0
    assert subprocess.run(["zcat", stored.path], capture_output=True, check=True).stdout == b""


def test_an_engine_that_fails_after_its_last_byte_is_told(tmp_path: Path) -> None:
    bad_end = "\nprint('a bad end', file=sys.stderr)\nsys.exit(3)"
    with pytest.raises(EngineError, match=r"could not save /dev/null: stand-in ended with exit code 3 \(a bad end\)"):
        save(StandInEngine(save=GOOD + bad_end), SOURCE, tmp_path / "p")


def test_an_engine_that_is_killed_in_the_middle_is_told_although_the_file_is_closed_well(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="stand-in was ended by SIGKILL") as caught:
        save(StandInEngine(save=STREAM + "os.kill(os.getpid(), 9)"), SOURCE, tmp_path / "p")
    assert caught.value.code == "engine-crashed"


def test_exit_code_0_without_the_word_of_success_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="the word is missing"):
        save(StandInEngine(save=STREAM), SOURCE, tmp_path / "p")


def test_a_full_library_is_the_reason_and_not_the_engine_that_died_of_it() -> None:
    with pytest.raises(LibraryError, match="is full") as caught:
        save(StandInEngine(save=STREAM * 50), SOURCE, Path("/dev/full"), "none")
    assert caught.value.code == "library-full"
    assert children() == []


@needs_root
@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
def test_a_library_that_fills_up_in_the_middle_is_named(compression: str, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=1m", "none", library)
    try:
        noise = "for n in range(40): os.write(1, os.urandom(1 << 18))\nprint('done', file=sys.stderr)"
        with pytest.raises(LibraryError) as caught:
            save(StandInEngine(save=noise), SOURCE, library / "golden.v1-sda1.part", compression)
    finally:
        sh("umount", library)
    assert caught.value.code == "library-full"
    assert caught.value.message == f"the library {library} is full"


def test_a_file_beyond_the_file_size_limit_is_told(tmp_path: Path) -> None:
    # In a process of its own: the limit holds for all of it. Python ignores SIGXFSZ, so the write fails.
    script = f"""
import resource
from pathlib import Path
from litho.errors import LibraryError
from litho_agent.engines import Source
from support.transfers import StandInEngine, save
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
source = Source(device=Path("/dev/null"), fs="ext3", size=1)
try:
    save(StandInEngine(save={STREAM!r}), source, Path({str(tmp_path / "p")!r}), "none")
except LibraryError as exc:
    print(exc.code, exc.message)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.startswith("library-full a file of the library")


def test_cancelling_a_stalled_engine_takes_less_than_a_second(tmp_path: Path) -> None:
    begun = Moment()
    running: list[str] = []

    def cancelled() -> bool:
        running[:] = children()
        return begun.passed() > 0.5

    with pytest.raises(CancelledError):
        save(StandInEngine(save=STREAM + "time.sleep(60)"), SOURCE, tmp_path / "p", cancelled=cancelled)
    assert begun.took() < 1.5
    assert len(running) == 1
    assert children() == []


def test_cancelling_while_the_library_stands_still_takes_less_than_two_seconds() -> None:
    reader, writer = os.pipe()
    begun = Moment()
    with os.fdopen(writer, "wb", buffering=0) as sink, pytest.raises(CancelledError):
        pipeline.save(
            StandInEngine(save=STREAM),
            SOURCE,
            sink,
            compression="none",
            level=1,
            tick=silent,
            cancelled=lambda: begun.passed() > 0.3,
        )
    assert begun.took() < 2
    assert children() == []
    os.close(reader)


def test_a_stopped_engine_can_be_cancelled(tmp_path: Path) -> None:
    begun = Moment()
    with pytest.raises(CancelledError):
        save(
            StandInEngine(save="os.kill(os.getpid(), 19)"),
            SOURCE,
            tmp_path / "p",
            cancelled=lambda: begun.passed() > 0.3,
        )
    assert begun.took() < 1.3


def test_a_talkative_engine_neither_stalls_nor_fills_the_memory(tmp_path: Path) -> None:
    talk = "for n in range(2000): os.write(2, b'x' * 5000 + b'\\n')\nos.write(2, b'last words\\n')\nsys.exit(9)"
    with pytest.raises(EngineError, match=r"exit code 9 \(last words\)"):
        save(StandInEngine(save=talk), SOURCE, tmp_path / "p")


def test_the_first_words_and_the_last_are_kept(tmp_path: Path) -> None:
    talk = "os.write(2, b'done ')\nfor n in range(2000): os.write(2, b'x' * 5000 + b'\\n')\n"
    saved, _ = save(StandInEngine(save=talk), SOURCE, tmp_path / "p")
    assert saved.stream_bytes == 0


def test_a_slow_library_is_seen_as_the_limit_and_the_engine_s_own_progress_is_told(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    slow = subprocess.Popen(
        [sys.executable, "-c", "import sys, time, os\nwhile os.read(0, 65536): time.sleep(0.002)"], stdin=reader
    )
    os.close(reader)
    seen: list[pipeline.Watch] = []
    with os.fdopen(writer, "wb", buffering=0) as sink:
        saved = pipeline.save(
            StandInEngine(save="print('half', file=sys.stderr)\n" + GOOD),
            SOURCE,
            sink,
            compression="none",
            level=1,
            tick=silent,
            cancelled=never,
            watcher=seen.append,
        )
    assert slow.wait(60) == 0
    slowest = limit(saved.stages)
    assert slowest is not None
    assert slowest.name == "library write"
    assert seen[-1].fraction == 0.5
    assert seen[-1].stages[3].bytes == len(PLAIN)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_a_transfer_takes_the_same_little_memory_however_much_moves(compression: str, tmp_path: Path) -> None:
    noise = "block = os.urandom(1 << 20)\nfor n in range(400): os.write(1, block)\nprint('done', file=sys.stderr)"
    script = f"""
import resource
from pathlib import Path
from litho_agent.engines import Source
from support.transfers import StandInEngine, save
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = Source(device=Path("/dev/null"), fs="ext3", size=1)
save(StandInEngine(save={noise!r}), source, Path({str(tmp_path / "p")!r}), {compression!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert int(done.stdout) < 100 * 1024


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    class Missing(StandInEngine):
        def save(self, source: Source) -> Argv:
            return ("partclone.nothing", source.device)

    with pytest.raises(MissingProgramError, match=r"partclone\.nothing is not installed"):
        save(Missing(), SOURCE, tmp_path / "p")


def test_an_error_of_the_caller_s_own_callback_ends_the_engine(tmp_path: Path) -> None:
    def broken(_stream: int, _stored: int) -> None:
        raise OSError(errno.EPIPE, "the parent is gone")

    with pytest.raises(OSError, match="the parent is gone"):
        save(StandInEngine(save=STREAM + "time.sleep(60)"), SOURCE, tmp_path / "p", tick=broken)
    assert children() == []
