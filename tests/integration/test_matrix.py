"""Table kind x file systems x sector size x target, through the real capture and the real restore of a disk.

Of a restored disk all is proven: the table as it should be, boot code and gap, every used byte, each file system clean by its own
checker. Of a refused one: not a byte was written. A few cases stand for all in `make test`; `make matrix` does all of them and
writes docs/reference/matrix.md.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

import blake3
import pytest

from litho.errors import RefusedError
from litho.job import Job
from litho.library import Library, Owner
from litho_agent.capture import capture
from litho_agent.mover import WorkOrder
from litho_agent.restore import restore
from litho_agent.telling import Recorder
from support import matrix, matrix_report
from support.loop import needs_root
from support.matrix import MIB, REFUSED, Case, Source
from support.matrix_disks import Made, blank, made
from support.matrix_proof import proven

pytestmark = [needs_root, pytest.mark.root]
FULL = os.environ.get("LITHO_MATRIX") == "full"
CASES = matrix.cases(full=FULL)


class Bench:
    """Keeps the disk that was made and captured last: the cases of one disk follow each other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: tuple[Source, str] | None = None
        self._stack = None
        self.made: Made
        self.library: Library

    def take(self, source: Source, engine: str) -> None:
        if (source, engine) == self._kept:
            return
        self.close()
        self._stack = contextlib.ExitStack()
        room = self._folder / f"disk-{time.monotonic_ns()}"
        self._stack.callback(shutil.rmtree, room)
        self.made = self._stack.enter_context(made(source, room))
        self.library = Library.create(room / "library")
        before = digest(self.made.disk)
        capture(self.order("capture", self.made.disk, engine=engine), Recorder())
        assert digest(self.made.disk) == before, "a capture only reads"
        self._kept = (source, engine)

    def order(self, action: str, disk: Path, **job: object) -> WorkOrder:
        return WorkOrder(
            job=Job(action=action, image="golden", disk=str(disk), parallel=4, **job),  # type: ignore[arg-type]
            library=str(self.library.root),
            owner=Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid()),
            node="n01",
        )

    def close(self) -> None:
        if self._stack is not None:
            self._stack.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    kept = Bench(tmp_path_factory.mktemp("matrix"))
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def report():
    rows = matrix_report.Rows()
    yield rows
    place = os.environ.get("LITHO_MATRIX_REPORT")
    if place and FULL:
        Path(place).write_text(matrix_report.markdown(rows))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_a_disk_comes_back_or_is_refused_with_every_byte_of_the_target_kept(
    bench, report, tmp_path, case: Case
) -> None:
    began = time.monotonic()
    bench.take(case.source, case.engine)
    size, sector = target_size(case, bench.made), case.source.sector
    if case.target == "other sector size":
        sector = 4096 + 512 - sector
    with blank(tmp_path, size, sector) as disk:
        fit = "grow" if case.target == "larger, grow" else "keep"
        order = bench.order("restore", disk, fit=fit)
        if case.target in REFUSED:
            teller = Recorder()
            before = digest(disk)
            with pytest.raises(RefusedError) as caught:
                restore(order, teller)
            assert caught.value.code == REFUSED[case.target]
            assert caught.value.hint
            assert not teller.touched
            assert digest(disk) == before
        else:
            done = restore(order, Recorder())
            assert not any("not checked" in note for note in done.notes), done.notes
            proven(case, bench.made, disk, size, tmp_path)
    report.add(case, time.monotonic() - began)


def target_size(case: Case, made: Made) -> int:
    """Bytes of the disk to restore onto: of those that are to fit, and not to fit, the limits themselves."""
    if case.target == "smaller, fits":
        return made.needs
    if case.target == "smaller, does not fit":
        return made.needs - case.source.sector
    # A btrfs is not resized to less than 256 MiB.
    more = 140 * MIB if case.source.holds[-1] == "btrfs" else 40 * MIB
    return made.size + (more + case.source.sector if case.target.startswith("larger") else 0)


def digest(disk: Path) -> str:
    """A hash of all that lies on a disk."""
    return (
        blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(disk).hexdigest() if disk.is_file() else _read(disk)
    )


def _read(disk: Path) -> str:
    found = blake3.blake3(max_threads=blake3.blake3.AUTO)
    with disk.open("rb", buffering=0) as file:
        while piece := file.read(8 * MIB):
            found.update(piece)
    return found.hexdigest()
