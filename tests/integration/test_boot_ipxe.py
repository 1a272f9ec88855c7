"""The scripts, as iPXE itself reads them: QEMU's own network boot ROM against the real controller.

The kernel is an iPXE script that says that it was started, so that a machine proves the whole way in a few seconds.
"""

import asyncio
import contextlib
import socket

import pytest

from litho import process
from litho_controller import api
from support.controller import Agent, Controller, until

MAC = "52:54:00:aa:00:01"
KERNEL = "#!ipxe\necho THE KERNEL IS STARTED\nprompt --timeout 600000 waiting\n"


class Machine:
    """One machine that boots over the network from DHCP's fixed address."""

    def __init__(self, url, mac=MAC):
        self.url, self.mac = url, mac
        self.said = ""

    async def __aenter__(self):
        network = f"user,id=n,bootfile={self.url}/boot/ipxe"
        self._child = await process.start_async(
            [
                "qemu-system-x86_64", "-accel", "tcg", "-machine", "graphics=off", "-m", "64", "-nographic", "-no-reboot",
                "-netdev", network, "-device", f"virtio-net-pci,netdev=n,mac={self.mac},bootindex=1",
            ],
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self):
        while data := await self._child.stdout.read(4096):
            self.said += data.decode(errors="replace")

    async def says(self, text, within_s=90):
        # iPXE breaks long lines on a terminal, and moves its cursor.
        flat = text.replace(" ", "")
        try:
            await until(lambda: flat in "".join(self.said.split()), within_s=within_s)
        except AssertionError:
            pytest.fail(f"the machine did not say {text!r} but {self.said[-3000:]!r}")

    async def __aexit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


def controller(folder, **boot):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = folder / "rootimg"
    files.mkdir()
    (files / "vmlinuz").write_text(KERNEL)
    (files / "initrd.img").write_bytes(b"initrd")
    made = Controller(
        folder,
        http={"port": port, "url": f"http://10.0.2.2:{port}"},
        boot={"dir": str(files), "kcmdline": "quiet"} | boot,
        timeouts={"heartbeat_s": 0.4, "lease_s": 60.0},
    )
    return made, f"http://10.0.2.2:{port}"


async def define(site):
    await site.ask("add_nodes", api.NodeAdd(range="n01", mac=MAC))


async def test_an_armed_node_starts_the_kernel_with_its_words_and_afterwards_its_own_disk(tmp_path):
    made, url = controller(tmp_path)
    async with made as site:
        await define(site)
        await site.nodeset("n01", "image", "golden")
        await site.words("n01")
        async with Machine(url) as machine:
            await machine.says("lithograph: n01 boots for t-000001: capture of golden")
            await machine.says(f"{url}/boot/files/initrd.img... ok")
            await machine.says("THE KERNEL IS STARTED")
        await site.nodeset("n01", "boot")
        async with Machine(url) as machine:
            await machine.says("lithograph: n01 boots its own disk")
            await machine.says("No bootable device")


async def test_a_machine_that_boots_in_the_middle_of_its_task_gets_another_attempt(tmp_path):
    made, url = controller(tmp_path)
    async with made as site:
        await define(site)
        await site.nodeset("n01", "image", "golden")
        agent = Agent(site, "n01")
        # The agent's own address of the controller is QEMU's; here it is the loopback.
        words = await site.words("n01")
        words["controller"] = words["controller"].replace("10.0.2.2", "127.0.0.1")
        site.words = lambda _node: _answer(words)
        async with agent.online(), Machine(url) as machine:
            await machine.says(f"n01 waits: {words['task']} (capture of golden) is claimed")
            assert (await site.task(words["task"])).state == "claimed"
            await agent.vanish()
            await site.reaches(words["task"], "lost")
            await machine.says("n01 boots for t-000002: capture of golden")
            await machine.says("THE KERNEL IS STARTED")


async def _answer(words):
    return words


async def test_an_unknown_machine_is_shown_a_menu_and_then_its_own_disk(tmp_path):
    made, url = controller(tmp_path)
    async with made, Machine(url) as machine:
        await machine.says("Lithograph: 52:54:00:aa:00:01 is not known here")
        await machine.says("No bootable device")


async def test_an_unknown_machine_shows_itself_when_the_settings_say_so(tmp_path):
    made, url = controller(tmp_path, unknown="discover")
    async with made, Machine(url) as machine:
        await machine.says("is unknown and shows itself to the controller")
        await machine.says("THE KERNEL IS STARTED")
