import threading
import time

import pytest

from litho.errors import CancelledError, LibraryError
from litho_agent.lanes import LANE_BYTES, each, lanes


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("asked", "rotational", "cores", "available", "count"),
    [
        (0, True, 8, 0, 1),
        (0, False, 8, 0, 2),
        (0, False, 2, 0, 1),
        (0, False, 8, LANE_BYTES - 1, 1),
        (4, True, 1, 0, 4),
        (8, False, 8, 3 * LANE_BYTES, 3),
        (1, False, 8, 64 * LANE_BYTES, 1),
        (8, True, 8, 1, 1),
    ],
)
def test_disk_and_cores_say_how_many_the_task_may_say_otherwise_and_memory_bounds_both(
    asked, rotational, cores, available, count
):
    assert lanes(asked, rotational=rotational, cores=cores, available=available) == count


def test_one_lane_works_in_the_thread_that_called():
    seen = each([1, 2, 3], lambda n, _: (n, threading.current_thread()), count=1, cancelled=never)
    assert seen == [(n, threading.current_thread()) for n in (1, 2, 3)]


def test_two_lanes_work_at_the_same_time_and_answer_in_order():
    both = threading.Barrier(2, timeout=60)

    def work(item: int, _: object) -> int:
        both.wait()
        return item * 10

    assert each([1, 2, 3, 4], work, count=2, cancelled=never) == [10, 20, 30, 40]


def test_the_first_error_stops_the_others_and_is_the_one_that_counts():
    begun: list[int] = []

    def work(item: int, cancelled) -> int:
        begun.append(item)
        if item == 1:
            time.sleep(0.1)
            raise LibraryError("full")
        until = time.monotonic() + 60
        while not cancelled():
            assert time.monotonic() < until
            time.sleep(0.01)
        raise CancelledError("a consequence")

    with pytest.raises(LibraryError, match="full"):
        each([1, 2, 3, 4], work, count=2, cancelled=never)
    assert sorted(begun) == [1, 2], "what was not begun is not begun any more"


@pytest.mark.parametrize("count", [2, 3])
def test_a_cancel_reaches_every_lane(count):
    asked = threading.Event()

    def work(item: int, cancelled) -> int:
        asked.set()
        until = time.monotonic() + 60
        while not cancelled():
            assert time.monotonic() < until
            time.sleep(0.01)
        raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        each([1, 2, 3, 4], work, count=count, cancelled=asked.is_set)
