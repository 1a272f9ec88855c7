from hypothesis import given
from hypothesis import strategies as st

from litho import messages
from litho.messages import DiskFacts, EventReport, Failed, Planned, Started, Stopped, Succeeded
from litho_agent.outbox import Outbox, shortened


def box() -> Outbox:
    return Outbox(node="n01", session="s" * 32, task="t1")


def test_the_first_event_is_number_two_and_no_number_is_left_out():
    outbox = box()
    numbers = [outbox.put(Started(), at=1.0).seq for _ in range(4)]
    assert numbers == [2, 3, 4, 5]


def test_an_event_waits_until_an_acknowledgement_covers_its_number():
    outbox = box()
    for _ in range(3):
        outbox.put(Started(), at=1.0)
    assert outbox.acknowledge(1)
    assert [report.seq for report in outbox.waiting()] == [2, 3, 4]
    assert outbox.acknowledge(3)
    assert [report.seq for report in outbox.waiting()] == [4]
    assert not outbox.empty
    assert outbox.acknowledge(4)
    assert outbox.empty


def test_an_acknowledgement_of_what_was_never_sent_forgets_nothing():
    outbox = box()
    outbox.put(Started(), at=1.0)
    assert not outbox.acknowledge(3)
    assert not outbox.acknowledge(2**40)
    assert [report.seq for report in outbox.waiting()] == [2]


def test_only_what_comes_after_a_number_is_new():
    outbox = box()
    for _ in range(3):
        outbox.put(Started(), at=1.0)
    assert [report.seq for report in outbox.waiting(after=3)] == [4]


def test_numbers_go_on_after_everything_was_dropped():
    outbox = box()
    outbox.put(Started(), at=1.0)
    outbox.drop()
    assert outbox.empty
    assert outbox.put(Started(), at=1.0).seq == 3


@given(st.lists(st.one_of(st.just("put"), st.integers(0, 30)), max_size=60))
def test_whatever_order_acknowledgements_come_in_nothing_unacknowledged_is_lost(steps):
    outbox = box()
    last, covered = 1, 1
    for step in steps:
        if step == "put":
            last = outbox.put(Started(), at=0.0).seq
        else:
            assert outbox.acknowledge(step) is (step <= last)
            covered = max(covered, step if step <= last else 0)
        assert [report.seq for report in outbox.waiting()] == list(range(covered + 1, last + 1))


def test_a_plan_that_is_too_large_for_the_wire_is_shortened_and_says_so():
    disk = DiskFacts(path="/dev/sda", size=1)
    report = box().put(Planned(disk=disk, steps=tuple(["x" * 4000] * 256), total=1), at=1.0)
    sent = messages.decode(messages.encode(report), EventReport)
    assert sent == report
    assert report.body.steps[-1] == "... and 216 more"
    assert len(report.body.steps[0]) == 400


def test_shortening_keeps_what_fits_and_cuts_reasons_and_notes():
    disk = DiskFacts(path="/dev/sda", size=1)
    assert shortened(Started()) == Started()
    assert len(shortened(Failed(code="x", reason="y" * 9000)).reason) == 4096
    assert shortened(Stopped(reason="short")) == Stopped(reason="short")
    done = Succeeded(image="g", version=1, used=1, stored=1, seconds=1.0, disk=disk, notes=("a", "b"))
    assert shortened(done) == done
