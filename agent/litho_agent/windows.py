"""Stretches of a partition as devices of their own: loop devices, for as long as a job lasts.

A logical volume that lies in one piece on its physical volume is such a stretch. Through a loop device over it the engines, the
checkers and mount see a disk like any other, and neither device-mapper nor LVM's tools are needed on the node.

Each device is detached as soon as it is open here ("lazy"): the kernel keeps it until the last one closes it, so it goes away
with this process, however that ends. Direct I/O goes past the second page cache where the device below allows it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from litho import process
from litho.errors import DiskError, EngineError


class Windows:
    """Loop devices over stretches of devices. Use as a context manager: leaving it lets go of all."""

    def __init__(self, *, sector_size: int, write: bool) -> None:
        self._sector_size = sector_size
        self._write = write
        self._open: dict[tuple[Path, int, int], Path] = {}
        self._fds = contextlib.ExitStack()

    def over(self, device: Path, start: int, size: int) -> Path:
        """The device over the `size` bytes from byte `start` of `device`; the same one for the same stretch.

        Raises DiskError (`no-window`), EngineError (MissingProgramError).
        """
        key = (device, start, size)
        if key not in self._open:
            self._open[key] = self._attach(device, start, size)
        return self._open[key]

    def _attach(self, device: Path, start: int, size: int) -> Path:
        words = [
            "losetup",
            "--find",
            "--show",
            f"--offset={start}",
            f"--sizelimit={size}",
            f"--sector-size={self._sector_size}",
            *([] if self._write else ["--read-only"]),
        ]
        doing = f"opening {size} bytes at byte {start} of {device}"
        try:
            done = process.run([*words, "--direct-io=on", device], timeout_s=60, doing=doing)
        except EngineError as exc:
            if exc.code == "missing-program":
                raise
            done = process.run([*words, device], timeout_s=60, doing=doing)
        loop = Path(done.out.strip())
        try:
            fd = os.open(loop, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise DiskError(f"{loop} cannot be opened: {exc.strerror}", code="no-window") from exc
        finally:
            process.run(["losetup", "--detach", loop], ok=range(256), timeout_s=60)
        self._fds.callback(os.close, fd)
        found = os.lseek(fd, 0, os.SEEK_END)
        if found != size:
            raise DiskError(
                f"{device} is too short: of the {size} bytes at byte {start} there are {found}", code="no-window"
            )
        return loop

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fds.close()
        self._open.clear()
