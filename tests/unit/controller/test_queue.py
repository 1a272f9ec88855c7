"""Who gets a slot, when windows are open, how waves go on: the rules, by example and by property."""

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import ConfigError, UsageError
from litho.task import State
from litho_controller.tasks import queue, waves
from litho_controller.tasks.queue import Rules, Waiting, choose
from litho_controller.tasks.waves import DONE, RUNNING, STOPPED, Member, Verdict, judge
from support.pace import Moment


def waits(number, *groups, **more):
    return Waiting(number=number, node=f"n{number}", groups=groups, **more)


def chosen(queued, *, holding=(), now=0.0, steps=None, slots=4, **rules):
    return choose(queued, holding, Rules(slots=slots, **rules), now=now, steps=steps or {})


# ---------------------------------------------------------------- slots


def test_first_come_first_served_within_a_group():
    assert chosen([waits(3, "a"), waits(1, "a"), waits(2, "a")], slots=2) == [1, 2]
    assert chosen([waits(1), waits(2)], holding=[("a",)] * 4) == []
    assert chosen([waits(1), waits(2)], holding=[("a",)] * 9) == []


def test_a_group_of_many_does_not_keep_a_group_of_few_waiting():
    queued = [waits(at, "all", "big") for at in range(1, 100)] + [waits(100, "all", "small"), waits(101, "small")]
    assert chosen(queued) == [1, 100, 2, 101]
    assert chosen(queued, holding=[("big",), ("big",)]) == [100, 101]


def test_the_higher_priority_goes_first_whatever_the_group():
    assert chosen([waits(1, "a"), waits(2, "b", priority=5), waits(3, "b", priority=5)], slots=2) == [2, 3]
    assert chosen([waits(1, "a", priority=-1), waits(2, "b")], slots=1) == [2]


def test_a_groups_limit_holds_over_all_groups_of_a_node():
    queued = [waits(1, "all", "rack1"), waits(2, "all", "rack1"), waits(3, "all", "rack2"), waits(4, "rack2", "slow")]
    assert chosen(queued, groups={"rack1": 1, "slow": 0}) == [1, 3]
    assert chosen(queued, groups={"all": 1}) == [1, 4]
    assert chosen(queued, holding=[("x", "rack1")], groups={"rack1": 1}) == [3, 4]


def test_a_time_that_has_not_come_and_a_step_that_is_not_reached_wait():
    queued = [waits(1, not_before=10.0), waits(2, wave=7, step=2), waits(3, wave=8, step=1)]
    assert chosen(queued, now=9.9) == []
    assert chosen(queued, now=10.0, steps={7: 1}) == [1]
    assert chosen(queued, now=10.0, steps={7: 2, 8: 1}) == [1, 2, 3]


tasks = st.lists(
    st.tuples(
        st.sampled_from([(), ("all",), ("all", "a"), ("b",), ("a", "b"), ("c",)]),
        st.integers(-2, 2),
        st.sampled_from([None, 5.0, 50.0]),
        st.integers(0, 2),
    ),
    max_size=30,
)


@given(
    tasks,
    st.lists(st.sampled_from([("a",), ("b",), ("all", "c")]), max_size=6),
    st.integers(1, 8),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)),
)
def test_no_limit_is_ever_crossed_and_no_slot_is_left_free_that_somebody_could_have(found, holding, slots, limits):
    queued = [
        waits(at, *groups, priority=priority, not_before=when, wave=int(step > 0), step=step)
        for at, (groups, priority, when, step) in enumerate(found, 1)
    ]
    numbers = chosen(queued, holding=holding, slots=slots, groups=limits, now=10.0, steps={1: 1})
    by_number = {task.number: task for task in queued}
    assert len(numbers) == len(set(numbers))
    assert len(numbers) + len(holding) <= max(slots, len(holding))
    used = Counter(group for groups in holding for group in groups)
    before = Counter(used)
    used.update(group for number in numbers for group in set(by_number[number].groups))
    assert all(used[group] <= max(limit, before[group]) for group, limit in limits.items())
    assert all(by_number[number].not_before != 50.0 and by_number[number].step < 2 for number in numbers)
    free = slots - len(holding) - len(numbers)
    for task in queued:
        if free > 0 and task.number not in numbers and task.not_before != 50.0 and task.step < 2:
            assert any(used[group] >= limits[group] for group in task.groups if group in limits)


@given(tasks, st.integers(1, 8))
def test_who_waits_is_never_overtaken_inside_its_group_and_priority(found, slots):
    queued = [waits(at, *groups, priority=priority) for at, (groups, priority, _, _) in enumerate(found, 1)]
    numbers = set(chosen(queued, slots=slots))
    for task in queued:
        if task.number in numbers:
            older = [
                one.number
                for one in queued
                if one.number < task.number
                and one.priority >= task.priority
                and queue.share(one.groups) == queue.share(task.groups)
            ]
            assert set(older) <= numbers


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=40), st.integers(1, 12))
def test_shares_of_groups_differ_by_one_at_most_while_they_have_tasks_left(groups, slots):
    queued = [waits(at, group) for at, group in enumerate(groups, 1)]
    numbers = set(chosen(queued, slots=slots))
    got = Counter(task.groups[0] for task in queued if task.number in numbers)
    left = {task.groups[0] for task in queued if task.number not in numbers}
    for group in left:
        assert all(got[group] >= got[other] - 1 for other in set(groups))


def test_ten_thousand_waiting_tasks_are_looked_through_at_once():
    queued = [waits(at, "all", f"rack{at % 200}") for at in range(10_000)]
    begun = Moment()
    assert len(chosen(queued, slots=100, groups={"all": 1000})) == 100
    assert begun.took() < 1.0


# ---------------------------------------------------------------- windows


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


SUNDAY = 1_795_305_600.0
"""2026-11-22 00:00 UTC, a Sunday."""


@pytest.mark.parametrize(
    ("window", "hours"),
    [
        ("22:00-06:00", {*range(6), 22, 23}),
        ("08:00-12:00", {8, 9, 10, 11}),
        ("Sun 00:00-24:00", set(range(24))),
        ("Mon-Fri 08:00-12:00", set()),
        ("Sat 20:00-02:00", {0, 1}),
        ("Sun 20:00-02:00", {20, 21, 22, 23}),
        ("Sat-Mon 10:00-11:00", {10}),
        ("12:00-12:00", set(range(24))),
    ],
)
def test_windows_of_the_local_day(utc, window, hours):
    windows = queue.parse_windows([window])
    assert {hour for hour in range(24) if queue.is_open(windows, SUNDAY + hour * 3600)} == hours


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22-6",
        "25:00-06:00",
        "24:00-06:00",
        "22:00-00:00",
        "22:61-23:00",
        "Som 22:00-06:00",
        "22:00-06:00 ",
        "always",
    ],
)
def test_what_is_no_window_is_refused(text):
    with pytest.raises(ConfigError, match="is no maintenance window"):
        queue.parse_windows([text])


def test_outside_a_window_only_tasks_with_a_time_of_their_own_start(utc):
    windows = queue.parse_windows(["22:00-06:00"])
    queued = [waits(1), waits(2, not_before=SUNDAY)]
    assert chosen(queued, now=SUNDAY + 12 * 3600, windows=windows) == [2]
    assert chosen(queued, now=SUNDAY + 23 * 3600, windows=windows) == [1, 2]
    assert queue.is_open((), SUNDAY)


# ---------------------------------------------------------------- waves


def test_steps_take_their_sizes_and_then_all_that_are_left():
    names = [f"n{at:02d}" for at in range(1, 31)]
    assert [len(step) for step in waves.steps(names, waves.parse("2,10,50%"))] == [2, 10, 15, 3]
    assert waves.steps(["a", "b"], waves.parse("5")) == [("a", "b")]
    assert waves.steps(["a", "b", "c"], waves.parse("1%")) == [("a",), ("b", "c")]
    assert waves.steps([], waves.parse("1")) == []


@given(
    st.integers(0, 200),
    st.lists(st.one_of(st.integers(1, 50).map(str), st.integers(1, 100).map("{}%".format)), min_size=1, max_size=5),
)
def test_every_node_is_in_exactly_one_step(count, sizes):
    names = [f"n{at}" for at in range(count)]
    found = waves.steps(names, waves.parse(",".join(sizes)))
    assert [name for step in found for name in step] == names
    assert all(found)


@pytest.mark.parametrize("text", ["", "0", "2,", "101%", "a", "2, 3", "-1", "1.5", "2;3"])
def test_what_is_no_wave_is_refused(text):
    with pytest.raises(UsageError, match="is no wave"):
        waves.parse(text)


def members(*states):
    """(step, state) of each."""
    return [Member(step=step, state=State(state)) for step, state in states]


@pytest.mark.parametrize(
    ("stop_after", "step", "found", "verdict"),
    [
        (0, 1, [(1, "running"), (2, "queued")], Verdict(step=1, state=RUNNING)),
        (0, 1, [(1, "succeeded"), (1, "failed"), (2, "queued")], Verdict(step=2, state=RUNNING)),
        (0, 1, [(1, "succeeded"), (2, "cancelled"), (3, "queued")], Verdict(step=3, state=RUNNING)),
        (0, 2, [(1, "lost"), (2, "failed"), (3, "succeeded")], Verdict(step=3, state=DONE)),
        (1, 1, [(1, "running"), (1, "succeeded"), (2, "queued")], Verdict(step=1, state=RUNNING)),
        (1, 1, [(1, "cancelled"), (2, "queued")], Verdict(step=2, state=RUNNING)),
        (2, 2, [(1, "failed"), (2, "running"), (3, "queued")], Verdict(step=2, state=RUNNING)),
        (1, 3, [(1, "succeeded"), (2, "succeeded"), (3, "failed")], Verdict(step=3, state=DONE)),
        (1, 1, [], Verdict(step=3, state=DONE)),
    ],
)
def test_a_wave_goes_on_when_a_step_has_ended(stop_after, step, found, verdict):
    assert judge(step, 3, stop_after, members(*found)) == verdict


@pytest.mark.parametrize("waiting", ["queued", "armed"])
def test_a_wave_stops_by_itself_after_its_failures(waiting):
    found = members((1, "failed"), (1, "lost"), (1, "running"), (2, waiting))
    verdict = judge(1, 2, 2, found)
    assert (verdict.state, verdict.step) == (STOPPED, 1)
    assert verdict.reason == "2 tasks have failed, and it was to stop after 2"


@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(list(State))), max_size=20),
)
def test_no_step_begins_before_the_ones_before_it_have_ended(step, stop_after, found):
    verdict = judge(step, 4, stop_after, members(*found))
    assert step <= verdict.step <= 4
    for at, state in found:
        if step <= at < verdict.step:
            assert State(state).ended
    if verdict.state == DONE:
        assert all(State(state).ended for at, state in found)
    failures = sum(state in (State.FAILED, State.LOST) for _, state in found)
    if stop_after and failures >= stop_after:
        assert verdict.state == STOPPED or not any(state in (State.QUEUED, State.ARMED) for _, state in found)
