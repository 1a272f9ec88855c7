"""What limits a task, and which partitions move, is shown while it runs and not afterwards."""

import pytest

from litho.progress import PartProgress, Progress, StageRate
from litho.task import State
from litho_controller.api import TaskView
from litho_controller.cli import live, render
from litho_controller.cli.tasks import _facts

BUSY = Progress(
    phase="partition",
    stages=(StageRate(name="library write", rate=112e6, busy=0.97), StageRate(name="compress", rate=400e6, busy=0.3)),
    moving=(PartProgress(part=1, done=40, total=100), PartProgress(part=3, done=7, total=100)),
)


def a_task(state: State = State.RUNNING) -> TaskView:
    return TaskView(
        id="t-000017",
        node="n01",
        action="capture",
        image="golden",
        state=state,
        phase="partition",
        limit=BUSY.limit,
        moving=BUSY.moving,
        rate=250e6,
        created=1.0,
    )


def test_a_task_that_is_shown_names_its_limit_and_the_partitions_that_move():
    shown = dict(_facts(a_task()))
    assert shown["limit"] == "limited by library write 112 MB/s"
    assert shown["moving"] == "1 (40%), 3 (7%)"


def test_a_task_that_is_watched_names_its_limit(capsys):
    live.Lines().show(a_task())
    assert capsys.readouterr().out.rstrip().endswith("limited by library write 112 MB/s")


@pytest.mark.parametrize("moving", [(), (PartProgress(part=1, done=0, total=0),)])
def test_no_partition_and_one_without_data_are_shown_too(moving):
    task = TaskView(id="t-1", node="n", action="restore", image="g", state=State.RUNNING, moving=moving)
    assert render.moving(task) == ("1 (0%)" if moving else "")
