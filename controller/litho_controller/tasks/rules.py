"""What follows from what, for tasks: pure functions over rows, without clock, database or wire.

`litho.task.advance` says which state comes next. Here is the rest: which message is which event, who gets a free slot, what
`nodestat` says, what a row looks like after a move.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from litho import nodestat
from litho.errors import UsageError
from litho.job import Job
from litho.library import sources
from litho.messages import EventReport, Failed, Planned, Started, Succeeded
from litho.progress import Progress
from litho.task import Cancelled, Event, Fail, Plan, Start, State, Succeed, Task
from litho_controller.api import JobOptions
from litho_controller.store.tasks import TaskRow

QUEUED_TEXT = "queued, waiting for a slot"
ARMED_TEXT = "armed, waiting for the node"
"""Neither holds `boot`, `install` or `partimage`: VCL takes those words for an end or a beginning that has not come."""


SUPERSEDED = "the node was set anew before its agent had said that it stopped"


def event_of(report: EventReport) -> Event:
    """The event that a node's report is to the task's state machine."""
    session, seq, body = report.session, report.seq, report.body
    if isinstance(body, Planned):
        return Plan(session=session, seq=seq)
    if isinstance(body, Started):
        return Start(session=session, seq=seq)
    if isinstance(body, Succeeded):
        return Succeed(session=session, seq=seq)
    if isinstance(body, Failed):
        return Fail(session=session, seq=seq, code=body.code, reason=body.reason)
    return Cancelled(session=session, seq=seq, reason=body.reason)


def moved(row: TaskRow, task: Task, *, now: float) -> TaskRow:
    """`row` after its state has become `task`: with the times that go with it."""
    times: dict[str, float] = {}
    if task.state is not row.task.state:
        stamp = {State.ARMED: "armed", State.CLAIMED: "claimed", State.RUNNING: "started"}.get(task.state)
        if stamp:
            times[stamp] = now
        if task.state.ended:
            times["ended"] = now
    return msgspec.structs.replace(row, task=task, **times)


def told(row: TaskRow, report: EventReport) -> TaskRow:
    """`row` with what an event that moved it says of the plan or the result."""
    body = report.body
    if isinstance(body, Started):
        return row
    text = msgspec.json.encode(body).decode()
    if isinstance(body, Planned):
        figure = row.progress if row.progress.total else Progress(phase="planned", total=body.total)
        return msgspec.structs.replace(row, plan=text, progress=figure)
    changed = msgspec.structs.replace(row, result=text)
    if isinstance(body, Succeeded) and row.state is State.SUCCEEDED:
        return _finished(changed, body)
    return changed


def _finished(row: TaskRow, body: Succeeded) -> TaskRow:
    total = body.used or row.progress.total
    figure = msgspec.structs.replace(
        row.progress,
        phase="done",
        done=total,
        total=total,
        fraction=1.0,
        eta_s=0.0,
        stored=body.stored or row.progress.stored,
    )
    version = body.version if row.action == "capture" else row.version
    return msgspec.structs.replace(row, progress=figure, line=nodestat.COMPLETE, version=version)


def nodestat_text(boot_state: str, latest: TaskRow | None) -> str:
    """What `nodestat` says of a node: its task's line, the reason when that went wrong, else what it is set to boot."""
    if latest is None:
        return boot_state
    if latest.state is State.QUEUED:
        return QUEUED_TEXT
    if latest.state is State.ARMED:
        return ARMED_TEXT
    if latest.state.on_node:
        return latest.line or nodestat.line(latest.progress)
    if went_wrong(latest):
        return nodestat.failed(latest.task.reason)
    return boot_state


def nodeset_text(boot_state: str, latest: TaskRow | None) -> str:
    """What `nodeset N stat` says: what the node is set to.

    A restore that went wrong leaves the node at `boot`, like one that went well; but programs (Apache VCL) take the turn to
    `boot` for a restore's good end, whatever nodestat says. So the word is withheld until somebody sets the node anew.
    """
    if boot_state == "boot" and latest is not None and latest.action == "restore" and went_wrong(latest):
        return f"failed restore of {latest.image}"
    return boot_state


def went_wrong(latest: TaskRow) -> bool:
    """True for a task that an agent began, or should have begun, and that did not succeed, until the node is set anew."""
    stopped = latest.state is State.CANCELLED and bool(latest.task.session)
    return (stopped or latest.state in (State.FAILED, State.LOST)) and not latest.settled


def course(row: TaskRow) -> list[tuple[float, str]]:
    """What became of a task, each step with its time (seconds since 1970)."""
    again = f", attempt {row.attempt}" if row.attempt > 1 else ""
    repeats = f", as t-{row.retry_of:06d} was" if row.retry_of else ""
    steps = [
        (row.created, f"queued: {row.action} of {row.image} for {row.node}{again}{repeats}"),
        (row.armed, "armed: the node may boot for it"),
        (row.claimed, f"claimed by the session {row.task.session}"),
        (row.started, "started: bytes began to move"),
        (row.ended, f"{row.state}: {row.task.reason}" if row.task.reason else str(row.state)),
    ]
    return [(at, text) for at, text in steps if at is not None]


def job_of(options: JobOptions, *, action: str, image: str, version: int, vcl_markers: bool) -> Job:
    """The job that the agent is given. Raises UsageError for choices that do not go together."""
    if options.compress == "gzip" and options.level > 9:
        raise UsageError(f"gzip has no level {options.level}", hint="it goes from 1 to 9", code="bad-job")
    if options.sources and action == "capture":
        raise UsageError(
            "a capture writes to the library, which is not done over HTTP",
            hint="leave the sources out",
            code="bad-job",
        )
    chosen = msgspec.structs.asdict(options)
    chosen["sources"] = sources.check(options.sources) if options.sources else msgspec.UNSET
    values = {
        **{name: value for name, value in chosen.items() if value is not msgspec.UNSET},
        "action": action,
        "image": image,
        "version": version,
        "vcl_markers": vcl_markers and action == "capture",
    }
    try:
        return msgspec.convert(values, Job)
    except msgspec.ValidationError as exc:
        raise UsageError(f"this cannot be a job: {exc}", code="bad-job") from exc


def silent_reason(seconds: float) -> str:
    """Why a task whose agent fell silent is lost."""
    return f"the node has not been heard of for {seconds:.0f} s: it was switched off, crashed, or lost its network"


def never_claimed_reason(node: str, seconds: float) -> str:
    """Why an armed task that nobody claimed is lost."""
    return (
        f"{node} never booted into the root image: it did not claim the task within {seconds:.0f} s of being armed "
        "(check its power, its boot order and its DHCP entry)"
    )


def in_use(rows: Sequence[TaskRow], image: str, version: int) -> TaskRow | None:
    """The task under way that needs the image (that version of it, or any for 0), if there is one."""
    for row in rows:
        same = row.image == image and version in (0, row.version)
        if same and row.action != "capture" and not row.state.ended:
            return row
    return None
