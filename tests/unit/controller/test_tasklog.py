"""What became of a task, over the real task service: its steps, its plan, its notes, its job's words."""

import hashlib

import msgspec
import pytest

from litho.errors import NotFoundError
from litho.library import ImageRef, Library, Owner, Stage
from litho.library.manifest import FileRef
from litho_controller.api import JobOptions
from litho_controller.api_schedule import LogView
from litho_controller.web import tasklog
from litho_controller.web.app import admin_app
from litho_controller.web.desk import Desk
from support.desk import DONE, FAILED, PLANNED, STARTED, lab, publish

LOG = "   0.2 s  run partclone.extfs -q -D -s /dev/sda1 -o -\n"


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path) as made:
        await made.define("n01")
        yield made


@pytest.fixture
async def log_of(desk, aiohttp_client):
    client = await aiohttp_client(admin_app(Desk(store=desk.store, tasks=desk.tasks, requests=desk.requests)))

    async def ask(task):
        answer = await client.get(f"/v1/tasks/{task}/log")
        data = await answer.read()
        return msgspec.json.decode(data, type=LogView) if answer.status == 200 else (answer.status, data)

    return ask


def publish_with_log(library, log):
    """A version of golden whose job's log lies beside it."""
    version = publish(library, "golden")
    manifest = library.manifest(ImageRef("golden", version))
    with Stage.open(library, "golden", Owner(session="made-by-a-test")) as stage:
        for suffix, data in (("sda.head", b"x" * 1000), ("job.log", log)):
            with stage.create(suffix) as file:
                file.write(data)
        head, kept = (
            FileRef(file=stage.file_name(suffix), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for suffix, data in (("sda.head", b"x" * 1000), ("job.log", log))
        )
        stage.publish(msgspec.structs.replace(manifest, version=stage.version, head=head, log=kept))
        return stage.version


async def test_every_step_has_its_time_and_the_plan_names_the_disk(desk, log_of):
    begun = desk.clock.now()
    (task,) = await desk.capture("n01")
    assert (await log_of(task)).lines == ((begun, "queued: capture of golden for n01"),)
    desk.clock.advance(10)
    node = await desk.agent(task)
    desk.clock.advance(10)
    await node.say(PLANNED, STARTED)
    found = await log_of(task)
    assert [(at - begun, text) for at, text in found.lines] == [
        (0, "queued: capture of golden for n01"),
        (10, "armed: the node may boot for it"),
        (10, "claimed by the session session-1"),
        (20, "started: bytes began to move"),
    ]
    assert found.plan == ("disk /dev/sda, S1", "save sda1")
    assert (found.notes, found.log) == ((), "")


async def test_a_failed_jobs_log_is_what_its_agent_sent(desk, log_of):
    (task,) = await desk.capture("n01")
    node = await desk.agent(task)
    await node.say(PLANNED, msgspec.structs.replace(FAILED, log=LOG))
    found = await log_of(task)
    assert found.lines[-1][1] == "failed: there is no disk sdb"
    assert found.log == LOG


async def test_the_log_of_a_restore_that_went_well_is_kept_with_its_task(desk, log_of):
    publish(desk.library, "golden")
    [line] = await desk.requests.create(["n01"], "restore", ImageRef("golden"), JobOptions())
    node = await desk.agent(line.task)
    await node.say(PLANNED, STARTED, msgspec.structs.replace(DONE, log=LOG))
    found = await log_of(line.task)
    assert (found.log, found.lines[-1][1]) == (LOG, "succeeded")


async def test_a_captures_log_lies_beside_its_image_as_long_as_that_is_there(desk, log_of):
    version = publish_with_log(desk.library, LOG.encode())
    (task,) = await desk.capture("n01")
    node = await desk.agent(task)
    await node.say(PLANNED, STARTED, msgspec.structs.replace(DONE, version=version, notes=("sda2 was left out",)))
    found = await log_of(task)
    assert (found.log, found.notes) == (LOG, ("sda2 was left out",))
    for path in desk.library.root.glob(f"golden.v{version}*"):
        path.unlink()
    found = await log_of(task)
    assert (found.log, found.lines[-1][1]) == ("", "succeeded")


def test_of_a_long_log_the_end_is_shown(tmp_path):
    library = Library.create(tmp_path / "library")
    version = publish_with_log(library, b"begin" + b"x" * tasklog.MOST_LOG + b"the end\xff")
    found = tasklog.kept(library, ImageRef("golden", version))
    assert len(found) == tasklog.MOST_LOG
    assert found.endswith("the end\ufffd")
    with pytest.raises(NotFoundError):
        library.manifest(ImageRef("other", 1))
    assert tasklog.kept(library, ImageRef("other", 1)) == ""


async def test_a_task_that_is_none_is_a_sentence(log_of):
    for text in ("t-000099", "x"):
        status, data = await log_of(text)
        assert status == 404
        assert f"there is no task {text}".encode() in data


def test_a_plan_of_any_shape_is_read():
    assert tasklog.plan({}) == ()
    assert tasklog.plan({"disk": 7, "steps": "x"}) == ()
    assert tasklog.plan({"disk": {"path": "/dev/sda", "model": None}, "steps": ["a", 7]}) == ("disk /dev/sda", "a")
