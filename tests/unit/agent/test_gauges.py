from litho.progress import StageWork
from litho_agent.flow import StageRate
from litho_agent.gauges import Gauges, total, work_of
from litho_agent.telling import Recorder
from litho_agent.transfer import Watch

SAVE = (
    StageRate("engine", 1000, 8.0),
    StageRate("hash", 1000, 1.0),
    StageRate("compress", 1000, 2.0),
    StageRate("library write", 400, 3.0),
)
RESTORE = (StageRate("library read", 400, 1.0), StageRate("engine", 1000, 6.0), StageRate("sync", 0, 4.0))


def test_what_the_engine_did_not_compute_it_waited_for_the_disk():
    work = work_of(SAVE, 3.0, disk="disk read")
    assert list(work) == ["disk read", "engine", "hash", "compress", "library write"]
    assert work["disk read"] == StageWork(1000, 5.0)
    assert work["engine"] == StageWork(1000, 3.0)


def test_an_engine_that_computes_on_two_cores_leaves_the_disk_no_blame():
    assert work_of(SAVE, 15.0, disk="disk read")["disk read"] == StageWork(1000, 0.0)


def test_on_restore_the_disk_stands_behind_the_engine_and_the_sync_is_its_own():
    work = work_of(RESTORE, 1.0, disk="disk write")
    assert list(work) == ["library read", "engine", "disk write"]
    assert work["disk write"] == StageWork(1000, 9.0)


def test_works_add_up_by_name():
    summed = total([{"a": StageWork(1, 0.5)}, {"a": StageWork(2, 1.0), "b": StageWork(3, 1.0)}])
    assert summed == {"a": StageWork(3, 1.5), "b": StageWork(3, 1.0)}


def test_transfers_at_the_same_time_are_counted_together_and_each_alone():
    teller = Recorder()
    gauges = Gauges(teller, disk="disk read")
    first, second = gauges.transfer(1, 100), gauges.transfer(2, 50)
    first.tick(40, 10)
    second.tick(60, 7)
    # The stream of the second is longer than its data: it has moved all of it, and is not over.
    assert (teller.done, teller.stored) == (90, 17)
    assert teller.parts == {1: (40, 100), 2: (49, 50)}
    second.finish(8)
    first.watch(Watch(SAVE, None, 3.0))
    second.watch(Watch(SAVE, None, 3.0))
    assert teller.parts[2] == (50, 50)
    assert teller.work["compress"] == StageWork(2000, 4.0)
    assert teller.phases == [("partition", 1), ("partition", 2)]
