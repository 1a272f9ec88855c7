"""Stages, channels, and which error counts."""

import threading
import time

import pytest

from litho_agent.flow import Channel, Flow, Stage, StageRate, Stopped, limit
from support.pace import Moment


def test_items_pass_in_order_and_a_channel_holds_no_more_than_its_size() -> None:
    with Flow() as flow:
        channel: Channel[int] = flow.channel(2)
        sent: list[int] = []
        got: list[int] = []

        def produce(_: Stage) -> None:
            for number in range(50):
                channel.put(number)
                sent.append(number)

        def consume(_: Stage) -> None:
            for _number in range(50):
                item = channel.get()
                assert len(sent) - len(got) <= 2 + 1
                got.append(item)

        flow.spawn("produce", produce)
        flow.spawn("consume", consume)
        assert flow.idle(60)
        assert flow.error is None
        assert got == list(range(50))


def test_the_first_error_counts_and_everybody_else_leaves() -> None:
    with Flow() as flow:
        channel: Channel[int] = flow.channel(1)

        def wait(_: Stage) -> None:
            channel.get()

        def fill(_: Stage) -> None:
            while True:
                channel.put(1)

        def fail(_: Stage) -> None:
            raise ValueError("root cause")

        def consequence(_: Stage) -> None:
            while not flow.stopping:
                time.sleep(0.01)
            raise BrokenPipeError("consequence")

        for work in (fill, wait, consequence, fail):
            flow.spawn(work.__name__, work)
        while flow.error is None:
            assert flow.idle(60)
        assert flow.close()
        assert isinstance(flow.error, ValueError)


def test_an_error_after_a_quiet_stop_is_dropped() -> None:
    with Flow() as flow:
        flow.stop()
        flow.fail(BrokenPipeError("too late"))
        assert flow.error is None


def test_a_stage_that_hangs_is_left_behind_in_time() -> None:
    release = threading.Event()
    flow = Flow()
    flow.spawn("hang", lambda _: release.wait(60) and None)
    begun = Moment()
    assert not flow.close()
    assert begun.took() < 2
    release.set()


def test_a_channel_of_a_stopped_flow_takes_and_gives_nothing() -> None:
    flow = Flow()
    channel: Channel[int] = flow.channel(1)
    channel.put(1)
    flow.stop()
    for work in (lambda: channel.put(2), channel.get):
        with pytest.raises(Stopped):
            work()


def test_the_busiest_stage_is_the_limit() -> None:
    rates = (StageRate("engine", 100, 1.0), StageRate("library write", 40, 3.5), StageRate("hash", 100, 0.1))
    found = limit(rates)
    assert found is not None
    assert (found.name, found.rate) == ("library write", 40 / 3.5)
    assert limit((StageRate("engine", 0, 0.0),)) is None
    assert StageRate("engine", 0, 0.0).rate == 0.0
