"""Each engine that moves a stream, cancelled at its first byte, on its way and at its last, saving and restoring: two seconds.

The chunk engine moves no stream; `test_main_job_cancel` cancels it (and the default engine) in every phase of the whole job.
"""

import os
from pathlib import Path

import pytest

from litho.errors import CancelledError
from litho_agent.engines import Source, named
from litho_agent.engines.base import Engine
from support import filesystems
from support.filesystems import MIB
from support.loop import loop_disk, needs_root
from support.pace import Moment
from support.partimage_ng import StandInPartimageNg
from support.site import below
from support.transfers import save

pytestmark = [needs_root, pytest.mark.root]

SIZE = 48 * MIB
WITHIN_S = 2.0
POINTS = {"at once": 0.0, "at the first bytes": 1e-9, "on the way": 0.5, "at the last byte": 1.0}
ENGINES = ["partclone", "partimage", "raw", "partimage-ng"]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ext3")
    with loop_disk(folder / "ext3.img", size=SIZE) as made:
        filesystems.make("ext3", made)
        filesystems.fill("ext3", made, folder)
        yield made


def engine_of(name: str) -> Engine:
    return StandInPartimageNg() if name == "partimage-ng" else named(name)


class Canceller:
    """Cancels when a share of `total` bytes has moved, and remembers when it did."""

    def __init__(self, total: int, point: float) -> None:
        self._wanted = total * point
        self.since: Moment | None = None

    def tick(self, stream: int, _stored: int) -> None:
        if self.since is None and stream >= self._wanted:
            self.since = Moment()

    def cancelled(self) -> bool:
        return self.since is not None

    def took(self) -> float:
        assert self.since is not None
        return self.since.took()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_ends_within_two_seconds_of_a_cancel_wherever_it_is(
    name: str, point: str, disk: Path, tmp_path: Path
) -> None:
    engine = engine_of(name)
    source = Source(device=disk, fs="ext3", size=SIZE)
    saved, stored = save(engine, source, tmp_path / "whole", "none")

    saving = Canceller(saved.stream_bytes, POINTS[point])
    with pytest.raises(CancelledError):
        save(engine, source, tmp_path / "cut", "zstd", tick=saving.tick, cancelled=saving.cancelled)
    assert saving.took() < WITHIN_S

    with loop_disk(tmp_path / "target.img", size=SIZE) as target:
        restoring = Canceller(saved.stream_bytes, POINTS[point])
        with pytest.raises(CancelledError):
            stored.restore(engine, target, tick=restoring.tick, cancelled=restoring.cancelled)
        assert restoring.took() < WITHIN_S
    program = "stand-in" if name == "partimage-ng" else {"raw": "dd"}.get(name, name)
    assert below(os.getpid(), program) == 0, "no engine outlives its cancel"
