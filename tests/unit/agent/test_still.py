"""What shows that a worker still does something."""

import os

import msgspec
import pytest

from litho.progress import PartProgress, Progress, StageRate
from litho_agent import still
from litho_agent.keeper import Patience
from litho_agent.mount import PATIENCE_S
from litho_agent.still import Deeds, Stillness, figures, moved

TOLD = Progress(
    phase="partition", part=1, parts=3, done=100, total=1000, fraction=0.1, rate=5.0, elapsed_s=20.0, stored=50
)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "verify"},
        {"part": 2},
        {"done": 101},
        {"stored": 51},
        {"fraction": 0.11},
        {"moving": (PartProgress(part=2, done=1, total=9),)},
    ],
)
def test_a_figure_that_changes_is_movement(change):
    assert figures(msgspec.structs.replace(TOLD, **change)) != figures(TOLD)


@pytest.mark.parametrize(
    "change",
    [{"elapsed_s": 21.0}, {"rate": 0.0}, {"eta_s": 99.0}, {"stages": (StageRate(name="engine", rate=1.0, busy=1.0),)}],
)
def test_what_changes_by_itself_is_none(change):
    assert figures(msgspec.structs.replace(TOLD, **change)) == figures(TOLD)


def test_bytes_at_the_disk_and_programs_that_come_and_go_are_movement():
    before = Deeds(frozenset({(7, 100), (8, 0)}), 3.0)
    assert moved(before, Deeds(frozenset({(7, 101), (8, 0)}), 3.0))
    assert moved(before, Deeds(frozenset({(7, 100)}), 3.0))
    assert moved(before, Deeds(frozenset({(7, 100), (8, 0), (9, 0)}), 3.0))
    assert not moved(before, before)


def test_a_clock_that_ticks_in_an_engine_is_no_movement_and_a_second_of_computing_is():
    before = Deeds(frozenset({(7, 100)}), 3.0)
    assert not moved(before, Deeds(before.disk, 3.9))
    assert moved(before, Deeds(before.disk, 4.0))


def test_the_seconds_of_stillness_count_from_the_last_movement(monkeypatch):
    clock, deeds = [100.0], [Deeds(frozenset({(7, 1)}))]
    monkeypatch.setattr(still.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(still, "read", lambda _pid: deeds[0])
    watch = Stillness(7)
    watch.told(TOLD)
    assert watch.look() == 0.0
    clock[0] = 160.0
    watch.told(msgspec.structs.replace(TOLD, elapsed_s=80.0))
    assert watch.look() == 60.0
    deeds[0] = Deeds(frozenset({(7, 2)}))
    assert watch.look() == 0.0
    clock[0] = 170.0
    assert watch.look() == 10.0
    watch.told(msgspec.structs.replace(TOLD, done=101))
    assert watch.look() == 0.0
    assert watch.phase == "partition"


def test_a_process_that_is_gone_has_done_nothing_and_this_one_stands_with_its_number():
    assert still.read(2**22 + 1) == Deeds()
    assert {pid for pid, _ in still.read(os.getpid()).disk} >= {os.getpid()}


def test_the_time_is_far_longer_than_what_the_nfs_client_waits():
    assert Patience().still_s >= 4 * PATIENCE_S
