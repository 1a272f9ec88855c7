"""The clock that tests measure promises with."""

import time

from support import pace
from support.pace import Moment, some

PRESSURE = (
    "some avg10=53.89 avg60=20.91 avg300=7.51 total=6288707507\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n"
)


def test_the_time_in_which_some_task_waited_is_read_in_seconds() -> None:
    assert some(PRESSURE) == 6288.707507


def test_what_the_machine_kept_waiting_is_not_counted(monkeypatch) -> None:
    stood = [100.0, 103.5]
    monkeypatch.setattr(pace, "stood_still", lambda: stood.pop(0))
    moment = Moment()
    moment._clock -= 5.0
    assert 1.5 <= moment.took() < 2.5
    assert moment.passed() >= 5.0


def test_on_a_machine_that_had_time_the_clock_counts(monkeypatch) -> None:
    monkeypatch.setattr(pace, "stood_still", lambda: 100.0)
    moment = Moment()
    time.sleep(0.05)
    assert 0.05 <= moment.took() <= moment.passed()


def test_where_nobody_counts_the_waiting_some_of_it_is_forgiven(monkeypatch) -> None:
    monkeypatch.setattr(pace, "stood_still", lambda: None)
    moment = Moment()
    moment._clock -= 60.0
    assert 60.0 - pace.UNKNOWN_S <= moment.took() < 60.0
