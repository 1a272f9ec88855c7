"""Apache VCL's side of the contract, played against the real daemon through a tree of links that looks like an XCATROOT.

VCL runs xCAT's commands through a shell as `<command> 2>&1`, splits what comes on line breaks and looks at it with the
expressions below, which are those of its module Provisioning/xCAT.pm (2024): the rows of the contract, in the order of a
capture and of a load. What the agent would do is played by a script over the real roads.
"""

import asyncio
import re
import stat
import sys
from pathlib import Path

import pytest

from litho.library import Library, Owner, Stage
from litho.messages import DiskFacts, Failed, OsFacts, Planned, Started, Succeeded
from support.controller import Agent, Controller, until
from support.images import fill

LITHO = Path(sys.executable).parent / "litho"
NODE, IMAGE = "n01", "vclimage-debian12-v0"
MAC = "52:54:00:00:00:01"
DISK = DiskFacts(path="/dev/sda", size=8_000_000_000, serial="S1")
PLANNED = Planned(disk=DISK, steps=("save sda1",), total=1000)
FOUND = OsFacts(name="Linux", vers="debian12", distro="debian12-x86_64", arch="x86_64")


def done(version):
    return Succeeded(image=IMAGE, version=version, used=1000, stored=400, seconds=2.0, disk=DISK, os=FOUND)


class Vcl:
    """What VCL does, and how it reads what comes back."""

    def __init__(self, root, settings, library):
        self.root = root
        self.library = library
        self._env = {"LITHO_CONFIG": str(settings), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

    async def run(self, command):
        """Exit status and lines of a command line with its errors among its output."""
        child = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            f"{command} 2>&1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
            cwd=str(self.root),
        )
        out, _ = await asyncio.wait_for(child.communicate(), 60)
        return child.returncode, [line for line in re.split(r"[\r\n]+", out.decode()) if line]

    async def nodech(self, *words):
        status, lines = await self.run(f"{self.root}/bin/nodech {NODE} {' '.join(words)}")
        assert not any(re.search(r"Error", line, re.IGNORECASE) for line in lines), lines
        assert not any(re.search(r"\w", line) for line in lines), lines
        return status

    async def nodeset(self, state):
        _, lines = await self.run(f"{self.root}/sbin/nodeset {NODE} {state}")
        assert not any(re.search(r"(Error:|nodeset failure)", line) for line in lines), lines
        return next(match[1] for line in lines if (match := re.match(rf"^{NODE}:\s+(.+)$", line)))

    async def nodeset_all(self):
        """Node -> state, as the count of other nodes that install or capture is made."""
        _, lines = await self.run(f"{self.root}/sbin/nodeset all stat")
        assert not any(re.match(r"^Error:", line, re.IGNORECASE) for line in lines)
        return dict(re.match(r"^([^:]+):\s+(.+)$", line).groups() for line in lines)

    async def nodestat(self):
        _, lines = await self.run(f"{self.root}/bin/nodestat {NODE}")
        return next(match[1] for line in lines if (match := re.match(rf"^{NODE}:\s+(.+)$", line)))

    async def lsdef(self):
        _, lines = await self.run(f"{self.root}/bin/lsdef {NODE}")
        assert not any(re.search(r"Error:", line, re.IGNORECASE) for line in lines), lines
        return dict(match.groups() for line in lines if (match := re.match(r"^[\s\t]+(\w[^=]+)=(.+)$", line)))

    async def rpower(self, action):
        """`on` or `off`, the last word of the node's line; or `timeout` or `error`, after which VCL asks otherwise."""
        _, lines = await self.run(f"{self.root}/bin/rpower {NODE} {action}")
        for line in lines:
            if "Error: Timeout" in line:
                return "timeout"
            if "Error:" in line:
                return "error"
            if match := re.match(rf"^{NODE}:.*\s([^\s]+)$", line):
                return match[1]
        raise AssertionError(lines)

    async def waits_for(self, state):
        """VCL asks every 5 s for a minute; here as often as the machine allows."""

        async def there():
            return await self.rpower("stat") == state

        await until(there, within_s=60)

    async def kilobytes(self, pattern):
        """The last total of `du -c <repository>/<pattern>`; 0 when nothing is there."""
        _, lines = await self.run(f"du -c {self.library}/{pattern} | grep total")
        return max((int(line.split()[0]) for line in lines if re.match(r"^\d+\s+total$", line)), default=0)


BMC = """#!/bin/sh
# Stands for a machine's management board, which nothing here has: it keeps the power in a file, takes a moment to switch off,
# and fails in the ways that the file `mood` names.
cd {folder}
case $(cat mood) in
hangs) exec sleep 60 ;;
broken) echo "board: session refused" >&2; exit 3 ;;
esac
case $2 in
stat) echo "Chassis Power is $(cat $1.power)" ;;
off) (sleep 0.5; echo off >$1.power) >/dev/null 2>&1 & ;;
on | reset) echo on >$1.power ;;
esac
"""


@pytest.fixture
async def site(tmp_path):
    """A daemon with VCL's markers on, the tree of links, and a node as VCL's documentation has it set up."""
    board = tmp_path / "board"
    board.write_text(BMC.format(folder=tmp_path))
    board.chmod(0o755)
    (tmp_path / f"{NODE}.power").write_text("on\n")
    (tmp_path / "mood").write_text("well\n")
    controller = Controller(tmp_path, power={"command": [str(board), "{node}", "{action}"], "timeout_s": 2.0})
    text = controller._settings.read_text()
    controller._settings.write_text("vcl_markers = true\n" + text)
    async with controller:
        vcl = Vcl(tmp_path / "xcatroot", controller._settings, controller.library.root)
        made = await asyncio.create_subprocess_exec(
            LITHO,
            "xcat-links",
            vcl.root,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin"},
        )
        _, err = await made.communicate()
        assert made.returncode == 0, err
        for command in (
            f"bin/mkdef {NODE} groups=all,blade mac={MAC} arch=x86",
            "bin/mkdef n02 groups=all,blade mac=52:54:00:00:00:02",
        ):
            assert (await vcl.run(f"{vcl.root}/{command}"))[0] == 0
        yield controller, vcl


async def test_the_tree_has_what_vcl_looks_for_before_it_starts(site):
    _, vcl = site
    for name in ("bin/rpower", "bin/lsdef"):
        path = vcl.root / name
        assert path.is_symlink() and path.stat().st_mode & stat.S_IXUSR
    template = vcl.root / "share/xcat/install/image/default.tmpl"
    assert template.read_text() == "#INCLUDE:../scripts/post.rh#\n"


async def test_a_capture_as_vcl_asks_for_it(site):
    controller, vcl = site
    # Rows 1, 2: what is to be captured, and the node's groups.
    await vcl.nodech("nodetype.os=image", "nodetype.arch=x86", f"nodetype.profile={IMAGE}")
    await vcl.nodech("nodelist.groups=all,blade,image")
    # Row 4: the answer is the line that VCL's documentation shows.
    assert await vcl.nodeset("image") == f"image image-x86-{IMAGE}"
    assert await vcl.nodeset("stat") == f"image image-x86-{IMAGE}"
    # Row 3: the count of nodes that install or capture.
    states = await vcl.nodeset_all()
    assert states == {NODE: f"image image-x86-{IMAGE}", "n02": "boot"}
    assert [node for node, state in states.items() if re.match(r"^(install|image)", state, re.IGNORECASE)] == [NODE]
    # Row 6, before anything has happened: no word that would be taken for a beginning or an end.
    assert not re.search(r"boot|install|partimage|complete", await vcl.nodestat(), re.IGNORECASE)
    agent = Agent(controller, NODE)
    async with agent.online():
        assert agent.order.job.vcl_markers and agent.order.job.image == IMAGE
        await agent.say(PLANNED, Started())
        seen = []
        with Stage.open(controller.library, IMAGE, Owner(task=agent.task, session=agent.session)) as stage:
            for percent in (10, 40):
                await agent.progress(percent * 10)
                wanted = f"partimage-ng: partition 1 of 1, {percent}% complete"
                await until(lambda wanted=wanted: says(vcl, wanted))
                seen.append(await vcl.nodestat())
            stage.publish(fill(stage, b"used blocks " * 200_000))
        # Row 6: the text changes, older VCL knows the capture by its first words, and it never says boot.
        assert len(set(seen)) == 2
        assert all(re.search(r"partimage-ng: partition", text) and not re.search("boot", text) for text in seen)
        # Rows 12, 13, 15, 17: what VCL sees of the files.
        assert await vcl.kilobytes(f"*{IMAGE}*") > 0 and await vcl.kilobytes(f"{IMAGE}*") > 0
        names = [path.name for path in vcl.library.glob(f"{IMAGE}*")]
        assert names and all(re.match(rf"{IMAGE}[-.].*\.\w+|{IMAGE}\.\w+", name) for name in names), names
        assert (await vcl.run(f"chmod -R 644 {vcl.library}/{IMAGE}*"))[0] == 0
        assert controller.library.manifest(controller.library.resolve(parse(IMAGE))).version == 1
        await agent.say(done(1))
    # A capture's end: VCL takes the turn of nodestat to boot, with files there, for done.
    assert re.search("boot", await vcl.nodestat()) and await vcl.nodeset("stat") == "boot"
    # Row 18: whatever happened, boot is set afterwards.
    assert await vcl.nodeset("boot") == "boot"
    lines = (await vcl.run(f"{vcl.root}/bin/lsdef -t osimage {IMAGE}"))[1]
    assert f"    profile={IMAGE}" in lines and "    provmethod=install" in lines and "    osvers=debian12" in lines


async def says(vcl, text):
    return await vcl.nodestat() == text


def parse(text):
    from litho.library import parse_ref

    return parse_ref(text)


def publish(controller):
    with Stage.open(Library.open(controller.library.root), IMAGE, Owner(session="made-by-a-test")) as stage:
        stage.publish(fill(stage, b"used blocks " * 1000))


async def load_until_running(controller, vcl):
    """Everything of a load up to the first percent; answers the agent, who is online."""
    await vcl.nodech("nodetype.os=image", "nodetype.arch=x86", f"nodetype.profile={IMAGE}")
    await vcl.nodech("nodelist.groups=all,blade,compute")
    assert re.search("install", await vcl.nodeset("install"), re.IGNORECASE)
    # Row 8: VCL needs the MAC to find the node in the DHCP server's log.
    attributes = await vcl.lsdef()
    assert attributes["mac"] == MAC and attributes["profile"] == IMAGE and attributes["groups"] == "all,blade,compute"
    assert re.search("install", await vcl.nodeset("stat"), re.IGNORECASE)
    agent = Agent(controller, NODE)
    await agent.claim()
    agent.connect()
    await agent.say(PLANNED, Started())
    await agent.progress(420)
    await until(lambda: says(vcl, "partimage-ng: partition 1 of 1, 42% complete"))
    assert re.search(r"(install|partimage)", await vcl.nodestat(), re.IGNORECASE)
    return agent


async def test_a_load_as_vcl_asks_for_it(site):
    controller, vcl = site
    publish(controller)
    agent = await load_until_running(controller, vcl)
    await agent.say(done(1))
    # The end of a load: both texts turn to boot.
    assert re.match(r"^(boot|complete)$", await vcl.nodestat(), re.IGNORECASE)
    assert re.match(r"^(boot)$", await vcl.nodeset("stat"), re.IGNORECASE)
    assert await vcl.nodeset("boot") == "boot"
    await agent.vanish()


async def test_a_load_that_fails_is_never_taken_for_a_good_one(site):
    controller, vcl = site
    publish(controller)
    agent = await load_until_running(controller, vcl)
    await agent.say(Failed(code="corrupt", reason="the boot sector of sda1 differs from its hash", exit_code=7))
    for text in (await vcl.nodestat(), await vcl.nodeset("stat")):
        assert not re.search("boot", text, re.IGNORECASE), text
        assert not re.match(r"^(boot|complete)$", text, re.IGNORECASE)
    # The job ends with row 18; then the node is as good as any other.
    assert await vcl.nodeset("boot") == "boot"
    assert (await vcl.nodestat(), await vcl.nodeset("stat")) == ("boot", "boot")
    await agent.vanish()


async def test_a_job_that_vcl_gives_up_is_cancelled_and_the_node_can_be_loaded_at_once(site):
    controller, vcl = site
    publish(controller)
    agent = await load_until_running(controller, vcl)
    first = agent.task
    assert await vcl.nodeset("boot") == "boot"
    assert (await controller.task(first)).cancel_requested
    # The next reservation does not wait for the agent of the last one, whose node will be switched off and on.
    assert re.search("install", await vcl.nodeset("install"))
    assert (await controller.task(first)).state == "lost"
    await agent.vanish()
    assert (await controller.ask("tasks", node=NODE, active=True)).tasks[0].id != first


async def test_a_machine_is_switched_off_and_on_as_vcl_does_it_for_a_load(site):
    _, vcl = site
    # Row 9: power_reset is off, wait, on, wait; each answer ends with the state.
    assert await vcl.rpower("stat") == "on"
    assert await vcl.rpower("off") == "off"
    await vcl.waits_for("off")
    assert await vcl.rpower("on") == "on"
    await vcl.waits_for("on")
    status, lines = await vcl.run(f"{vcl.root}/bin/rpower {NODE} reset")
    assert (status, lines) == (0, [f"{NODE}: reset"])


async def test_a_board_that_fails_is_told_so_that_vcl_asks_rinv_or_again(site):
    controller, vcl = site
    (controller.folder / "mood").write_text("broken\n")
    assert await vcl.rpower("on") == "error"
    status, lines = await vcl.run(f"{vcl.root}/bin/rpower {NODE} stat")
    assert status == 1 and re.match(rf"^{NODE}: \[.+\]: Error: .*session refused", lines[0]), lines
    (controller.folder / "mood").write_text("hangs\n")
    assert await vcl.rpower("stat") == "timeout"
    # A node that never had a task has no inventory; one that had says what it is.
    status, lines = await vcl.run(f"{vcl.root}/bin/rinv {NODE}")
    assert status == 1 and all(re.match(rf"^{NODE}: .*Error:", line) for line in lines), lines
    assert await vcl.nodeset(f"image={IMAGE}")
    agent = Agent(controller, NODE)
    await agent.claim()
    status, lines = await vcl.run(f"{vcl.root}/bin/rinv {NODE}")
    assert status == 0 and lines and all(re.match(rf"^{NODE}: \S.*: \S", line) for line in lines), lines


async def test_a_mistake_is_an_error_in_vcls_eyes(site):
    _, vcl = site
    status, lines = await vcl.run(f"{vcl.root}/sbin/nodeset {NODE} install")
    assert status == 1 and any(re.search(r"(Error:|nodeset failure)", line) for line in lines)
    status, lines = await vcl.run(f"{vcl.root}/sbin/nodeset nope stat")
    assert (status, lines) == (1, ["Error: Invalid nodes and/or groups in noderange: nope"])
    status, lines = await vcl.run(f"{vcl.root}/bin/lsdef nope")
    assert status == 1 and lines == ["Error: Could not find an object named 'nope' of type 'node'."]
    status, lines = await vcl.run(f"{vcl.root}/bin/nodech {NODE} nodetype.nonsense=1")
    assert status == 1 and any(re.search(r"Error", line, re.IGNORECASE) for line in lines)
