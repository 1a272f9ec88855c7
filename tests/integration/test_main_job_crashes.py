"""What dies in the middle: agent, worker, engine, broker, controller. Nothing is lost, no state lies, no slot is kept.

The middle is where the test stopped the engine. One site serves all tests here: each must leave it able to do the following one.
"""

import os
import signal
from pathlib import Path

import pytest

from support.loop import needs_root
from support.pace import Moment
from support.site import (
    below,
    descendants,
    digest,
    go_on,
    pretends_to_boot,
    running,
    stopped,
    target,
    until,
)

pytestmark = [needs_root, pytest.mark.root]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A site that soon takes a silent node for lost."""
    with running(tmp_path_factory.mktemp("site"), lease_s=5.0) as made:
        yield made


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A site whose lease is longer than an agent takes to find its broker again: here nothing may be lost, not for a moment."""
    with running(tmp_path_factory.mktemp("patient"), lease_s=60.0) as made:
        yield made


def killed(agent):
    """SIGKILL the agent; all that it started is gone within two seconds."""
    below_it = set(descendants(agent.pid))
    assert below_it
    agent.kill()
    begun = Moment()
    agent.wait(60)
    until(lambda: not below_it & set(descendants(1)) and not any(map(alive, below_it)), what="all are dead")
    assert begun.took() < 2


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# ---------------------------------------------------------------- the agent


def test_an_agent_killed_in_the_middle_of_a_capture_is_lost_and_its_remains_go(bench, plain, golden):
    task = bench.nodeset("n02", "image", "golden")
    with bench.booted("n02", plain, task) as agent:
        stopped(agent.pid, "partclone")
        assert "golden.v2.json.part" in bench.unfinished("golden")
        killed(agent)
        gone = Moment()
        lost = bench.reaches(task, "lost")
        assert gone.took() < bench.timeouts["lease_s"] + 3
    assert lost.code == "lost"
    assert lost.reason == ("the node has not been heard of for 5 s: it was switched off, crashed, or lost its network")
    assert bench.reads("n02") == f"partimage-ng: failed: {lost.reason}"
    bench.has_no_remains("golden")
    bench.verifies("golden", 1)
    bench.is_idle("n02")
    assert bench.captured("n02", "golden", plain).version == 2
    bench.verifies("golden", 2)


def test_an_agent_killed_in_the_middle_of_a_restore_is_lost_and_the_disk_does_not_pretend_to_boot(
    bench, golden, tmp_path
):
    task = bench.nodeset("n03", "osimage", "golden:1")
    with target(tmp_path) as disk:
        with bench.booted("n03", disk, task) as agent:
            stopped(agent.pid, "partclone")
            killed(agent)
            lost = bench.reaches(task, "lost")
        assert not pretends_to_boot(disk)
        bench.is_idle("n03")
        assert "has not been heard of for 5 s" in bench.reads("n03")
        assert lost.code == "lost"
        assert bench.do("n03", "osimage", "golden:1", disk).state == "succeeded"


def test_two_dead_agents_leave_their_slots_to_those_who_wait(bench, plain, golden):
    tasks = [bench.nodeset(node, "image", "queued") for node in ("n04", "n05", "n06")]
    bench.reaches(tasks[0], "armed")
    bench.reaches(tasks[1], "armed")
    assert bench.task(tasks[2]).state == "queued", "the site has two slots"
    assert bench.reads("n06") == "queued, waiting for a slot"
    for node, task in zip(("n04", "n05"), tasks, strict=False):
        with bench.booted(node, "/dev/null" if node == "n05" else plain, task) as agent:
            until(lambda task=task: bench.task(task).state != "armed")
            agent.kill()
            agent.wait(60)
    bench.reaches(tasks[0], "lost", "failed")
    bench.reaches(tasks[1], "lost", "failed")
    with bench.booted("n06", plain, tasks[2]) as agent:
        bench.reaches(tasks[2], "succeeded")
        agent.wait(60)
    bench.has_no_remains("queued")


def test_a_worker_that_is_killed_is_answered_for_by_its_agent(bench, plain, golden):
    task = bench.nodeset("n07", "image", "fresh")
    with bench.booted("n07", plain, task) as agent:
        stopped(agent.pid, "partclone")
        os.kill(worker(agent.pid), signal.SIGKILL)
        done = bench.reaches(task, "failed")
        assert bench.unfinished("fresh") == [], "the agent sweeps before it says that it is over"
        assert agent.wait(60) == 8
    assert done.code == "worker-died"
    assert done.reason.startswith("the worker process was ended by SIGKILL")
    assert bench.reads("n07").startswith("partimage-ng: failed: the worker process was ended by SIGKILL")
    bench.is_idle("n07")


def worker(pid):
    """The agent's own child that does the work."""
    for child in descendants(pid):
        if b"litho_agent.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError("no worker")


# ---------------------------------------------------------------- the engine


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_that_dies_in_the_middle_of_a_capture_publishes_nothing(bench, plain, golden, number):
    task = bench.nodeset("n08", "image", "halved")
    with bench.booted("n08", plain, task) as agent:
        engine = stopped(agent.pid, "partclone")
        os.kill(engine, number)
        go_on(engine)
        done = bench.reaches(task, "failed")
        assert agent.wait(60) == 8
    assert done.code == "engine-crashed"
    assert "partclone" in done.reason
    assert number.name in done.reason
    assert f"{plain}p1" in done.reason
    assert bench.reads("n08").startswith("partimage-ng: failed: ")
    assert list(bench.library.glob("halved*")) == []
    bench.is_idle("n08")


def test_an_engine_that_dies_in_the_middle_of_a_restore_leaves_a_disk_that_does_not_boot(bench, golden, tmp_path):
    task = bench.nodeset("n09", "osimage", "golden:1")
    with target(tmp_path) as disk, bench.booted("n09", disk, task) as agent:
        engine = stopped(agent.pid, "partclone")
        os.kill(engine, signal.SIGKILL)
        done = bench.reaches(task, "failed")
        agent.wait(60)
        assert not pretends_to_boot(disk)
        assert (done.code, done.result["touched"]) == ("engine-crashed", True)
        assert "was ended by SIGKILL" in done.reason
        assert f"{disk}p1" in done.reason
    bench.is_idle("n09")


# ---------------------------------------------------------------- broker and controller


def test_a_broker_that_is_killed_in_the_middle_costs_nothing(patient, plain):
    task = patient.nodeset("n10", "image", "brokered")
    with patient.booted("n10", plain, task) as agent:
        engine = stopped(agent.pid, "partclone")
        patient.reaches(task, "running")
        broker = patient.broker()
        os.kill(broker, signal.SIGKILL)
        until(lambda: patient.broker() not in (0, broker), what="the broker is started again")
        go_on(engine)
        done = patient.reaches(task, "succeeded")
        assert agent.wait(60) == 0
    assert (done.percent, done.version) == (100, 1)
    patient.verifies("brokered", 1)
    patient.is_idle("n10")
    assert "brokered" in patient.ask("tabdump", "osimage")


@pytest.mark.parametrize("action", ["image", "osimage"])
def test_a_controller_that_is_killed_in_the_middle_goes_on_with_its_tasks(patient, plain, tmp_path, action):
    with target(tmp_path) as blank:
        image = "outlived" if action == "image" else "brokered"
        task = patient.nodeset("n11", action, image)
        with patient.booted("n11", plain if action == "image" else blank, task) as agent:
            engine = stopped(agent.pid, "partclone")
            patient.reaches(task, "running")
            patient.end(signal.SIGKILL)
            assert alive(agent.pid)
            patient.start()
            assert patient.task(task).state == "running"
            go_on(engine)
            done = patient.reaches(task, "succeeded")
            assert agent.wait(60) == 0
    assert done.percent == 100
    patient.is_idle("n11")
    patient.verifies("outlived" if action == "image" else "brokered", 1)


def test_a_job_that_ends_while_there_is_no_controller_is_told_when_there_is_one_again(patient, plain):
    task = patient.nodeset("n12", "image", "orphan")
    with patient.booted("n12", plain, task) as agent:
        engine = stopped(agent.pid, "partclone")
        patient.reaches(task, "running")
        patient.end(signal.SIGKILL)
        go_on(engine)
        until((patient.library / "orphan.json").exists, what="the image is published")
        until(lambda: not below(agent.pid, "partclone"))
        assert alive(agent.pid), "nobody knows yet how it ended"
        patient.start()
        assert patient.reaches(task, "succeeded").version == 1
        assert agent.wait(60) == 0
    patient.verifies("orphan", 1)
    patient.is_idle("n12")


# ---------------------------------------------------------------- cancel


def test_a_capture_that_is_cancelled_ends_within_two_seconds_with_nothing_left(bench, plain, golden):
    task = bench.nodeset("n13", "image", "unwanted")
    with bench.booted("n13", plain, task) as agent:
        stopped(agent.pid, "partclone")
        bench.reaches(task, "running")
        began = Moment()
        assert bench.client.cancel(task).cancel_requested
        done = bench.reaches(task, "cancelled")
        assert began.took() < 2.5
        assert agent.wait(60) == 10
    assert (done.code, done.reason) == ("cancelled", "cancelled on request")
    assert bench.reads("n13") == "partimage-ng: failed: cancelled on request"
    assert list(bench.library.glob("unwanted*")) == []
    bench.is_idle("n13")


def test_a_restore_that_is_cancelled_ends_within_two_seconds_and_says_that_the_disk_was_touched(
    bench, golden, tmp_path
):
    task = bench.nodeset("n14", "osimage", "golden:1")
    with target(tmp_path) as disk, bench.booted("n14", disk, task) as agent:
        stopped(agent.pid, "partclone")
        bench.reaches(task, "running")
        began = Moment()
        bench.client.cancel(task)
        done = bench.reaches(task, "cancelled")
        assert began.took() < 2.5
        agent.wait(60)
        assert done.result["touched"]
        assert bench.reads("n14") == "partimage-ng: failed: cancelled on request"
        assert not pretends_to_boot(disk)
    bench.is_idle("n14")


def test_a_task_that_waits_is_cancelled_at_once_and_its_node_can_no_longer_claim_it(bench, plain, golden, tmp_path):
    task = bench.nodeset("n15", "osimage", "golden:1")
    bench.reaches(task, "armed")
    words = (bench.state / "boot" / "n15.cmdline").read_text()
    assert bench.client.cancel(task).state == "cancelled"
    bench.is_idle("n15")
    assert bench.reads("n15") == "boot"
    (bench.state / "boot" / "n15.cmdline").write_text(words)
    with target(tmp_path) as disk:
        before = digest(disk)
        with bench.agent("n15", disk) as agent:
            assert agent.wait(60) == 4
        assert digest(disk) == before
    (bench.state / "boot" / "n15.cmdline").unlink()
    assert f"the task {task} has ended (cancelled)" in (bench.root / "agent-n15.log").read_text()
