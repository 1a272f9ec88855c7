"""An engine's process while it runs: its pipes, its words, its end.

Standard error (and on restore standard output) is drained by a thread of its own, so that a talkative program never
stands still; of what it says the first and the last part are kept, within a bound. A program that is not needed any
more is killed, not asked: partimage, asked politely, may leave with exit code 0 and half an image."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import IO

from litho import process
from litho.errors import EngineError
from litho.process import Argv
from litho_agent.engines.bad import BadMap
from litho_agent.engines.base import Engine

PIPE_BYTES = 256 * 1024
"""What a pipe holds; Linux gives 64 KiB by default. More than this brought nothing that could be measured."""

KILL_S = 5.0
"""How long a killed program may take to vanish before it is called hanging, in seconds."""

_HEAD = 16 * 1024
_TAIL = 48 * 1024
_CARRY = 400
_DRAIN_S = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Words:
    """What a program says: the first 16 KiB and the last 48 KiB of it."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._lost = 0

    def add(self, data: bytes) -> None:
        """The next bytes."""
        room = _HEAD - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        surplus = len(self._tail) - _TAIL
        if surplus > 0:
            del self._tail[:surplus]
            self._lost += surplus

    def text(self) -> str:
        """All that is kept, decoded leniently, with a mark where something was left out."""
        gap = f"\n[... {self._lost} bytes left out ...]\n".encode() if self._lost else b""
        return (bytes(self._head) + gap + bytes(self._tail)).decode(errors="replace")


class Child:
    """One engine's process. Use as a context manager: leaving it kills what still runs."""

    def __init__(self, engine: Engine, argv: Argv, *, reads: bool, may_lose: int = 0) -> None:
        """Start `argv`; `reads` says that it takes the stream (restore) instead of giving it.

        It is killed once it could not read more than `may_lose` bytes. Raises MissingProgramError.
        """
        self._engine = engine
        self._may_lose = may_lose
        self.bad = BadMap()
        """What it could not read, as far as it has said."""
        self.name = Path(str(argv[0])).name
        self._process = process.start(
            argv, stdin=subprocess.PIPE if reads else None, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.fraction: float | None = None
        self._cpu_s = 0.0
        self._said: list[Words] = []
        self._drains: list[threading.Thread] = []
        self._fd = _taken(self._process.stdin if reads else self._process.stdout)
        """Belongs to the stage that uses it, which closes it."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._drain(_taken(self._process.stderr))
        if reads:
            self._drain(_taken(self._process.stdout))

    def read_into(self, view: memoryview) -> int:
        """Fill `view` from the stream; fewer bytes only at its end, then the stream is closed."""
        filled = 0
        while filled < len(view):
            count = os.readv(self._fd, [view[filled:]])
            if count == 0:
                break
            filled += count
        return filled

    def write(self, view: memoryview) -> None:
        """Give all of `view` to the program. Raises BrokenPipeError when it takes no more."""
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        """End the stream: the stage that uses it is done."""
        os.close(self._fd)

    def ended(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds for the program's end."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def code(self) -> int:
        """How it ended: exit code, or minus the signal's number. Call after `ended` was true."""
        return self._process.wait()

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that it has taken so far, in the kernel too; what it was at last when it has gone."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name in parentheses may hold anything, blanks and parentheses too: count from behind it.
            fields = Path(f"/proc/{self._process.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            self._cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
        return self._cpu_s

    def words(self) -> str:
        """What it said, standard error first. Call after `ended` was true."""
        for drain in self._drains:
            drain.join(_DRAIN_S)
        return "\n".join(text for words in self._said if (text := words.text()))

    @property
    def lost_too_much(self) -> bool:
        """True when it could not read more than may be lost."""
        return 0 < self._may_lose < self.bad.bytes

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises EngineError when the program hangs in the kernel and stays: "cancelled" would not be true then."""
        self.kill()
        if not self.ended(KILL_S):
            raise EngineError(
                f"{self.name} (process {self._process.pid}) hangs in the kernel and cannot be ended: "
                "the disk it works on does not answer",
                hint="restart the node and look at its kernel log",
                code="engine-hangs",
            )

    def _drain(self, fd: int) -> None:
        words = Words()
        self._said.append(words)
        thread = threading.Thread(target=self._listen, args=(fd, words), name=f"words-{self.name}", daemon=True)
        self._drains.append(thread)
        thread.start()

    def _listen(self, fd: int, words: Words) -> None:
        carry = ""
        try:
            while data := os.read(fd, 65536):
                words.add(data)
                # A progress line may come in two pieces, so the end of the last one is looked at again.
                text = carry + data.decode(errors="replace")
                carry = text[-_CARRY:]
                said = self._engine.fraction(text)
                if said is not None:
                    self.fraction = said
                for start, size in self._engine.bad(text):
                    self.bad.add(start, size)
                if self.lost_too_much:
                    self.kill()
        finally:
            os.close(fd)


def _taken(stream: IO[bytes] | None) -> int:
    """The descriptor under `stream`, which the caller closes."""
    if stream is None:
        raise EngineError("a program was started without the pipes that it needs")
    fd = os.dup(stream.fileno())
    stream.close()
    return fd
