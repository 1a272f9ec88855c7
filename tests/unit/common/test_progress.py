"""Progress never runs backwards, never passes 100 %, and says 100 % only at the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho import messages
from litho.progress import LEAST_SPAN_S, WINDOW_S, Meter, Progress, StageRate, StageWork, limit

GB = 10**9
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("at"), st.integers(-10, 2000), st.floats(-5, 30)),
        st.tuples(st.just("plan"), st.integers(0, 1500), st.just(0.0)),
        st.tuples(st.just("read"), st.just(0), st.floats(-100, 1000)),
    ),
    max_size=60,
)


@given(total=st.integers(0, 1000), steps=STEPS)
def test_it_never_runs_backwards_and_never_passes_the_total(total: int, steps: list[tuple[str, int, float]]) -> None:
    now = 1000.0
    meter = Meter(total=total, now=now)
    last = meter.read(now=now)
    for kind, number, passed in steps:
        now += passed  # also backwards
        if kind == "at":
            meter.at(number, now=now, stored=number // 2)
        elif kind == "plan":
            meter.plan(total=number, parts=3)
        told = meter.read(now=now)
        assert told.done >= last.done
        assert told.fraction >= last.fraction
        assert told.percent >= last.percent
        assert told.stored >= last.stored
        assert told.elapsed_s >= last.elapsed_s
        assert told.percent < 100
        assert told.rate >= 0
        assert told.eta_s is None or told.eta_s >= 0
        if told.total:
            assert told.done <= told.total
        # What a meter says can always be sent.
        report = messages.ProgressReport(node="n", session="s", task="t", n=1, progress=told, line="x")
        assert messages.decode(messages.encode(report), messages.ProgressReport).progress == told
        last = told
    meter.finish(now=now)
    end = meter.read(now=now)
    assert (end.percent, end.fraction, end.eta_s) == (100, 1.0, 0.0)
    assert end.done >= last.done
    assert end.done == end.total or not end.total


def test_all_bytes_moved_is_not_the_end_because_sync_and_verify_lie_ahead() -> None:
    meter = Meter(total=100, now=0)
    meter.at(100, now=10)
    assert meter.read(now=10).percent == 99
    meter.finish(now=12)
    assert meter.read(now=12).percent == 100


def test_the_rate_is_that_of_the_window_and_not_of_the_whole_run() -> None:
    meter = Meter(total=100 * GB, now=0)
    for second in range(1, 61):
        meter.at(second * GB, now=second)
    assert meter.read(now=60).rate == pytest.approx(GB)
    for second in range(61, 121):
        meter.at(60 * GB + (second - 60) * GB // 10, now=second)
    slow = meter.read(now=120)
    assert slow.rate == pytest.approx(GB / 10)
    assert slow.eta_s == pytest.approx((100 - 66) * 10)


def test_a_stall_shows_within_the_window() -> None:
    meter = Meter(total=10 * GB, now=0)
    for second in range(1, 21):
        meter.at(second * GB // 10, now=second)
    rates = [meter.read(now=20 + second).rate for second in range(1, int(WINDOW_S) + 3)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0
    assert meter.read(now=40).eta_s is None


def test_a_first_burst_into_the_page_cache_is_not_told_as_a_rate() -> None:
    meter = Meter(total=10 * GB, now=0)
    meter.at(GB, now=0.001)
    assert meter.read(now=0.001).rate == 0
    assert meter.read(now=LEAST_SPAN_S + 0.1).rate > 0


def test_a_raised_total_holds_the_fraction_and_a_lowered_one_the_bytes() -> None:
    meter = Meter(total=100, now=0)
    meter.at(50, now=1)
    assert meter.read(now=1).percent == 50
    meter.plan(total=200, parts=1)
    raised = meter.read(now=2)
    assert (raised.percent, raised.done, raised.total) == (50, 50, 200)
    meter.plan(total=30, parts=1)
    lowered = meter.read(now=3)
    assert (lowered.done, lowered.total) == (50, 50)


def test_a_clock_that_runs_backwards_stands_still() -> None:
    meter = Meter(total=100, now=1000)
    meter.at(10, now=1010)
    back = meter.read(now=500)
    assert back.elapsed_s == 10
    assert back.rate == pytest.approx(1)


def test_the_phase_and_partition_are_told_and_the_partition_never_passes_their_number() -> None:
    meter = Meter(now=0)
    meter.plan(total=10, parts=3)
    meter.enter("partition", part=2)
    told = meter.read(now=0)
    assert (told.phase, told.part, told.parts) == ("partition", 2, 3)
    meter.enter("partition", part=9)
    assert meter.read(now=0).part == 3


@pytest.mark.parametrize("hundredths", range(101))
def test_percent_is_the_whole_number_that_a_person_expects(hundredths: int) -> None:
    assert Progress(fraction=hundredths / 100).percent == hundredths


def test_almost_everything_is_not_everything() -> None:
    assert Progress(fraction=1 - 1e-15).percent == 99


def _rates(meter: Meter, *, now: float) -> dict[str, StageRate]:
    return {stage.name: stage for stage in meter.read(now=now).stages}


def test_a_stage_is_rated_by_the_seconds_in_which_it_works():
    meter = Meter(total=1000, now=0.0)
    meter.plan(total=1000, parts=1)
    meter.enter("partition", part=1)
    meter.working({"compress": StageWork(0, 0.0), "library write": StageWork(0, 0.0)}, now=0.0)
    meter.working({"compress": StageWork(400_000_000, 1.0), "library write": StageWork(112_000_000, 2.0)}, now=2.0)
    rates = _rates(meter, now=2.0)
    assert rates["compress"] == StageRate(name="compress", rate=400e6, busy=0.5)
    assert rates["library write"] == StageRate(name="library write", rate=56e6, busy=1.0)
    assert meter.read(now=2.0).limit == "limited by library write 56.0 MB/s"


def test_what_a_stage_did_long_ago_does_not_count():
    meter = Meter(total=1000, now=0.0)
    meter.plan(total=1000, parts=1)
    meter.enter("partition", part=1)
    for second in range(40):
        # Fast for twenty seconds, then ten times as slow.
        work = StageWork(100 * min(second, 20) + 10 * max(0, second - 20), float(second))
        meter.working({"disk read": work}, now=float(second))
    assert 9.9 <= _rates(meter, now=39.0)["disk read"].rate <= 10.1


def test_outside_the_partitions_no_stage_is_to_blame():
    meter = Meter(total=1000, now=0.0)
    meter.plan(total=1000, parts=1)
    meter.enter("partition", part=1)
    meter.working({"compress": StageWork(0, 0.0)}, now=0.0)
    meter.working({"compress": StageWork(10_000_000, 1.0)}, now=1.0)
    meter.enter("verify")
    assert meter.read(now=1.0).limit == ""


@pytest.mark.parametrize(
    ("stages", "text"),
    [
        ((), ""),
        (((" disk read", 50e6, 0.1), ("compress", 400e6, 0.29)), ""),
        ((("disk read", 112e6, 0.9), ("compress", 400e6, 0.3)), "limited by disk read 112 MB/s"),
        ((("disk read", 112e6, 0.4), ("compress", 2.34e6, 1.9)), "limited by compress 2.3 MB/s"),
        ((("engine", 0.0, 1.0),), ""),
    ],
)
def test_the_busiest_stage_is_the_limit(stages, text):
    assert limit(tuple(StageRate(name=name, rate=rate, busy=busy) for name, rate, busy in stages)) == text


def test_partitions_that_move_at_once_are_told_one_by_one_until_they_are_through():
    meter = Meter(total=300, now=0.0)
    meter.plan(total=300, parts=2)
    meter.enter("partition", part=1)
    meter.enter("partition", part=2)
    meter.part(1, 50, 100)
    meter.part(2, 20, 200)
    meter.part(2, 10, 200)
    meter.part(9, 1, 2)
    assert [(one.part, one.done, one.total) for one in meter.read(now=1.0).moving] == [(1, 50, 100), (2, 20, 200)]
    meter.part(1, 100, 100)
    assert [one.part for one in meter.read(now=2.0).moving] == [2]
    meter.enter("verify")
    assert meter.read(now=3.0).moving == ()


def test_reading_the_stored_files_moves_the_figure_before_the_first_byte_and_after_the_last() -> None:
    restore = Meter(now=0)
    restore.plan(total=1000, parts=1, checks=True)
    seen = [restore.read(now=0).percent]
    for done in (300, 600, 1000, 200):
        restore.checked(done, 1000)
        seen.append(restore.read(now=1).percent)
    assert seen == [0, 4, 9, 15, 15]
    restore.at(1000, now=2)
    assert restore.read(now=2).percent == 99

    capture = Meter(now=0)
    capture.plan(total=1000, parts=1, checks=True)
    capture.at(1000, now=1)
    assert capture.read(now=1).percent == 85
    capture.checked(100, 200)
    assert capture.read(now=2).percent == 92
    capture.checked(200, 200)
    assert capture.read(now=3).percent == 99
    capture.finish(now=4)
    assert capture.read(now=4).percent == 100


def test_a_meter_that_was_told_of_no_reading_counts_the_bytes_alone() -> None:
    meter = Meter(total=1000, now=0)
    meter.at(420, now=1)
    meter.checked(1, 1)
    assert meter.read(now=1).percent == 42
