"""What an agent tells besides its events: port 3001, hooks, the job's log, its health. Real broker, real sockets, real hooks."""

import asyncio
import contextlib
import io

import pytest

from litho.job import Job
from litho.library import Library
from litho.messages import MAX_LOG, Cancel, Failed, Stopped
from litho.task import State
from litho_agent import claim, node
from litho_agent.boot import Settings
from litho_agent.finish import NoPower
from litho_agent.hooks import Hooks
from litho_agent.node import Limits
from litho_agent.report.console import Console
from support.nodebench import (
    DONE,
    ClaimServer,
    Controller,
    Mosquitto,
    ScriptedMove,
    an_order,
    beside,
    free_port,
    granted,
    until,
)
from support.pace import Moment

LIMITS = Limits(claim_s=10, acknowledge_s=20, finish_s=10, term_s=2, resend_s=0.3)


class Bench:
    def __init__(self, room):
        self.library = room / "lib"
        self.hooks = room / "hooks"
        self.port = free_port()
        self.screen = io.StringIO()

    def hook(self, when, name, text):
        folder = self.hooks / f"{when}.d"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    async def agent(self, url, move):
        settings = Settings(controller=url, task="t1", token="x" * 16, node="n01", port=self.port)
        return await node.run(
            settings,
            show=Console(self.screen, live=False),
            terminate=asyncio.Event(),
            move=move,
            power=NoPower(),
            in_rootimg=True,
            limits=LIMITS,
            hooks=Hooks(self.hooks),
        )

    async def line(self):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return None
        writer.write(b"stat \n")
        said = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return said.decode()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(claim.backoff, "pause", lambda tries: 0.05)
    Library.create(tmp_path / "lib")
    return Bench(tmp_path)


@pytest.fixture
async def broker(tmp_path):
    async with Mosquitto(tmp_path) as running:
        yield running


async def test_port_3001_follows_the_job_and_ends_with_the_word_that_old_vcl_waits_for(bench, broker):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port, finishes=False)) as control:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await move.started.wait()
        await until(lambda: bool(control.reports))
        said = await bench.line()
        assert said is not None
        assert said.startswith("partimage-ng: partition 1 of 3, ")
        move.go.set()
        await until(lambda: control.task.state is State.SUCCEEDED)
        assert await bench.line() == "partimage-ng: complete\n"
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)
    assert await bench.line() is None, "the port goes with the agent"


async def test_a_failure_is_on_the_port_and_the_log_travels_with_it(bench, broker):
    bench.hook("before", "10-look", "echo 'the controller has two disks'")
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(Failed(code="disk", reason="the boot disk is gone", exit_code=5))
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await asyncio.wait_for(bench.agent(server.url, move), 60) == 5
    failed = controller.events[-1].body
    assert isinstance(failed, Failed)
    assert (failed.code, failed.reason) == ("disk", "the boot disk is gone")
    assert 0 < len(failed.log) <= MAX_LOG
    for words in ("10-look: the controller has two disks", "plan: disk /dev/sda", "failed: the boot disk is gone"):
        assert words in failed.log
    assert "x" * 16 not in failed.log, "the token is in no log"
    assert "the controller has two disks" not in bench.screen.getvalue(), "the console stays readable"


async def test_hooks_run_around_the_job_and_know_its_disk_and_end(bench, broker, tmp_path):
    bench.hook("before", "10-a", f'echo "$LITHO_HOOK [$LITHO_DISK] $LITHO_NODE $LITHO_TASK" >> {tmp_path}/out')
    bench.hook("after", "10-b", f'echo "$LITHO_HOOK $LITHO_DISK $LITHO_STATE $LITHO_VERSION" >> {tmp_path}/out; exit 9')
    order = an_order(bench.library, broker.port, job=Job(action="capture", image="golden", disk="serial=S1"))
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await asyncio.wait_for(bench.agent(server.url, ScriptedMove()), 60) == 0
    assert (tmp_path / "out").read_text() == "before [serial=S1] n01 t1\nafter /dev/sda succeeded 1\n"
    done = controller.events[-1].body
    assert done.notes[:-1] == DONE.notes
    assert "10-b after the job ended with exit code 9" in done.notes[-1]


async def test_a_hook_that_fails_stops_the_job_before_any_worker(bench, broker):
    bench.hook("before", "10-raid", "echo no array; exit 1")
    order = an_order(bench.library, broker.port)
    move = ScriptedMove()
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await asyncio.wait_for(bench.agent(server.url, move), 60) == 8
    assert move.orders == []
    assert controller.task.state is State.FAILED
    assert controller.events[-1].body.code == "hook-failed"
    assert "the hook 10-raid before the job ended with exit code 1 (no array)" in controller.events[-1].body.reason


async def test_a_cancel_in_a_hook_ends_within_two_seconds(bench, broker, tmp_path):
    bench.hook("before", "10-slow", f"trap '' TERM; touch {tmp_path}/begun; sleep 300")
    order = an_order(bench.library, broker.port)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        agent = asyncio.create_task(bench.agent(server.url, ScriptedMove()))
        await until(lambda: (tmp_path / "begun").exists() and bool(controller.statuses))
        began = Moment()
        await controller.say(Cancel(reason="not today"))
        await until(lambda: controller.task.state is State.CANCELLED)
        assert began.took() < 2.0
        assert isinstance(controller.events[-1].body, Stopped)
        assert controller.events[-1].body.reason == "not today"
        assert await asyncio.wait_for(agent, 60) == 10


async def test_the_claim_lists_the_disks_and_each_status_carries_the_health(bench, broker):
    order = an_order(bench.library, broker.port)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await asyncio.wait_for(bench.agent(server.url, ScriptedMove()), 60) == 0
        await until(lambda: not controller.statuses[-1].online)
    disks = server.claims[0].inventory["disks"]
    assert all({"name", "size", "serial", "transport", "rotational"} <= set(disk) for disk in disks)
    assert len(disks) >= 1
    healthy = [status.health for status in controller.statuses if status.online]
    assert len(healthy) >= 1
    assert all(health is not None and health.memory > 0 and health.agent > 0 for health in healthy)
    assert controller.statuses[-1].health is None
