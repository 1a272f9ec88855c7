"""A disk with bad sectors: one file in a FUSE file system that answers EIO for some bytes, to be put behind a loop device.

    /usr/bin/python3 bad_disk.py FOLDER IMAGE START:SIZE...      serves FOLDER/disk until FOLDER is unmounted

Run with the system's Python, which has Debian's python3-fusepy; tests call `bad_file`.
"""

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def bad_file(image: Path, folder: Path, bad: Iterable[tuple[int, int]]) -> Iterator[Path]:
    """A file with the bytes of `image` of which those in `bad`, (start, size), cannot be read. Mounted on the empty `folder`."""
    folder.mkdir()
    words = [f"{start}:{size}" for start, size in bad]
    server = subprocess.Popen(["/usr/bin/python3", __file__, folder, image, *words], stderr=subprocess.PIPE, text=True)
    disk = folder / "disk"
    try:
        deadline = time.monotonic() + 60
        while not disk.exists():
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            assert time.monotonic() < deadline, "the FUSE file system did not come up"
            time.sleep(0.02)
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stderr:
            server.stderr.close()


def _serve(folder: str, image: str, bad: list[tuple[int, int]]) -> None:
    from fusepy import FUSE, FuseOSError, Operations  # of the system's Python only

    class Disk(Operations):
        def __init__(self) -> None:
            self._fd = os.open(image, os.O_RDWR)

        def getattr(self, path, fh=None):
            if path == "/":
                return {"st_mode": 0o40755, "st_nlink": 2}
            if path == "/disk":
                return {"st_mode": 0o100600, "st_nlink": 1, "st_size": os.fstat(self._fd).st_size}
            raise FuseOSError(errno.ENOENT)

        def read(self, path, size, offset, fh):
            if any(start < offset + size and offset < start + count for start, count in bad):
                raise FuseOSError(errno.EIO)
            return os.pread(self._fd, size, offset)

        def write(self, path, data, offset, fh):
            return os.pwrite(self._fd, data, offset)

    FUSE(Disk(), folder, foreground=True, nothreads=True, direct_io=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], [tuple(map(int, word.split(":"))) for word in sys.argv[3:]])
