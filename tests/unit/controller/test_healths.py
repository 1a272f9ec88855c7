"""What nodes say of their health, from the status to the command line."""

import logging

import pytest

from litho.messages import Health, Status
from litho_controller.api_health import HealthView
from litho_controller.cli import render
from litho_controller.tables import nodes
from litho_controller.tasks.healths import Healths
from litho_controller.web.nodes import view as node_view
from litho_controller.web.tasks import view as task_view
from support.desk import FAILED, PLANNED, STARTED, lab

GOOD = Health(
    cpu=43.4,
    load=1.2,
    memory=8 << 30,
    available=3 << 30,
    agent=120 << 20,
    disk="passed",
    disk_note="34 degrees Celsius",
)
BAD = Health(cpu=50, disk="failed", disk_note="12 reallocated sectors")


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path) as made:
        await made.define("n01", "n02")
        yield made


async def says(agent, health, **changes):
    words = {
        "node": agent.node,
        "session": agent.session,
        "task": agent.task,
        "online": True,
        "health": health,
        **changes,
    }
    await agent.lab.hearing.status(Status(**words))


async def shown(desk, task="t-000001", node="n01"):
    """The last health, as the API shows it with the node and with the task."""
    row = await desk.row(task)
    async with desk.store.read() as conn:
        one = await nodes.require(conn, node)
    of_task = task_view(row, health=desk.tasks.healths.of_task(row.node, row.id)).health
    return node_view(one, row, desk.tasks).health, of_task


async def test_the_last_health_of_a_node_is_held_and_shown_with_the_node_and_its_task(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    assert await shown(desk) == (None, None)
    await says(agent, GOOD)
    await says(agent, BAD)
    await agent.beat()
    of_node, of_task = await shown(desk)
    assert of_node == of_task
    assert (of_node.health, of_node.task, of_node.at) == (BAD, "t-000001", desk.clock.now())
    assert of_node.warning.startswith("the task's disk says of itself that it is failing (12 reallocated sectors)")


async def test_a_stranger_another_session_and_a_last_will_change_nothing(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await says(agent, GOOD)
    await says(agent, BAD, session="session-2")
    await says(agent, BAD, node="n02")
    await says(agent, BAD, task="t-000009")
    await says(agent, BAD, online=False)
    assert (await shown(desk))[0].health == GOOD
    assert (await shown(desk, node="n02"))[0] is None


async def test_it_stays_after_the_end_and_belongs_to_its_task(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await says(agent, BAD)
    await agent.say(FAILED)
    await desk.capture("n01", image="other")
    of_node, of_later = await shown(desk, "t-000002")
    assert of_node.task == "t-000001"
    assert of_later is None
    assert (await shown(desk))[1] == of_node


def test_a_verdict_that_turned_bad_is_logged_once_a_task(caplog):
    healths = Healths()
    with caplog.at_level(logging.WARNING):
        for task, health in (("t-1", GOOD), ("t-1", BAD), ("t-1", BAD), ("t-2", BAD)):
            healths.hear("n01", task, health, now=1.0)
    assert [record.message.partition(" the")[0] for record in caplog.records] == ["t-1: n01:", "t-2: n01:"]
    healths.forget("n01")
    assert healths.of_node("n01") is None


def test_the_command_line_shows_figures_the_verdict_and_the_warning_first():
    said = dict(render.health(HealthView(at=0, task="t-1", health=GOOD)))
    assert said["health"].startswith("processors 43%, load 1.2, 3.2 GB of 8.6 GB memory free, agent 126 MB, at 19")
    assert said["disk"] == "SMART passed (34 degrees Celsius)"
    assert said["warning"] == ""
    bad = render.health(HealthView(at=0, task="t-1", health=BAD, warning="it fails"))
    assert bad[0] == ("warning", "it fails")
    assert render.facts(bad).startswith("warning  it fails\nhealth   processors 50%")
    assert render.health(None) == []
