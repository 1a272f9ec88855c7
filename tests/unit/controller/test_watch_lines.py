"""The plain lines of watching: one for each thing that a reader can tell from the one before."""

from litho.task import State
from litho_controller.api import TaskView
from litho_controller.cli import live


def test_a_line_is_said_once_however_many_phases_are_behind_it(capsys):
    lines = live.Lines()
    seen = ((State.CLAIMED, ""), (State.CLAIMED, "probe"), (State.RUNNING, "probe"), (State.RUNNING, "partition"))
    for state, phase in seen:
        lines.show(TaskView(id="t-1", node="n1", action="capture", image="g", state=state, phase=phase))
    assert capsys.readouterr().out.splitlines() == [
        "n1: capture g claimed",
        "n1: capture g running: probe, 0%",
        "n1: capture g running: partition, 0%",
    ]


def test_what_comes_again_after_something_else_is_said_again(capsys):
    lines = live.Lines()
    for state in (State.CLAIMED, State.RUNNING, State.CLAIMED):
        lines.show(TaskView(id="t-1", node="n1", action="capture", image="g", state=state))
    assert len(capsys.readouterr().out.splitlines()) == 3
