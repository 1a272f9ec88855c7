"""Rows of tasks for tests of rules."""

from litho.job import Job
from litho.task import State, Task
from litho_controller.store.tasks import TaskRow


def row(*, state: State, line: str = "", reason: str = "", action: str = "capture", node: str = "n01") -> TaskRow:
    """A task in a state, held by a session once it has been armed."""
    held = state not in (State.QUEUED, State.ARMED)
    return TaskRow(
        node=node,
        action=action,
        image="golden",
        version=0,
        job=Job(action=action, image="golden"),
        task=Task(state=state, session="s" if held else "", reason=reason),
        line=line,
        created=1.0,
    )
