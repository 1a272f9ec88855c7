"""Machines that no node is, as processes: they show themselves to a real controller and wait until it says what to do."""

import asyncio
import json
import re
import sys
from pathlib import Path

from support.controller import Controller, until

BIN = Path(sys.executable).parent
FIRST, SECOND = "52:54:00:00:00:99", "52:54:00:00:00:9a"
NO_DISK = "serial=no-machine-has-this"


async def said(controller, *words):
    child = await asyncio.create_subprocess_exec(
        BIN / "litho",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"LITHO_CONFIG": str(controller._settings), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    async with asyncio.timeout(60):
        out, err = await child.communicate()
    return child.returncode, out.decode(), err.decode()


async def machine(controller, mac):
    """An agent in a machine whose boot loader said BOOTIF, started by the menu's line."""
    url = re.search(r"serves nodes at (\S+)", controller.log.read_text())[1]
    line = controller.folder / f"cmdline-{mac[-2:]}"
    line.write_text(f"quiet litho.controller={url} litho.discover BOOTIF=01-{mac.replace(':', '-')} litho.port=0\n")
    return await asyncio.create_subprocess_exec(
        BIN / "litho-agent",
        "run",
        "--cmdline",
        line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(child):
    async with asyncio.timeout(90):
        out, err = await child.communicate()
    return child.returncode, out.decode(), err.decode()


async def test_machines_wait_until_they_are_nodes_with_a_task_or_are_told_to_reboot(tmp_path):
    async with Controller(tmp_path) as controller:
        first, second = await machine(controller, FIRST), await machine(controller, SECOND)

        async def both():
            found = (await controller.ask("discovered")).machines
            return found if len(found) == 2 else None

        found = {one.mac: one for one in await until(both, within_s=60)}
        assert set(found) == {FIRST, SECOND}
        assert found[FIRST].inventory["memory"] > 0
        assert found[FIRST].address == "127.0.0.1"
        code, out, _ = await said(controller, "node", "ls", "--discovered")
        assert code == 0
        assert out.splitlines()[0].split() == ["MAC", "ADDRESS", "SEEN", "BOARD", "CPUS", "MEMORY", "DISKS"]
        assert FIRST in out
        _, out, _ = await said(controller, "node", "ls", "--discovered", "--json")
        assert {one["mac"] for one in json.loads(out)} == {FIRST, SECOND}

        assert (await said(controller, "node", "add", "n09", "--from-discovered", FIRST))[0] == 0
        assert (await said(controller, "node", "add", "n10", "--from-discovered", SECOND))[0] == 0
        node = await controller.ask("node", "n09")
        assert (node.mac, node.arch) == (FIRST, found[FIRST].inventory["arch"])
        assert (await said(controller, "node", "ls", "--discovered"))[1].splitlines()[1:] == []
        # A disk that is nowhere: what is shown is the claim, and no disk of this machine is ever looked at twice.
        assert (await said(controller, "nodeset", "n09", "image=golden", "--disk", NO_DISK))[0] == 0
        assert (await said(controller, "nodeset", "n10", "boot"))[0] == 0
        code, out, _ = await ended(first)
        assert code == 5, out
        assert "claiming task t-000001 for n09" in out
        task = await controller.task("t-000001")
        assert (task.state, task.code, task.node) == ("failed", "disk-missing", "n09")
        code, out, err = await ended(second)
        assert (code, err) == (0, "")
        assert "then=reboot is not followed: this machine does not run the root image" in out

        code, _, err = await said(controller, "node", "add", "n11", "--from-discovered", "52:54:00:00:00:9b")
        assert code == 3
        assert "no machine with the address 52:54:00:00:00:9b has shown itself" in err
