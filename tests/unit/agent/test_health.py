import asyncio
import json
import stat

import pytest

from litho import messages, process
from litho.messages import Health, Status
from litho_agent import health
from litho_agent.health import Watcher, tree_bytes, verdict

ATA = {
    "smart_status": {"passed": True},
    "temperature": {"current": 31},
    "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 8}}, {"id": 197, "raw": {"value": 0}}, {"id": 9}]},
}
NVME = {
    "smart_status": {"passed": False, "nvme": {"value": 4}},
    "temperature": {"current": 71},
    "nvme_smart_health_information_log": {"percentage_used": 104, "media_errors": 3},
}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ATA, ("passed", "8 reallocated sectors, 31 degrees Celsius")),
        (NVME, ("failed", "3 media errors, 104 % of its life used, 71 degrees Celsius")),
        ({"smartctl": {"exit_status": 2}}, ("", "")),
        ({"smart_status": {"passed": "yes"}}, ("", "")),
        ([], ("", "")),
    ],
)
def test_the_verdict_is_the_disks_own_and_junk_is_none(said, told):
    assert verdict(json.dumps(said)) == told


@pytest.mark.parametrize("junk", ["", "{", "\udc80", "[" * 100_000])
def test_what_is_no_json_is_no_verdict(junk):
    assert verdict(junk) == ("", "")


async def test_the_figures_are_those_of_this_machine_and_fit_onto_the_wire():
    found = Watcher().read()
    assert found.memory > found.available > 0
    assert found.agent > 10_000_000
    assert 0 <= found.cpu <= 100
    assert found.disk == ""
    status = Status(node="n01", session="s", online=True, health=found)
    assert messages.decode(messages.encode(status), Status) == status


def test_a_status_of_an_older_agent_has_no_health():
    assert messages.decode(b'{"v":1,"node":"n01","session":"s","online":true}', Status).health is None


async def test_children_are_counted_with_the_agent():
    alone = tree_bytes()
    child = await process.start_async(
        ["/usr/bin/python3", "-c", "b = bytearray(64 << 20); input()"], stdin=asyncio.subprocess.PIPE
    )
    try:
        for _ in range(100):
            if tree_bytes() > alone + (60 << 20):
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("64 MiB of a child are not seen")
    finally:
        child.kill()
        await child.wait()


@pytest.fixture
def smartctl_stand_in(tmp_path, monkeypatch):
    """No disk here has SMART: a stand-in that says what a disk with a verdict made smartctl 7.3 say."""

    def put(text: str) -> None:
        path = tmp_path / "smartctl"
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(process, "PATH", f"{tmp_path}:{process.PATH}")

    return put


async def test_the_disk_is_asked_once_it_is_known(smartctl_stand_in):
    smartctl_stand_in(f"#!/bin/sh\necho '{json.dumps(ATA)}'\nexit 64\n")
    watcher = Watcher()
    watcher.disk("/dev/sda")
    task = asyncio.create_task(watcher.watch())
    try:
        async with asyncio.timeout(60):
            while watcher.read().disk != "passed":  # noqa: ASYNC110 - it is a thing to be looked at
                await asyncio.sleep(0.02)
        assert watcher.read().disk_note == "8 reallocated sectors, 31 degrees Celsius"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_disk_that_says_it_is_failing_is_warned_of(smartctl_stand_in):
    smartctl_stand_in(f"#!/bin/sh\necho '{json.dumps(ATA | {'smart_status': {'passed': False}})}'\nexit 8\n")
    watcher = Watcher()
    assert watcher.warning() == ""
    watcher.disk("/dev/sda")
    task = asyncio.create_task(watcher.watch())
    try:
        async with asyncio.timeout(60):
            while not watcher.warning():  # noqa: ASYNC110 - it is a thing to be looked at
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert watcher.read().disk == "failed"
    assert watcher.warning() == (
        "the disk /dev/sda says of itself that it is failing (8 reallocated sectors, 31 degrees Celsius)"
    )


async def test_a_disk_that_does_not_answer_is_no_verdict_and_holds_nobody(smartctl_stand_in, monkeypatch):
    monkeypatch.setattr(health, "_SMART_S", 0.3)
    smartctl_stand_in("#!/bin/sh\nexec sleep 300\n")
    assert await asyncio.wait_for(health.ask_disk("/dev/sda"), 60) == ("", "")


async def test_without_smartctl_there_is_no_verdict(monkeypatch):
    monkeypatch.setattr(process, "PATH", "/nonexistent")
    assert await health.ask_disk("/dev/sda") == ("", "")
    assert isinstance(Watcher().read(), Health)
