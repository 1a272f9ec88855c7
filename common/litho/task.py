"""A task's states, and the one function that moves them.

A task is one capture or restore of one image on one node. Its way:

    QUEUED ──arm──> ARMED ──claim──> CLAIMED ──plan──> PLANNED ──start──> RUNNING ──succeed──> SUCCEEDED
       │              │                 │                 │                  │
       └─cancel───────┴──> CANCELLED    └───── fail / cancelled ─────────────┴──> FAILED, CANCELLED
                      │                 │                 │                  │
                      └──── expire ─────┴─────────────────┴──────────────────┴──> LOST

`advance` is pure. It is given a task and an event and answers what becomes of the task; every pair of state and
event is decided here and nowhere else. Two kinds of events exist:

* The controller's own (`Arm`, `CancelRequest`, `Expire`): they happen inside one process and carry no number.
* The node's (`Claim`, `Plan`, `Start`, `Succeed`, `Fail`, `Cancelled`): they cross a network that may double,
  delay or reorder them. Each carries the agent's `session` (one boot of the rootimg, one agent process) and a `seq` that
  starts at 1 with the claim and grows by one. They are applied strictly in order: an old number is a DUPLICATE, a
  number that skips one is a GAP (the agent sends it again, after the missing one), another session's is FOREIGN.

SUCCEEDED, FAILED and CANCELLED are final: nothing leaves them. LOST means "nothing was heard for the lease's time", and
that can be wrong: a node that was cut off may have finished its work. So the session that held the task may still say how it
ended, and the task then takes that truer end. Nothing else leaves LOST.

A success that was neither planned nor started is not believed, and it is the last thing that its session says: the task is
FAILED with the code `protocol` rather than left to wait for an end that has been said already.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

UNPROVEN = (
    "the agent said that it succeeded without having said that it began, so its word is not trusted: check that agent and "
    "controller are of the same version, then start again"
)
"""The reason of a task that ends with the code `protocol`."""


class State(enum.StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    ARMED = "armed"
    CLAIMED = "claimed"
    PLANNED = "planned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """True for the four end states; such a task holds no slot."""
        return self in _ENDED

    @property
    def on_node(self) -> bool:
        """True while an agent holds the task; such a task has a lease."""
        return self in _ON_NODE


_ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST})
_FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
_ON_NODE = frozenset({State.CLAIMED, State.PLANNED, State.RUNNING})

Action = Literal["capture", "restore", "verify"]
"""`verify` compares a disk with an image and changes neither."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a task that the rules move. Everything else about it (node, image, times) is the store's."""

    state: State = State.QUEUED
    session: str = ""
    """The agent session that claimed it; empty before the claim."""
    last_seq: int = 0
    """The highest event number applied."""
    cancel_requested: bool = False
    code: str = ""
    """Why it did not succeed: the stable word of `LithoError.code`."""
    reason: str = ""
    """The same as a sentence for a person."""


class Arm(msgspec.Struct, frozen=True):
    """A slot is free: boot files are written and the node may boot into the rootimg."""


class CancelRequest(msgspec.Struct, frozen=True):
    """Somebody asked for the task to stop."""

    reason: str = "cancelled on request"


class Expire(msgspec.Struct, frozen=True):
    """Nothing was heard for the lease's time, or the node never booted."""

    reason: str


class NodeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What every event from a node carries."""

    session: str
    seq: int


class Claim(NodeEvent, frozen=True, kw_only=True):
    """The agent took the task with its one-time token; always number 1 of its session."""


class Plan(NodeEvent, frozen=True, kw_only=True):
    """The agent chose the disk and knows the steps and bytes."""


class Start(NodeEvent, frozen=True, kw_only=True):
    """Bytes begin to move."""


class Succeed(NodeEvent, frozen=True, kw_only=True):
    """The work is done and verified."""


class Fail(NodeEvent, frozen=True, kw_only=True):
    """The work stopped with a reason."""

    code: str
    reason: str


class Cancelled(NodeEvent, frozen=True, kw_only=True):
    """The agent stopped because it was asked to."""

    reason: str = "cancelled on request"


Event = Arm | CancelRequest | Expire | Claim | Plan | Start | Succeed | Fail | Cancelled


class Outcome(enum.Enum):
    """What `advance` made of an event."""

    MOVED = "moved"
    """The task changed."""
    DUPLICATE = "duplicate"
    """Seen before (or already so): acknowledge it and do nothing."""
    GAP = "gap"
    """A number is missing before it: do not acknowledge; the agent sends both again."""
    FOREIGN = "foreign"
    """From a session that does not hold the task: tell that session to stop."""
    LATE = "late"
    """The task has ended another way; acknowledge it. The state stays."""
    REFUSED = "refused"
    """Makes no sense in this state; acknowledged and logged. The state stays."""


class Transition(msgspec.Struct, frozen=True):
    """The task after the event, and what was made of the event.

    Store `task` whatever the outcome is: a LATE or REFUSED event changes no state, and yet its number counts as seen.
    """

    task: Task
    outcome: Outcome

    @property
    def acknowledge(self) -> bool:
        """True when the sender need not send the event again."""
        return self.outcome in (Outcome.MOVED, Outcome.DUPLICATE, Outcome.LATE, Outcome.REFUSED)


def advance(task: Task, event: Event) -> Transition:
    """Move `task` by `event`. Pure and total: every (state, event) pair has an answer, none raises."""
    if isinstance(event, Claim):
        return _claim(task, event)
    if isinstance(event, NodeEvent):
        return _node(task, event)
    return _controller(task, event)


def _controller(task: Task, event: Arm | CancelRequest | Expire) -> Transition:
    state = task.state
    if state in _FINAL:
        return Transition(task, Outcome.LATE)
    if isinstance(event, Arm):
        if state is State.QUEUED:
            return _moved(task, state=State.ARMED)
        return Transition(task, Outcome.LATE if state is State.LOST else Outcome.DUPLICATE)
    if state is State.LOST:
        return Transition(task, Outcome.LATE)
    if isinstance(event, CancelRequest):
        if state in _ON_NODE:
            # The agent holds the disk: only it can say that nothing moves any more.
            if task.cancel_requested:
                return Transition(task, Outcome.DUPLICATE)
            return _moved(task, cancel_requested=True)
        return _moved(task, state=State.CANCELLED, cancel_requested=True, code="cancelled", reason=event.reason)
    if state is State.QUEUED:
        # A task that waits for a slot has no lease to lose.
        return Transition(task, Outcome.REFUSED)
    return _moved(task, state=State.LOST, code="lost", reason=event.reason)


def _claim(task: Task, event: Claim) -> Transition:
    if not event.session:
        # Nobody could ever speak for a task that is held by no name.
        return Transition(task, Outcome.REFUSED)
    if task.state is State.ARMED:
        if event.seq != 1:
            return Transition(task, Outcome.GAP)
        return _moved(task, state=State.CLAIMED, session=event.session, last_seq=1)
    if task.session and event.session == task.session:
        return Transition(task, Outcome.DUPLICATE)
    if task.state is State.QUEUED:
        return Transition(task, Outcome.REFUSED)
    return Transition(task, Outcome.FOREIGN)


def _node(task: Task, event: NodeEvent) -> Transition:
    if not task.session or event.session != task.session:
        return Transition(task, Outcome.FOREIGN)
    if event.seq <= task.last_seq:
        return Transition(task, Outcome.DUPLICATE)
    if task.state in _FINAL:
        return Transition(task, Outcome.LATE)
    if event.seq != task.last_seq + 1:
        return Transition(task, Outcome.GAP)
    seen = msgspec.structs.replace(task, last_seq=event.seq)
    if isinstance(event, Succeed):
        return _succeed(seen)
    if isinstance(event, Fail):
        return _moved(seen, state=State.FAILED, code=event.code, reason=event.reason)
    if isinstance(event, Cancelled):
        return _moved(seen, state=State.CANCELLED, code="cancelled", reason=event.reason)
    if isinstance(event, Plan):
        return _step(seen, State.CLAIMED, State.PLANNED)
    return _step(seen, State.PLANNED, State.RUNNING)


def _succeed(seen: Task) -> Transition:
    # In LOST what was said on the way is not looked at, so the session is believed there.
    if seen.state in (State.RUNNING, State.LOST):
        return _moved(seen, state=State.SUCCEEDED, code="", reason="")
    return _moved(seen, state=State.FAILED, code="protocol", reason=UNPROVEN)


def _step(seen: Task, at: State, to: State) -> Transition:
    if seen.state is at:
        return _moved(seen, state=to)
    # Also from LOST: the number counts as seen (so that the end that follows is no gap), the state stays.
    return Transition(seen, Outcome.LATE if seen.state is State.LOST else Outcome.REFUSED)


def _moved(task: Task, **changes: object) -> Transition:
    return Transition(msgspec.structs.replace(task, **changes), Outcome.MOVED)
