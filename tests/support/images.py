"""Small images in a real library, and a way to stop a process or a thread at any of its file operations."""

import contextlib
import gc
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from litho.library import Library, Manifest, Owner, Stage
from litho.library.care import sweep
from litho.library.manifest import FileRef, Part
from litho.messages import DiskFacts

OPERATIONS = ("open", "fdopen", "fsync", "link", "rename", "unlink", "truncate")
"""The functions of `os` through which the library changes a directory (pathlib calls them too)."""


_HANGS_S = 300
"""A child that takes longer than this is ended by its alarm, and told."""


def owner(session: str = "session-1") -> Owner:
    return Owner(session=session, node="n01", task="t1", host="here", pid=os.getpid())


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest_of(stage: Stage, table: bytes, stream: bytes, packed: bytes) -> Manifest:
    """A manifest for one partition and a table."""
    return Manifest(
        image=stage.name,
        version=stage.version,
        created="2026-11-22T16:00:00Z",
        software="lithograph 0.1.0",
        node="n01",
        disk=DiskFacts(path="/dev/sda", size=1 << 30, serial="S1"),
        disk_name="sda",
        table="dos",
        table_dump=FileRef(file=stage.file_name("sda.sfdisk"), bytes=len(table), sha256=sha(table)),
        parts=(
            Part(
                number=1,
                kind="stream",
                start=1 << 20,
                size=1 << 29,
                fs="ext4",
                engine="partclone",
                compression="zstd",
                data=FileRef(file=stage.file_name("sda1.partclone.zst"), bytes=len(packed), sha256=sha(packed)),
                used=len(stream),
                stream_bytes=len(stream),
                stream_sha256=sha(stream),
            ),
            Part(number=5, kind="swap", start=1 << 29, size=1 << 20, fs="swap", uuid="1-2", label="swap"),
        ),
    )


def fill(stage: Stage, stream: bytes = b"used blocks " * 500) -> Manifest:
    """Write a stage's files and return the manifest that fits them."""
    table = b"label: dos\n"
    packed = zstandard.ZstdCompressor(level=1).compress(stream)
    for suffix, data in (("sda.sfdisk", table), ("sda1.partclone.zst", packed)):
        with stage.create(suffix) as file:
            file.write(data)
    return manifest_of(stage, table, stream, packed)


def publish(library: Library, name: str = "golden", stream: bytes = b"used blocks " * 500) -> int:
    """Make one more version; its number."""
    with Stage.open(library, name, owner()) as stage:
        stage.publish(fill(stage, stream))
    return stage.version


def sweep_all(library: Library) -> list[str]:
    """Sweep as if everybody were dead and every stray old."""
    return [str(ref) for ref in sweep(library, dead=lambda _: True, stray_age_s=0)]


def files_of(library: Library) -> set[str]:
    return {path.name for path in library.root.iterdir()}


def files_expected(*versions: tuple[str, int]) -> set[str]:
    """What lies in a clean library that holds these versions."""
    expected = {".lithograph"}
    for name, version in versions:
        expected |= {f"{name}.json", f"{name}.v{version}.json"}
        expected |= {f"{name}.v{version}-sda.sfdisk", f"{name}.v{version}-sda1.partclone.zst"}
    return expected


@contextlib.contextmanager
def watched(before: Callable[[], None]) -> Iterator[None]:
    """Call `before` ahead of each operation of `OPERATIONS`."""
    real = {name: getattr(os, name) for name in OPERATIONS}

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            before()
            return function(*args, **named)

        return call

    for name, function in real.items():
        setattr(os, name, wrap(function))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def dies_at(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that dies just before its operation number `step`; false when it came to its end instead."""
    # Of the threads the child has only the one that forks. Garbage of earlier tests that waits for its threads when it is
    # collected, such as a compressor with several, would wait for ever in the child: nothing that is older is its to collect.
    gc.freeze()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(_HANGS_S)
            left = [step]

            def count() -> None:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(99)

            with watched(count):
                work()
            code = 0
        finally:
            os._exit(code)
    gc.unfreeze()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 99), f"the child ended with {code} instead of dying at step {step}"
    return code == 99


class Turns:
    """Two threads of which one runs at a time: `first` operations of the first, `second` of the second, then each to its end."""

    def __init__(self, first: int, second: int) -> None:
        self._left = [first, second]
        self._turn = 0
        self._ended = [False, False]
        self._condition = threading.Condition()
        self._mine = threading.local()

    def _pass_on(self, me: int) -> None:
        if not self._ended[1 - me]:
            self._turn = 1 - me

    def step(self) -> None:
        me = getattr(self._mine, "number", None)
        if me is None:
            return
        with self._condition:
            if self._left[me] == 0:
                self._pass_on(me)
                self._condition.notify_all()
            self._left[me] -= 1
            assert self._condition.wait_for(lambda: self._turn == me, timeout=60)

    def run(self, *works: Callable[[], object]) -> list[BaseException | None]:
        """Run both; what each raised."""
        raised: list[BaseException | None] = [None, None]

        def body(number: int) -> None:
            self._mine.number = number
            with self._condition:
                self._condition.wait_for(lambda: self._turn == number, timeout=60)
            try:
                works[number]()
            except BaseException as exc:
                raised[number] = exc
            with self._condition:
                self._ended[number] = True
                self._pass_on(number)
                self._condition.notify_all()

        threads = [threading.Thread(target=body, args=(number,)) for number in (0, 1)]
        with watched(self.step):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(300)
        assert self._ended == [True, True]
        return raised


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([old ^ (1 << bit)]))
