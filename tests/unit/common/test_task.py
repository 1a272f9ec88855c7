"""The table of a task's states, and a small world (agent, lossy network, controller) that tries to corrupt it."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litho.task import (
    Arm,
    Cancelled,
    CancelRequest,
    Claim,
    Event,
    Expire,
    Fail,
    NodeEvent,
    Outcome,
    Plan,
    Start,
    State,
    Succeed,
    Task,
    advance,
)

FINAL = {State.SUCCEEDED, State.FAILED, State.CANCELLED}

# A row for each state, a column for each event: the outcome's letter, and the new state when it changes.
TABLE = """
            arm       cancel        expire  claim      plan       start      succeed      fail      cancelled
queued      M:armed   M:cancelled   R       R          F          F          F            F         F
armed       D         M:cancelled   M:lost  M:claimed  F          F          F            F         F
claimed     D         M             M:lost  D          M:planned  R          M:failed     M:failed  M:cancelled
planned     D         M             M:lost  D          R          M:running  M:failed     M:failed  M:cancelled
running     D         M             M:lost  D          R          R          M:succeeded  M:failed  M:cancelled
succeeded   L         L             L       D          L          L          L            L         L
failed      L         L             L       D          L          L          L            L         L
cancelled   L         L             L       D          L          L          L            L         L
lost        L         L             L       D          L          L          M:succeeded  M:failed  M:cancelled
"""
LETTERS = {
    "M": Outcome.MOVED,
    "D": Outcome.DUPLICATE,
    "R": Outcome.REFUSED,
    "F": Outcome.FOREIGN,
    "L": Outcome.LATE,
}


def event_of(column: str, session: str, seq: int) -> Event:
    return {
        "arm": Arm(),
        "cancel": CancelRequest(reason="no more"),
        "expire": Expire(reason="nothing heard"),
        "claim": Claim(session=session, seq=1),
        "plan": Plan(session=session, seq=seq),
        "start": Start(session=session, seq=seq),
        "succeed": Succeed(session=session, seq=seq),
        "fail": Fail(session=session, seq=seq, code="engine", reason="it broke"),
        "cancelled": Cancelled(session=session, seq=seq),
    }[column]


def rows() -> list[tuple[State, str, Outcome, State]]:
    lines = TABLE.strip().splitlines()
    columns = lines[0].split()
    found = []
    for line in lines[1:]:
        name, *cells = line.split()
        assert len(cells) == len(columns)
        for column, cell in zip(columns, cells, strict=True):
            letter, _, target = cell.partition(":")
            found.append((State(name), column, LETTERS[letter], State(target or name)))
    return found


def task_in(state: State, session: str = "s") -> Task:
    held = state not in (State.QUEUED, State.ARMED)
    return Task(state=state, session=session if held else "", last_seq=1 if held else 0)


def test_the_table_has_every_pair_of_state_and_event() -> None:
    pairs = {(state, column) for state, column, _, _ in rows()}
    columns = {column for _, column, _, _ in rows()}
    assert pairs == set(itertools.product(State, columns))
    assert {type(event_of(column, "s", 2)) for column in columns} == set(Event.__args__)


@pytest.mark.parametrize(("state", "column", "outcome", "after"), rows())
def test_a_pair_is_decided_as_the_table_says(state: State, column: str, outcome: Outcome, after: State) -> None:
    before = task_in(state)
    moved = advance(before, event_of(column, "s", before.last_seq + 1))
    assert (moved.outcome, moved.task.state) == (outcome, after)
    if outcome in (Outcome.FOREIGN, Outcome.DUPLICATE):
        assert moved.task == before
    assert moved.acknowledge == (outcome is not Outcome.FOREIGN)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("column", ["claim", "plan", "start", "succeed", "fail", "cancelled"])
def test_another_session_moves_nothing_that_is_held(state: State, column: str) -> None:
    before = task_in(state)
    if state is State.ARMED and column == "claim":
        assert advance(before, event_of(column, "x", 2)).task.session == "x"
        return
    moved = advance(before, event_of(column, "x", before.last_seq + 1))
    assert moved.task == before
    assert moved.outcome is (Outcome.REFUSED if (state, column) == (State.QUEUED, "claim") else Outcome.FOREIGN)


@pytest.mark.parametrize("state", [State.LOST, State.CANCELLED])
@pytest.mark.parametrize("column", ["claim", "plan", "start", "succeed", "fail", "cancelled"])
def test_a_task_that_ended_before_its_claim_can_be_taken_by_nobody(state: State, column: str) -> None:
    before = Task(state=state)
    assert advance(before, event_of(column, "s", 1)).outcome is Outcome.FOREIGN


def test_a_claim_without_a_session_is_refused() -> None:
    before = task_in(State.ARMED)
    assert advance(before, Claim(session="", seq=1)) == type(advance(before, Arm()))(before, Outcome.REFUSED)


def test_a_claim_that_is_not_number_one_waits_for_number_one() -> None:
    assert advance(task_in(State.ARMED), Claim(session="s", seq=2)).outcome is Outcome.GAP


@pytest.mark.parametrize("state", [State.CLAIMED, State.PLANNED, State.RUNNING, State.LOST])
@pytest.mark.parametrize("column", ["plan", "start", "succeed", "fail", "cancelled"])
def test_a_number_that_skips_one_is_a_gap_and_is_not_acknowledged(state: State, column: str) -> None:
    before = task_in(state)
    moved = advance(before, event_of(column, "s", 3))
    assert (moved.task, moved.outcome, moved.acknowledge) == (before, Outcome.GAP, False)


def test_a_task_that_failed_tells_code_and_reason_and_one_that_succeeded_tells_none() -> None:
    failed = advance(task_in(State.RUNNING), Fail(session="s", seq=2, code="disk-missing", reason="no disk")).task
    assert (failed.code, failed.reason) == ("disk-missing", "no disk")
    lost = advance(task_in(State.RUNNING), Expire(reason="nothing was heard for 60 s")).task
    assert (lost.state, lost.code, lost.reason) == (State.LOST, "lost", "nothing was heard for 60 s")
    back = advance(lost, Succeed(session="s", seq=2)).task
    assert (back.state, back.code, back.reason) == (State.SUCCEEDED, "", "")


@pytest.mark.parametrize("state", [State.CLAIMED, State.PLANNED])
def test_a_success_that_never_began_ends_the_task_as_failed_and_says_why(state: State) -> None:
    failed = advance(task_in(state), Succeed(session="s", seq=2)).task
    assert (failed.state, failed.code, failed.last_seq) == (State.FAILED, "protocol", 2)
    assert failed.reason.startswith("the agent said that it succeeded without having said that it began")


def test_a_late_event_of_a_lost_task_counts_as_seen_so_that_the_end_is_no_gap() -> None:
    lost = advance(task_in(State.CLAIMED), Expire(reason="silent")).task
    planned = advance(lost, Plan(session="s", seq=2))
    assert (planned.outcome, planned.task.last_seq) == (Outcome.LATE, 2)
    started = advance(planned.task, Start(session="s", seq=3))
    assert advance(started.task, Succeed(session="s", seq=4)).task.state is State.SUCCEEDED


def test_a_held_task_that_is_cancelled_waits_for_its_agent() -> None:
    asked = advance(task_in(State.RUNNING), CancelRequest())
    assert (asked.task.state, asked.task.cancel_requested) == (State.RUNNING, True)
    assert advance(asked.task, CancelRequest()).outcome is Outcome.DUPLICATE
    assert advance(asked.task, Succeed(session="s", seq=2)).task.state is State.SUCCEEDED


# ---------------------------------------------------------------- a world that tries to corrupt it

ENDS = ["succeed", "fail", "cancelled"]
LIVES = st.one_of(
    st.just(["claim", "plan", "start", "succeed"]),
    st.tuples(st.integers(1, 3), st.sampled_from(["fail", "cancelled"])).map(
        lambda cut: [*["claim", "plan", "start"][: cut[0]], cut[1]]
    ),
)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 5)),
        st.tuples(st.just("deliver"), st.integers(0, 20)),
        st.tuples(st.just("drop"), st.integers(0, 20)),
        st.tuples(st.just("double"), st.integers(0, 20)),
        st.tuples(st.sampled_from(["arm", "cancel", "expire"]), st.just(0)),
        st.tuples(st.just("stranger"), st.integers(0, 8)),
    ),
    max_size=60,
)


class World:
    """An agent that repeats what is not acknowledged, a network that does as it likes, and a controller with one task."""

    def __init__(self, life: list[str]) -> None:
        self.outbox = [event_of(kind, "s", number) for number, kind in enumerate(life, 1)]
        self.flying: list[Event] = []
        self.task = Task()
        self.acknowledged = 0
        self.stopped = False
        self.applied: list[int] = []

    def give(self, event: Event) -> None:
        before = self.task
        moved = advance(before, event)
        after = self.task = moved.task
        if before.state in FINAL:
            assert after == before, "a final state was left"
        if before.state is State.LOST and after.state is not State.LOST:
            assert after.state in FINAL
            assert isinstance(event, NodeEvent)
            assert event.session == before.session
        if before.session:
            assert after.session == before.session, "a task changed hands"
        if moved.outcome is not Outcome.MOVED:
            assert msgspec.structs.replace(after, last_seq=0) == msgspec.structs.replace(before, last_seq=0)
        assert after.last_seq in (before.last_seq, before.last_seq + 1), "numbers were skipped"
        if isinstance(event, NodeEvent) and after.last_seq != before.last_seq:
            assert event.seq == after.last_seq
            if event.session == "s":
                self.applied.append(event.seq)
        if isinstance(event, NodeEvent) and event.session == "s":
            if moved.acknowledge and after.session == "s":
                self.acknowledged = max(self.acknowledged, after.last_seq)
            self.stopped = self.stopped or moved.outcome is Outcome.FOREIGN

    def move(self, kind: str, number: int) -> None:
        if kind == "send":
            # Only what has happened can be said: an agent goes on while an event waits, but a claim must be answered first.
            said = self.outbox if self.acknowledged else self.outbox[:1]
            self.flying.append(said[number % len(said)])
        elif kind == "stranger":
            columns = ["claim", "plan", "start", "succeed", "fail", "cancelled"]
            self.give(event_of(columns[number % 6], "x", number + 1))
        elif kind in ("arm", "cancel", "expire"):
            self.give(event_of(kind, "", 0))
        elif self.flying:
            at = number % len(self.flying)
            if kind == "double":
                self.flying.append(self.flying[at])
            else:
                event = self.flying.pop(at)
                if kind == "deliver":
                    self.give(event)

    def settle(self) -> None:
        """The network heals: the agent repeats until all is acknowledged or it is told to stop."""
        for _ in range(len(self.outbox) + 1):
            for event in self.outbox[self.acknowledged :]:
                if not self.stopped:
                    self.give(event)


@settings(max_examples=600)
@given(life=LIVES, moves=MOVES)
def test_whatever_the_network_does_the_task_ends_as_its_agent_ended(
    life: list[str], moves: list[tuple[str, int]]
) -> None:
    world = World(life)
    for kind, number in moves:
        world.move(kind, number)
    if world.task.state is State.QUEUED:
        world.give(Arm())
    world.stopped = world.stopped and world.task.session != "s"
    world.settle()
    assert world.applied == list(range(1, len(world.applied) + 1)), "applied twice or out of order"
    if world.task.session == "s":
        expected = {"succeed": State.SUCCEEDED, "fail": State.FAILED, "cancelled": State.CANCELLED}[life[-1]]
        assert world.task.state is expected
        assert world.acknowledged == len(life), "the agent would repeat for ever"
        assert world.applied == list(range(1, len(life) + 1))
    else:
        assert world.task.session == "x" or world.task.state in (State.CANCELLED, State.LOST)


@given(life=LIVES, order=st.permutations(range(4)), late=MOVES)
def test_nothing_that_comes_late_changes_a_final_state(
    life: list[str], order: list[int], late: list[tuple[str, int]]
) -> None:
    world = World(life)
    world.give(Arm())
    world.settle()
    ended = world.task
    assert ended.state in FINAL
    for kind, number in late:
        world.move(kind, number)
    for number in order:
        world.give(world.outbox[number % len(world.outbox)])
    assert world.task == ended
