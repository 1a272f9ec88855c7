"""The agent against a real broker and a real HTTP claim; only the worker is a stand-in, and the controller a small one."""

import asyncio
import io
import signal
import socket
from pathlib import Path

import aiomqtt
import msgspec
import pytest

from litho import messages
from litho.errors import CancelledError, RefusedError, UnreachableError, WireError
from litho.job import Job
from litho.library import Library
from litho.messages import Ack, Cancel, Failed, Finish, Planned, Started, Stop, Stopped
from litho.task import Outcome, State
from litho_agent import claim, health, node
from litho_agent.boot import Settings
from litho_agent.finish import NoPower
from litho_agent.node import Limits
from litho_agent.report.console import Console
from litho_agent.report.mqtt import MqttReporter
from support.nodebench import (
    DISK,
    DONE,
    ClaimServer,
    Controller,
    Mosquitto,
    ScriptedMove,
    an_order,
    beside,
    denied,
    free_port,
    granted,
    until,
)

LIMITS = Limits(claim_s=10, acknowledge_s=20, finish_s=10, term_s=2, resend_s=0.3)
TOKEN = "a-token-that-nobody-may-see"


class Bench:
    """One agent and what it says on the screen."""

    def __init__(self, library):
        self.library = library
        self.screen = io.StringIO()
        self.terminate = asyncio.Event()
        self.power = NoPower()

    async def agent(self, url, move, *, limits=LIMITS, **wishes):
        settings = settings_for(url, **wishes)
        return await node.run(
            settings,
            show=Console(self.screen, live=False),
            terminate=self.terminate,
            move=move,
            power=self.power,
            in_rootimg=True,
            limits=limits,
        )


def settings_for(url, **wishes):
    return Settings(controller=url, task="t1", token=TOKEN, node="n01", **wishes)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    # Pauses between tries are the rule of `backoff`, tested there; here they would only cost time.
    monkeypatch.setattr("litho_agent.backoff.FIRST_S", 0.05)
    monkeypatch.setattr(claim.backoff, "pause", lambda tries: 0.05)
    Library.create(tmp_path / "lib")
    return Bench(tmp_path / "lib")


@pytest.fixture
async def broker(tmp_path):
    async with Mosquitto(tmp_path) as running:
        yield running


async def test_a_capture_goes_from_claim_to_reboot_and_every_word_arrives_once_and_in_order(bench, broker):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await until(lambda: len(controller.reports) >= 2)
        move.go.set()
        assert await asyncio.wait_for(agent, 60) == 0
        await until(lambda: not controller.statuses[-1].online)

    assert server.paths == ["POST /v1/claim HTTP/1.1"]
    assert [request.token for request in server.claims] == [TOKEN]
    assert server.claims[0].inventory["cpu"]["count"] >= 1
    assert controller.task.state is State.SUCCEEDED
    assert [event.seq for event in controller.events] == [2, 3, 4]
    assert [event.body for event in controller.events] == [
        Planned(disk=DISK, steps=("save 3 partitions",), total=1000),
        Started(),
        DONE,
    ]
    assert [report.n for report in controller.reports] == sorted({report.n for report in controller.reports})
    assert len(controller.reports) >= 2
    assert controller.reports[-1].line.startswith("partimage-ng: partition 1 of 3, ")
    assert controller.statuses[0].online
    assert bench.power.deeds == ["reboot"]
    # What the worker was handed.
    assert move.orders[0].library == str(bench.library)
    assert move.orders[0].job == order.job
    assert move.orders[0].owner.session == controller.session == server.claims[0].session
    assert (move.orders[0].owner.node, move.orders[0].owner.task) == ("n01", "t1")


async def test_what_a_failing_disk_says_of_itself_stands_with_the_end_of_the_task(bench, broker, monkeypatch):
    monkeypatch.setattr(health.Watcher, "warning", lambda _: "the disk /dev/sda says of itself that it is failing")
    order = an_order(bench.library, broker.port)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await asyncio.wait_for(bench.agent(server.url, ScriptedMove()), 60) == 0
    notes = ("the disk /dev/sda says of itself that it is failing",)
    assert controller.events[-1].body == msgspec.structs.replace(DONE, notes=notes)


async def test_the_status_is_retained_and_a_later_listener_finds_the_node_offline(bench, broker):
    order = an_order(bench.library, broker.port)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)):
        await bench.agent(server.url, ScriptedMove())
    async with aiomqtt.Client("127.0.0.1", broker.port) as late:
        await late.subscribe("litho/v1/lab/node/n01/status")
        async with asyncio.timeout(60):
            message = await anext(aiter(late.messages))
    status = messages.decode(message.payload, messages.Status)
    assert message.retain
    assert (status.online, status.task, status.node) == (False, "t1", "n01")


async def test_the_kernel_command_line_fills_what_the_order_leaves_open_and_the_order_wins(bench, broker):
    job = Job(action="capture", image="golden", engine="partimage")
    order = an_order(bench.library, broker.port, job=job)
    move = ScriptedMove()
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)):
        wishes = {"engine": "raw", "disk": "sdb", "then": "poweroff", "level": 7, "allow": ("removable",)}
        await bench.agent(server.url, move, **wishes)
    done = move.orders[0].job
    assert (done.engine, done.disk, done.then, done.level) == ("partimage", "sdb", "poweroff", 7)
    assert done.allow == ("removable",)
    assert (done.compress, done.fit) == ("zstd", "keep")
    assert bench.power.deeds == ["poweroff"]


@pytest.mark.parametrize("kill", [False, True])
async def test_a_broker_that_restarts_in_the_middle_without_its_state_loses_nothing_and_slows_nothing(
    bench, broker, kill
):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await until(lambda: len(controller.reports) >= 1)
        await broker.stop(kill=kill)
        move.go.set()
        # The work ends while nobody listens.
        await asyncio.wait_for(move.ended.wait(), 60)
        await asyncio.sleep(0.3)
        assert not agent.done()
        await broker.start()
        assert await asyncio.wait_for(agent, 60) == 0
    assert controller.task.state is State.SUCCEEDED
    assert controller.events[-1].body == DONE
    assert bench.power.deeds == ["reboot"]


async def test_a_broker_that_freezes_with_its_connections_open_is_left_and_found_again(bench, broker, monkeypatch):
    monkeypatch.setattr("litho_agent.report.mqtt.ANSWER_S", 0.3)
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await until(lambda: len(controller.reports) >= 1)
        broker.freeze(signal.SIGSTOP)
        try:
            move.go.set()
            await asyncio.wait_for(move.ended.wait(), 60)
            await asyncio.sleep(1.5)
            assert not agent.done()
        finally:
            broker.freeze(signal.SIGCONT)
        assert await asyncio.wait_for(agent, 60) == 0
    assert controller.task.state is State.SUCCEEDED
    assert Outcome.GAP not in controller.outcomes


async def test_a_broker_that_comes_only_after_the_work_is_done_still_hears_all_of_it(bench, tmp_path):
    late = Mosquitto(tmp_path)
    order = an_order(bench.library, late.port)
    move = ScriptedMove()
    async with ClaimServer(granted(order)) as server:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await asyncio.wait_for(move.ended.wait(), 60)
        async with late, beside(Controller(order, late.port)) as controller:
            assert await asyncio.wait_for(agent, 60) == 0
    assert [event.seq for event in controller.events][:3] == [2, 3, 4]
    assert controller.task.state is State.SUCCEEDED


async def test_everything_said_twice_moves_the_task_once(bench, broker):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    controller = Controller(order, broker.port, copies=2, acks=False)
    async with ClaimServer(granted(order)) as server, beside(controller):
        agent = asyncio.create_task(bench.agent(server.url, move))
        # Nobody acknowledges: the agent says both again, in order.
        await until(lambda: [event.seq for event in controller.events][:6] == [2, 3, 2, 3, 2, 3])
        assert controller.outcomes[:4] == [Outcome.MOVED, Outcome.MOVED, Outcome.DUPLICATE, Outcome.DUPLICATE]
        controller.acks = True
        await until(lambda: len(controller.events) >= 8)
        quiet = len(controller.events)
        await asyncio.sleep(1.0)
        assert len(controller.events) <= quiet + 2
        move.go.set()
        assert await asyncio.wait_for(agent, 60) == 0
    assert controller.task.state is State.SUCCEEDED
    assert bench.power.deeds == ["reboot"]


async def test_a_cancel_stops_the_worker_and_the_end_carries_its_reason(bench, broker):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port, copies=2)) as controller:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await until(lambda: controller.task.state is State.RUNNING)
        await controller.say(Cancel(reason="the rack is needed"))
        assert await asyncio.wait_for(agent, 60) == 10
    assert controller.task.state is State.CANCELLED
    assert controller.task.reason == "the rack is needed"
    assert controller.events[-1].body == Stopped(reason="the rack is needed", touched=True)
    assert "stopping: the rack is needed" in bench.screen.getvalue()


async def test_a_session_that_is_told_to_stop_says_nothing_more_and_the_node_stays(bench, broker):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await until(lambda: controller.task.state is State.RUNNING)
        before = len(controller.events)
        await controller.say(Stop(reason="another session holds the task"))
        assert await asyncio.wait_for(agent, 60) == 4
        await asyncio.sleep(0.5)
        assert len(controller.events) == before
    assert bench.power.deeds == []
    assert "the controller stopped this session: another session holds the task" in bench.screen.getvalue()


async def test_a_failure_is_told_with_its_code_and_becomes_the_exit_code(bench, broker):
    order = an_order(bench.library, broker.port)
    failed = Failed(code="disk-missing", reason="there is no disk sdx", exit_code=5)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await bench.agent(server.url, ScriptedMove(failed)) == 5
    assert (controller.task.state, controller.task.code) == (State.FAILED, "disk-missing")
    assert "failed: there is no disk sdx" in bench.screen.getvalue()


async def test_a_library_that_is_none_fails_the_task_before_any_worker_starts(bench, broker, tmp_path):
    order = an_order(tmp_path / "nothing-there", broker.port)
    move = ScriptedMove()
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await bench.agent(server.url, move) == 6
    assert move.orders == []
    assert (controller.task.state, controller.task.code) == (State.FAILED, "library-missing")
    assert "is not an image library" in controller.task.reason


async def test_a_crash_of_the_agents_own_code_is_still_told(bench, broker):
    async def broken(order, hear, cancel):
        raise ZeroDivisionError("oops")

    order = an_order(bench.library, broker.port)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await bench.agent(server.url, broken) == 1
    assert (controller.task.state, controller.task.code) == (State.FAILED, "internal")


async def test_sigterm_stops_the_work_tells_the_end_and_leaves_the_node_alone(bench, broker):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await until(lambda: controller.task.state is State.RUNNING)
        bench.terminate.set()
        assert await asyncio.wait_for(agent, 60) == 10
        await until(lambda: controller.task.state is State.CANCELLED)
    assert "SIGTERM" in controller.task.reason
    assert bench.power.deeds == []


async def test_without_a_word_to_go_on_the_node_goes_on_after_the_documented_time(bench, broker):
    order = an_order(bench.library, broker.port)
    limits = msgspec.structs.replace(LIMITS, finish_s=0.5)
    controller = Controller(order, broker.port, finishes=False)
    async with ClaimServer(granted(order)) as server, beside(controller):
        assert await asyncio.wait_for(bench.agent(server.url, ScriptedMove(), limits=limits), 60) == 0
    assert bench.power.deeds == ["reboot"]
    assert "no word to go on came" in bench.screen.getvalue()


async def test_an_end_that_nobody_acknowledges_keeps_the_node_where_it_is(bench, broker):
    order = an_order(bench.library, broker.port)
    limits = msgspec.structs.replace(LIMITS, acknowledge_s=1.0)
    controller = Controller(order, broker.port, acks=False)
    async with ClaimServer(granted(order)) as server, beside(controller):
        assert await asyncio.wait_for(bench.agent(server.url, ScriptedMove(), limits=limits), 60) == 9
    assert bench.power.deeds == []
    assert "never acknowledged" in bench.screen.getvalue()


async def test_commands_for_others_and_junk_move_nothing(bench, broker):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        agent = asyncio.create_task(bench.agent(server.url, move))
        await until(lambda: controller.task.state is State.RUNNING)
        await controller.say(Cancel(), session="f" * 32)
        await controller.say(Stop(reason="x"), task_id="t2")
        await controller.say(Ack(seq=2**40))
        for payload in (
            b"",
            b"{",
            b"null",
            b"\xff" * 1000,
            b"x" * 300_000,
            b'{"v":2}',
            b'{"v":1,"body":{"type":"reboot"}}',
        ):
            await controller.raw(payload)
        await asyncio.sleep(0.5)
        assert not agent.done()
        assert not move.ended.is_set()
        move.go.set()
        assert await asyncio.wait_for(agent, 60) == 0
    assert controller.task.state is State.SUCCEEDED


async def test_the_credentials_of_the_order_open_a_broker_that_asks_for_them(bench, tmp_path):
    secret = "not-for-any-screen"
    async with Mosquitto(tmp_path, password=secret) as guarded:
        order = an_order(bench.library, guarded.port, username="n01", password=secret)
        async with ClaimServer(granted(order)) as server, beside(Controller(order, guarded.port)) as controller:
            assert await bench.agent(server.url, ScriptedMove()) == 0
    assert controller.task.state is State.SUCCEEDED
    assert secret not in bench.screen.getvalue()
    assert TOKEN not in bench.screen.getvalue()


async def test_a_restore_that_went_well_sends_its_log_with_its_end(bench, broker):
    order = an_order(bench.library, broker.port, job=Job(action="restore", image="golden"))
    async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
        assert await asyncio.wait_for(bench.agent(server.url, ScriptedMove()), 60) == 0
    end = controller.events[-1].body
    assert "save 3 partitions" in end.log
    assert msgspec.structs.replace(end, log="") == DONE


async def test_wrong_credentials_do_not_stop_the_work(bench, tmp_path, caplog):
    async with Mosquitto(tmp_path, password="right") as guarded:
        order = an_order(bench.library, guarded.port, username="n01", password="a-wrong-secret")
        limits = msgspec.structs.replace(LIMITS, acknowledge_s=1.0)
        move = ScriptedMove()
        async with ClaimServer(granted(order)) as server:
            assert await bench.agent(server.url, move, limits=limits) == 9
    assert move.ended.is_set()
    assert "a-wrong-secret" not in caplog.text


async def test_of_several_brokers_one_that_lives_is_found(bench, broker, tmp_path, monkeypatch):
    monkeypatch.setattr("litho_agent.report.mqtt.ANSWER_S", 0.3)
    # One refuses connections, one takes them and never says a word.
    mute = socket.create_server(("127.0.0.1", 0))
    order = an_order(bench.library, free_port(), mute.getsockname()[1], broker.port)
    try:
        async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
            assert await asyncio.wait_for(bench.agent(server.url, ScriptedMove()), 60) == 0
    finally:
        mute.close()
    assert controller.task.state is State.SUCCEEDED


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_brokers_that_never_answer_leak_no_descriptors(bench, monkeypatch):
    monkeypatch.setattr("litho_agent.report.mqtt.ANSWER_S", 0.05)
    mute = socket.create_server(("127.0.0.1", 0), backlog=200)
    session = MqttReporter(an_order(bench.library, mute.getsockname()[1]), "s" * 32, obey=lambda _: None)
    running = asyncio.create_task(session.run())
    await asyncio.sleep(0.5)
    early = descriptors()
    await asyncio.sleep(2.0)
    late = descriptors()
    session.close()
    await asyncio.wait_for(running, 60)
    mute.close()
    assert late <= early + 2


async def test_an_answer_that_was_lost_is_asked_for_again_by_the_same_session(bench, broker):
    order = an_order(bench.library, broker.port)
    answers = (None, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{", (503, b""), granted(order))
    async with ClaimServer(*answers) as server, beside(Controller(order, broker.port)) as controller:
        assert await bench.agent(server.url, ScriptedMove()) == 0
    assert len(server.claims) == 4
    assert len({request.session for request in server.claims}) == 1
    assert controller.session == server.claims[0].session
    said = bench.screen.getvalue()
    assert "broke off in the middle of its answer; trying again" in said
    assert "cannot take the claim now (HTTP 503); trying again" in said


async def test_a_claim_that_is_refused_ends_the_agent_at_once_and_the_node_stays(bench):
    async with ClaimServer(denied("token-used", "the token of task t1 was used", "say nodeset again")) as server:
        with pytest.raises(RefusedError) as caught:
            await bench.agent(server.url, ScriptedMove())
    assert (caught.value.exit_code, caught.value.code) == (4, "token-used")
    assert "the token of task t1 was used" in str(caught.value)
    assert len(server.claims) == 1
    assert bench.power.deeds == []


async def test_a_controller_that_answers_nonsense_is_given_up_with_a_sentence(bench):
    async with ClaimServer((200, b"<html>please log in</html>")) as server:
        with pytest.raises(WireError, match="something else than an order") as caught:
            await bench.agent(server.url, ScriptedMove())
    assert "check that the address is the controller's" in caught.value.hint
    assert len(server.claims) == claim.WRONG_ANSWERS


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"x" * 400_000),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        (200, messages.encode(messages.Problem(code="x", message="y"))),
    ],
)
async def test_too_much_a_redirect_or_another_message_is_no_order(bench, answer):
    async with ClaimServer(answer) as server:
        with pytest.raises(WireError):
            await bench.agent(server.url, ScriptedMove())
        assert len(server.claims) == claim.WRONG_ANSWERS


@pytest.mark.parametrize(
    "answer", [b"\x00\x01\x02 nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"]
)
async def test_a_peer_that_does_not_speak_http_is_tried_again_and_then_unreachable(bench, answer):
    limits = msgspec.structs.replace(LIMITS, claim_s=0.3)
    async with ClaimServer(answer) as server:
        with pytest.raises(UnreachableError, match="no controller answered"):
            await bench.agent(server.url, ScriptedMove(), limits=limits)


async def test_a_controller_that_is_away_is_waited_for_and_then_given_up(bench):
    limits = msgspec.structs.replace(LIMITS, claim_s=0.4)
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError) as caught:
        await bench.agent(url, ScriptedMove(), limits=limits)
    assert caught.value.exit_code == 9
    assert url in caught.value.message
    assert "Connection refused; trying again" in bench.screen.getvalue().replace(
        "(Connection refused)", "Connection refused"
    )


async def test_a_peer_that_drips_one_byte_at_a_time_is_cut_off_at_the_deadline(bench):
    hung_up = asyncio.Event()

    async def drip(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.05)
        hung_up.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    request = messages.ClaimRequest(node="n01", task="t1", token=TOKEN, session="s" * 32)
    said: list[str] = []
    begun = asyncio.get_running_loop().time()
    with pytest.raises(UnreachableError):
        await claim.claim(url, request, say=said.append, give_up_s=0.0, attempt_s=0.4)
    assert asyncio.get_running_loop().time() - begun < 30
    await asyncio.wait_for(hung_up.wait(), 60)
    server.close()
    await server.wait_closed()


async def test_sigterm_ends_an_agent_that_waits_for_its_controller(bench):
    mute = socket.create_server(("127.0.0.1", 0))
    agent = asyncio.create_task(bench.agent(f"http://127.0.0.1:{mute.getsockname()[1]}", ScriptedMove()))
    await asyncio.sleep(0.2)
    bench.terminate.set()
    with pytest.raises(CancelledError):
        await asyncio.wait_for(agent, 60)
    mute.close()


async def test_a_finish_that_comes_twice_or_early_is_no_problem(bench, broker):
    order = an_order(bench.library, broker.port)
    move = ScriptedMove(hold=True)
    async with (
        ClaimServer(granted(order)) as server,
        beside(Controller(order, broker.port, finishes=False)) as controller,
    ):
        agent = asyncio.create_task(bench.agent(server.url, move))
        await until(lambda: controller.task.state is State.RUNNING)
        await controller.say(Finish())
        await controller.say(Finish())
        await asyncio.sleep(0.2)
        assert not agent.done()
        move.go.set()
        assert await asyncio.wait_for(agent, 60) == 0
    assert controller.task.state is State.SUCCEEDED
