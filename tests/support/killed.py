"""Work of the chunk engine in a process of its own, which a test kills in the middle.

Processes are forked off a helper that has everything imported already: a hundred of them cost a second and not a minute.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litho.library import ImageRef, Library
from litho.library.chunks import ChunkStore, gc
from litho_agent.chunk import adapter
from support.chunked import MB, capture


def capture_disk(root: str, device: str) -> None:
    """The disk as a version of golden."""
    capture(Library.open(Path(root)), "golden", Path(device), fs="ext4")


def restore_disk(root: str, device: str) -> tuple[int, int]:
    """Golden onto the disk; bytes that were right already, and that were written."""
    library = Library.open(Path(root))
    done = adapter.restore_part(library, library.manifest(ImageRef("golden")).parts[0], Path(device))
    return done.right, done.written


def collect(root: str) -> None:
    """One run of a collector without patience."""
    gc.collect(ChunkStore(Library.open(Path(root))), grace_s=0, pack_bytes=MB)


WORK: dict[str, Callable[..., Any]] = {"capture": capture_disk, "restore": restore_disk, "collect": collect}


class Helper:
    """A process that forks others."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def do(self, work: str, *words: object, kill_when: Callable[[], bool] | None = None) -> tuple[int, Any]:
        """Do one of `WORK` in a process that gets SIGKILL as soon as `kill_when` says so.

        Answers its exit code, -9 when it was killed in time, and what the work answered.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([work, *map(str, words)]), file=self._process.stdin, flush=True)
        pid = int(self._process.stdout.readline())
        if kill_when is not None:
            # The helper reaps it only when it is told to: until then the number is not another's.
            while _runs(pid) and not kill_when():
                time.sleep(0.0005)
            os.kill(pid, signal.SIGKILL)
        print("", file=self._process.stdin, flush=True)
        code, said = json.loads(self._process.stdout.readline())
        return code, said


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@contextmanager
def helper() -> Iterator[Helper]:
    """Start one; it ends with its input."""
    argv = [sys.executable, "-c", "from support.killed import serve; serve()"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield Helper(process)


def serve() -> None:
    """In the helper: for each line fork a child, say its number, and at the next line how it ended and what it answered."""
    for line in sys.stdin:
        work, *words = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.write(write, json.dumps(WORK[work](*words)).encode())
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(write)
        print(pid, flush=True)  # noqa: T201 - the answer
        sys.stdin.readline()
        said = os.read(read, 4096)
        os.close(read)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([code, json.loads(said) if code == 0 else None]), flush=True)  # noqa: T201 - the answer
