"""Who may speak to the embedded broker and say what, with real clients; and what hostile ones achieve: nothing."""

import asyncio
import contextlib
import os
import signal

import aiomqtt
import pytest

from litho import messages
from litho.messages import Ack, Command, EventReport, Failed, Finish, Status
from litho_controller import broker_files
from litho_controller.broker import EmbeddedBroker
from support.controller import Agent, Controller, until
from support.desk import DONE, PLANNED, STARTED

QUICK = {"timeouts": {"lease_s": 5.0, "heartbeat_s": 0.5}}


@pytest.fixture
async def controller(tmp_path):
    async with Controller(tmp_path, **QUICK) as running:
        await running.define("n01,n02")
        yield running


@pytest.fixture
async def broker(tmp_path):
    made = EmbeddedBroker(tmp_path / "broker", site="default", host="127.0.0.1", port=0)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def client(broker, username, password, **changes):
    settings = {
        "hostname": "127.0.0.1",
        "port": broker.port,
        "username": username,
        "password": password,
        "timeout": 2.0,
    }
    return aiomqtt.Client(**(settings | changes))


async def heard(client, count=0, *, quiet_s=0.5):
    """Topics and payloads that arrive: `count`, however long that takes, and all that come before there is quiet for a while."""
    found = []
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60 if count else quiet_s) as limit:
            async for message in client.messages:
                found.append((message.topic.value, message.payload))
                if len(found) >= count:
                    limit.reschedule(loop.time() + quiet_s)
    return found


# ---------------------------------------------------------------- accounts


@pytest.mark.parametrize(("username", "password"), [(None, None), ("n01", "wrong"), ("nobody", "secret"), ("n01", "")])
async def test_nobody_comes_in_without_an_account(broker, username, password):
    await broker.allow({"n01": "secret"})
    with pytest.raises(aiomqtt.MqttError):
        async with client(broker, username, password):
            pass
    async with client(broker, "n01", "secret"):
        pass


async def test_an_account_holds_from_the_moment_that_allow_returns_until_it_is_taken_away(broker):
    for round_ in range(10):
        await broker.allow({"n01": f"secret-{round_}"})
        async with client(broker, "n01", f"secret-{round_}"):
            pass
    await broker.allow({"n02": "secret"})
    with pytest.raises(aiomqtt.MqttError):
        async with client(broker, "n01", "secret-9"):
            pass


async def test_a_client_whose_account_is_taken_away_is_put_out_and_the_others_stay(broker):
    await broker.allow({"n01": "one", "n02": "two"})
    async with client(broker, "n02", "two") as staying:
        with pytest.raises(aiomqtt.MqttError):
            async with client(broker, "n01", "one") as leaving:
                await broker.allow({"n02": "two"})
                async with asyncio.timeout(5):
                    async for _ in leaving.messages:
                        pass
        await staying.publish(messages.topic("default", "n02", "status"), b"{}", qos=1)


async def test_accounts_outlive_a_restart_of_the_broker(broker):
    await broker.allow({"n01": "one"})
    watching = asyncio.create_task(broker.run())
    before = broker.pid
    os.kill(before, signal.SIGKILL)
    await until(lambda: broker.pid not in (0, before))

    async def comes_in():
        with contextlib.suppress(aiomqtt.MqttError):
            async with client(broker, "n01", "one"):
                return True
        return False

    await until(comes_in)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


# ---------------------------------------------------------------- rules


async def test_a_node_writes_its_own_topics_and_no_others(broker):
    await broker.allow({"n01": "one", "n02": "two"})
    async with client(broker, broker.username, broker.password) as controller, client(broker, "n01", "one") as node:
        await controller.subscribe("litho/v1/default/node/#", qos=1)
        for topic in (
            messages.topic("default", "n02", "status"),
            messages.topic("default", "n02", "event"),
            messages.topic("default", "n02", "progress"),
            messages.topic("default", "n02", "command"),
            messages.topic("default", "n01", "command"),
            messages.topic("other", "n01", "event"),
            "litho/v1/default/node/n01/event/more",
            "litho/v1/default/node/n01",
            "$SYS/broker/x",
            "anything",
        ):
            await node.publish(topic, b"not mine", qos=1)
        own = [messages.topic("default", "n01", kind) for kind in ("status", "progress", "event")]
        for topic in own:
            await node.publish(topic, b"mine", qos=1)
        assert await heard(controller, len(own)) == [(topic, b"mine") for topic in own]


async def test_a_node_reads_its_own_commands_and_nothing_else(broker):
    await broker.allow({"n01": "one", "n02": "two"})
    async with client(broker, broker.username, broker.password) as controller, client(broker, "n01", "one") as node:
        await node.subscribe("#", qos=1)
        await node.subscribe("litho/v1/default/node/+/command", qos=1)
        for name in ("n01", "n02"):
            for kind in ("command", "event", "status", "progress"):
                await controller.publish(messages.topic("default", name, kind), name.encode(), qos=1)
        got = {topic for topic, _ in await heard(node, 2)}
        assert got == {messages.topic("default", "n01", "command")}


async def test_nobody_takes_the_controllers_place(broker):
    """A client that calls itself as the controller does would otherwise end the controller's session and get its messages."""
    await broker.allow({"n01": "one"})
    name = {"identifier": broker.username, "clean_session": False}
    async with client(broker, broker.username, broker.password, **name) as controller:
        await controller.subscribe("litho/v1/default/node/+/event", qos=1)
        async with client(broker, "n01", "one", **name) as thief:
            await thief.publish(messages.topic("default", "n01", "event"), b"x", qos=1)
            assert await heard(controller, 1) == [(messages.topic("default", "n01", "event"), b"x")]
            assert await heard(thief) == []


async def test_what_waits_for_the_controller_outlives_a_restart_of_the_broker(broker):
    await broker.allow({"n01": "one"})
    mine = {"identifier": broker.username, "clean_session": False}
    event = messages.topic("default", "n01", "event")
    async with client(broker, broker.username, broker.password, **mine) as controller:
        await controller.subscribe(event, qos=1)
    async with client(broker, "n01", "one") as node:
        for number in range(2000):
            await node.publish(event, str(number).encode(), qos=1)
    await broker.stop()
    await broker.start()
    async with client(broker, broker.username, broker.password, **mine) as controller:
        assert [payload for _, payload in await heard(controller, 2000)] == [str(n).encode() for n in range(2000)]


async def test_what_waits_for_an_absent_controller_is_bounded_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(broker_files, "MAX_QUEUED_BYTES", 1024 * 1024)
    broker = EmbeddedBroker(tmp_path / "broker", site="default", host="127.0.0.1", port=0)
    await broker.start()
    try:
        await broker.allow({"n01": "one"})
        mine = {"identifier": broker.username, "clean_session": False}
        event = messages.topic("default", "n01", "event")
        async with client(broker, broker.username, broker.password, **mine) as controller:
            await controller.subscribe(event, qos=1)
        async with client(broker, "n01", "one") as node:
            for number in range(20):
                await node.publish(event, bytes([number]) * 200_000, qos=1)
        async with client(broker, broker.username, broker.password, **mine) as controller:
            kept = [payload[0] for _, payload in await heard(controller, 4, quiet_s=2.0)]
        # The oldest are kept, in their order; what does not fit is dropped, and the broker goes on.
        assert kept == list(range(len(kept)))
        assert 4 <= len(kept) <= 7
    finally:
        await broker.stop()


# ---------------------------------------------------------------- hostile agents, whole controller


async def test_a_node_with_an_account_cannot_end_another_nodes_task(controller):
    await controller.nodeset("n01,n02", "image", "golden")
    async with Agent(controller, "n01").online() as victim, Agent(controller, "n02").online() as thief:
        await victim.say(PLANNED, STARTED)
        lie = EventReport(
            node="n01", session=victim.session, task=victim.task, seq=4, body=Failed(code="lie", reason="a lie")
        )
        gone = Status(node="n01", session=victim.session, online=False, task=victim.task)
        for node in ("n01", "n02"):
            await thief.raw(thief.topic("event", node), messages.encode(lie))
            await thief.raw(thief.topic("status", node), messages.encode(gone))
        # In its own name for the other's task: its own topic, so the broker lets it through, and it is told to stop.
        mine = EventReport(
            node="n02", session=victim.session, task=victim.task, seq=4, body=Failed(code="lie", reason="a lie")
        )
        await thief.raw(thief.topic("event"), messages.encode(mine))
        await victim.say(DONE)
    assert (await controller.reaches(victim.task, "succeeded")).reason == ""
    assert (await controller.task(thief.task)).state == "claimed"
    assert "dropped (node" in controller.log.read_text()


async def test_a_flood_of_junk_disturbs_nobody(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    async with Agent(controller, "n01").online() as agent:
        await agent.say(PLANNED)
        junk = [b"", b"{", b"\xff\xfe", b"[" * 50_000, b'{"v":1}', b"x" * 300_000, b'{"v":1,"node":"n01\\u0000"}']
        for number in range(700):
            for kind in ("status", "event", "progress"):
                await agent.raw(agent.topic(kind), junk[number % len(junk)], qos=0)
        await agent.say(STARTED, DONE)
        await agent.hears(Finish)
    await controller.reaches(line.task, "succeeded")
    told = [line for line in controller.log.read_text().splitlines() if "dropped (payload" in line]
    assert 1 <= len(told) <= 3
    assert "Traceback" not in controller.log.read_text()


async def test_numbers_that_are_doubled_skipped_or_late_end_in_the_same_truth(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    async with Agent(controller, "n01").online() as agent:

        def event(seq, body):
            return messages.encode(EventReport(node="n01", session=agent.session, task=agent.task, seq=seq, body=body))

        order = [
            (4, DONE),
            (3, STARTED),
            (3, STARTED),
            (2, PLANNED),
            (4, DONE),
            (2, PLANNED),
            (3, STARTED),
            (2, PLANNED),
        ]
        for seq, body in order:
            await agent.raw(agent.topic("event"), event(seq, body))
        await controller.reaches(line.task, "running")
        for _ in range(3):
            await agent.raw(agent.topic("event"), event(4, DONE))
        await controller.reaches(line.task, "succeeded")
        await until(lambda: sum(isinstance(body, Ack) and body.seq == 4 for body in agent.commands) == 3)
    assert len((await controller.ask("table", "osimage")).rows) == 1


async def test_a_command_that_a_node_forges_is_heard_by_nobody(controller):
    await controller.nodeset("n01,n02", "image", "golden")
    async with Agent(controller, "n01").online() as victim, Agent(controller, "n02").online() as thief:
        forged = Command(session=victim.session, task=victim.task, body=Finish())
        await thief.raw(thief.topic("command", "n01"), messages.encode(forged))
        await victim.raw(victim.topic("command"), messages.encode(forged))
        await victim.say(PLANNED)
        assert not any(isinstance(body, Finish) for body in victim.commands)


async def test_hundreds_of_silent_and_junk_connections_leave_the_claim_door_open(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    words = await controller.words("n01")
    host, port = words["controller"].removeprefix("http://").split(":")
    open_ones = [await asyncio.open_connection(host, int(port)) for _ in range(300)]
    try:
        for number, (_, writer) in enumerate(open_ones):
            writer.write(
                b"POST /v1/claim HTTP/1.1\r\nContent-Length: 999999999\r\n" if number % 2 else b"\0\xff junk\r\n\r\n"
            )
        async with Agent(controller, "n01").online() as agent:
            await agent.say(PLANNED, STARTED, DONE)
        await controller.reaches(line.task, "succeeded")
    finally:
        for _, writer in open_ones:
            writer.close()
