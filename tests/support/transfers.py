"""Saves and restores for tests, and stand-ins for engines: small real programs behind the Engine protocol, no imaging in them."""

import sys
from pathlib import Path

import msgspec

from litho.errors import EngineError
from litho.job import Compression
from litho.library.manifest import FileRef
from litho.process import Argv
from litho_agent import pipeline
from litho_agent.engines import Engine, Source, Verdict
from litho_agent.engines.base import fault


def silent(_stream: int, _stored: int) -> None:
    pass


def never() -> bool:
    return False


class StandInEngine:
    """An engine whose programs are lines of Python and say "done" at a good end: for faults that the real ones do not have."""

    name = "stand-in"
    suffix = "stand-in"
    rescues = False

    def __init__(self, *, save: str = "", restore: str = "", word: str = "done") -> None:
        self._save = save
        self._restore = restore
        self._word = word

    def knows(self, fs: str) -> bool:
        return bool(fs)

    def tail(self, fs: str) -> int:
        return 0

    def version(self) -> None:
        return None

    def save(self, source: Source) -> Argv:
        return (sys.executable, "-c", f"import os, sys, time\n{self._save}", source.device)

    def restore(self, device: Path, fs: str) -> Argv:
        return (sys.executable, "-c", f"import os, sys, time\n{self._restore}", device, fs)

    def fraction(self, words: str) -> float | None:
        return 0.5 if "half" in words else None

    def bad(self, words: str) -> tuple[tuple[int, int], ...]:
        return ()

    def judge_save(self, source: Source, verdict: Verdict) -> None:
        self._judge(f"save {source.device}", verdict)

    def judge_restore(self, device: Path, verdict: Verdict) -> None:
        self._judge(f"restore {device}", verdict)

    def _judge(self, doing: str, verdict: Verdict) -> None:
        if verdict.code != 0:
            raise fault(self.name, doing, verdict, ())
        if self._word not in verdict.words:
            raise EngineError("the word is missing")


class Stored(msgspec.Struct, frozen=True):
    """A stream in its file, and what the manifest would say about it."""

    path: Path
    compression: Compression
    file: FileRef
    stream_bytes: int
    stream_sha256: str

    def restore(self, engine: Engine, device: Path, fs: str = "ext3", **options: object) -> pipeline.Restored:
        return pipeline.restore(
            engine,
            self.path,
            device,
            fs,
            compression=self.compression,
            expect_file=self.file,
            expect_stream_bytes=self.stream_bytes,
            expect_stream_sha256=self.stream_sha256,
            **{"tick": silent, "cancelled": never, **options},  # type: ignore[arg-type]  # the options of one test
        )


def save(
    engine: Engine, source: Source, path: Path, compression: Compression = "zstd", **options: object
) -> tuple[pipeline.Saved, Stored]:
    """Save to `path`; what came of it, and what a manifest would say."""
    with path.open("wb", buffering=0) as sink:
        saved = pipeline.save(
            engine,
            source,
            sink,
            compression=compression,
            level=1,
            **{"tick": silent, "cancelled": never, **options},  # type: ignore[arg-type]  # the options of one test
        )
    file = FileRef(file=path.name, bytes=saved.file_bytes, sha256=saved.file_sha256)
    return saved, Stored(path, compression, file, saved.stream_bytes, saved.stream_sha256)
