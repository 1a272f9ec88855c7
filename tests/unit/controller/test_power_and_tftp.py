"""Power by the site's program, boot files for TFTP, and the hand that makes both follow the tasks; what systemd is told."""

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho import process
from litho.errors import LithoError, RefusedError, UsageError
from litho_controller import sdnotify
from litho_controller.boot import plan, tftp, words
from litho_controller.boot.plan import Facts
from litho_controller.boot.tftp import TftpFiles
from litho_controller.power.command import CommandPower, NoPower, answer, argv
from litho_controller.tables import nodes, rows
from litho_controller.tasks.turning import Turning
from support.desk import lab

UNIT = Path(__file__).parents[3] / "systemd/lithograph.service"
MAC = "52:54:00:00:00:01"


@pytest.fixture
def program(tmp_path):
    """The site's program: keeps each node's power in a file, and a note of every call."""
    path = tmp_path / "power"
    path.write_text(
        f"""#!/bin/sh
echo "$1 $2" >>{tmp_path}/calls
case $1 in
slow) exec sleep 60 ;;
deaf) trap '' TERM; sleep 60 & echo $! >{tmp_path}/child; wait; wait; sleep 60 ;;
bad) echo "no such blade" >&2; exit 3 ;;
loud) head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; echo on; exit 0 ;;
esac
state={tmp_path}/$1.power
case $2 in
stat) echo "power of $1: $(cat $state 2>/dev/null || echo off)" ;;
off) echo off >$state ;;
*) echo on >$state ;;
esac
"""
    )
    path.chmod(0o755)
    return path


def power(program, **more):
    return CommandPower((str(program), "{node}", "{action}"), **{"timeout_s": 20.0, "at_once": 4, **more})


# ---------------------------------------------------------------- power


async def test_nodes_are_switched_and_asked(program):
    hand = power(program)

    async def ask(action):
        return [(line.node, line.text, line.error) for line in await hand.ask(["n01", "n02"], action)]

    assert await ask("stat") == [("n01", "off", ""), ("n02", "off", "")]
    assert await ask("on") == [("n01", "on", ""), ("n02", "on", "")]
    assert await ask("stat") == [("n01", "on", ""), ("n02", "on", "")]
    assert await ask("off") == [("n01", "off", ""), ("n02", "off", "")]
    assert await ask("reset") == [("n01", "reset", ""), ("n02", "reset", "")]


async def test_one_node_that_fails_or_hangs_does_not_stop_the_others(program):
    begun = time.monotonic()
    lines = await power(program, timeout_s=3.0).ask(["bad", "slow", "loud", "n01"], "stat")
    assert time.monotonic() - begun < 45
    assert [line.node for line in lines] == ["bad", "slow", "loud", "n01"]
    assert lines[0].error == "power ended with exit code 3 (no such blade)"
    assert "did not end within 3 s" in lines[1].error
    assert (lines[3].text, lines[3].error) == ("off", "")


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_what_a_program_that_hangs_has_started_ends_with_it(program, tmp_path):
    begun = time.monotonic()
    (line,) = await power(program, timeout_s=1.0).ask(["deaf"], "stat")
    assert line.error.startswith("Timeout: ")
    assert time.monotonic() - begun < 30
    while runs(int((tmp_path / "child").read_text())):
        assert time.monotonic() - begun < 30
        await asyncio.sleep(0.05)


async def test_a_program_that_says_megabytes_is_read_to_its_end(program):
    (line,) = await power(program).ask(["loud"], "stat")
    assert (line.text, line.error) == ("on", "")


async def test_no_more_programs_run_at_once_than_may(program, tmp_path):
    program.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/run.$1\nls {tmp_path} | grep -c run >>{tmp_path}/counts\nsleep 0.2\nrm {tmp_path}/run.$1\n"
    )
    await power(program, at_once=2).ask([f"n{at}" for at in range(6)], "on")
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert len(counts) == 6
    assert max(counts) <= 2


async def test_a_program_that_is_not_there_is_a_sentence(tmp_path):
    (line,) = await power(tmp_path / "none").ask(["n01"], "on")
    assert "is not installed" in line.error
    with pytest.raises(RefusedError, match="power is not configured"):
        await NoPower().ask(["n01"], "on")


def test_words_stay_words_whatever_a_node_is_called():
    assert argv(("/p", "-n{node}", "{action}"), "n01", "on") == ["/p", "-nn01", "on"]
    for bad in ("-n", "a b", "$(x)", "a;b", "../x", "{action}"):
        with pytest.raises(RefusedError):
            argv(("/p", "{node}"), bad, "on")


@pytest.mark.parametrize(
    ("said", "action", "told"),
    [
        ("on\n", "stat", "on"),
        ("n01: ON", "stat", "on"),
        ("", "stat", "unknown"),
        ("", "on", "on"),
        ("done well", "off", "off"),
        ("x" * 99, "on", "on"),
    ],
)
def test_what_the_program_says_becomes_one_word(said, action, told):
    assert answer(said, action) == told


# ---------------------------------------------------------------- TFTP files


def made(state="install image-x86-golden", armed=True, addkcmdline="", **facts):
    known = Facts(**{"node": "n01", "mac": MAC, "ip": "10.0.0.1", **facts})
    own = ("litho.task=t-000001", "litho.token=4mX", *words.parse(addkcmdline, of="x"))
    boot = plan.boot(known, title=state, url="http://mn:3080", common=("quiet",), own=own)
    return {one.path: one.text for one in tftp.files(known, boot if armed else None, state=state)}


LINE = "litho.rootimg=http://mn:3080/boot/files/rootimg.squashfs BOOTIF=01-{} quiet litho.task=t-000001 litho.token=4mX"
PLAIN = LINE.format("52-54-00-00-00-01")


def test_xnba_files_are_xcats():
    files = made()
    assert list(files) == ["xcat/xnba/nodes/n01", "xcat/xnba/nodes/n01.uefi"]
    assert files["xcat/xnba/nodes/n01"].splitlines() == [
        "#!gpxe",
        "#install image-x86-golden",
        "imgfetch -n kernel http://mn:3080/boot/files/vmlinuz",
        "imgload kernel",
        f"imgargs kernel initrd=initrd.img {LINE.format('${netX/mac:hexhyp}')}",
        "imgfetch -n initrd.img http://mn:3080/boot/files/initrd.img",
        "imgexec kernel",
    ]
    assert made("boot", armed=False) == {
        "xcat/xnba/nodes/n01": "#!gpxe\n#boot\nexit\n",
        "xcat/xnba/nodes/n01.uefi": "#!gpxe\n#boot\nexit 1\n",
    }


def test_pxelinux_files_are_found_by_the_card_and_by_the_address():
    files = made(netboot="pxe")
    assert list(files) == ["pxelinux.cfg/01-52-54-00-00-00-01", "pxelinux.cfg/0A000001"]
    assert files["pxelinux.cfg/0A000001"].splitlines() == [
        "#install image-x86-golden",
        "DEFAULT xCAT",
        "LABEL xCAT",
        " KERNEL xcat/image/x86/vmlinuz",
        f" APPEND initrd=xcat/image/x86/initrd.img {PLAIN}",
    ]
    assert made("boot", armed=False, netboot="pxe", ip="")["pxelinux.cfg/01-52-54-00-00-00-01"] == (
        "#boot\nDEFAULT xCAT\nLABEL xCAT\n LOCALBOOT 0\n"
    )


def test_grub_files_are_scripts_that_grub_takes(tmp_path):
    for armed in (True, False):
        files = made(netboot="grub2", armed=armed, addkcmdline="memmap=1G!4G a=[b] c=*?^~@%")
        assert list(files) == ["boot/grub2/grub.cfg-01-52-54-00-00-00-01", "boot/grub2/grub.cfg-0A000001"]
        text = files["boot/grub2/grub.cfg-0A000001"]
        assert text.startswith("#install image-x86-golden\nset timeout=5\n")
        (tmp_path / "grub.cfg").write_text(text)
        process.run(["grub-script-check", tmp_path / "grub.cfg"])
        assert ("    linux /xcat/image/x86/vmlinuz " + PLAIN in text) is armed


def test_kernel_and_initrd_come_from_the_nodes_own_tftp_server(tmp_path):
    pxe = made(netboot="pxe", tftpserver="10.0.0.2")["pxelinux.cfg/0A000001"]
    assert " KERNEL 10.0.0.2::xcat/image/x86/vmlinuz\n" in pxe
    assert " APPEND initrd=10.0.0.2::xcat/image/x86/initrd.img " in pxe
    text = made(netboot="grub2", tftpserver="tftp.site")["boot/grub2/grub.cfg-0A000001"]
    assert "\nset root=tftp,tftp.site\nmenuentry " in text
    (tmp_path / "grub.cfg").write_text(text)
    process.run(["grub-script-check", tmp_path / "grub.cfg"])
    for nothing in ("", " ", "<xcatmaster>"):
        assert made(netboot="pxe", tftpserver=nothing) == made(netboot="pxe")
    assert made(tftpserver="10.0.0.2") == made()


@pytest.mark.parametrize("text", ["10.0.0.2\nlinux", "a b", "fd00::1", "x;reboot", "-x", "x" * 300])
def test_what_is_no_tftp_server_is_refused(text):
    with pytest.raises(UsageError, match="cannot be the TFTP server of n01"):
        made(netboot="grub2", tftpserver=text)


def test_what_netboot_does_not_know_is_refused():
    with pytest.raises(UsageError, match="boots by 'petitboot'"):
        made(netboot="petitboot")


@given(
    st.text(max_size=40),
    st.sampled_from(["addkcmdline", "installnic", "xcatmaster", "tftpserver", "ip", "state"]),
    st.sampled_from(["xnba", "pxe", "grub2"]),
)
def test_no_cell_adds_a_line_to_any_file(text, column, netboot):
    # A TFTP server of the node's own is a line of its own in GRUB's file, and always one.
    named = column == "tftpserver" and text.strip() not in ("", "<xcatmaster>")
    plainly = made(netboot=netboot, tftpserver="10.0.0.2" if named else "")
    try:
        files = made(**{"netboot": netboot, column: text})
    except UsageError:
        return
    for path, content in files.items():
        like = plainly.get(path, next(iter(plainly.values())))
        assert content.count("\n") == like.count("\n")
        assert content.count('"') == like.count('"')
        assert content.replace("${netX/mac:hexhyp}", "").count("$") == 0
        assert ".." not in path


def test_files_are_replaced_whole_and_nothing_stays_beside(tmp_path):
    hand = TftpFiles(tmp_path)
    for text in ("one\n", "two\n"):
        hand.write([tftp.File("pxelinux.cfg/01-x", text)])
        assert (tmp_path / "pxelinux.cfg/01-x").read_text() == text
    assert os.listdir(tmp_path / "pxelinux.cfg") == ["01-x"]  # noqa: PTH208 - hidden files count too
    assert (tmp_path / "pxelinux.cfg/01-x").stat().st_mode & 0o777 == 0o644
    (tmp_path / "file").write_text("")
    with pytest.raises(LithoError, match="cannot be written"):
        TftpFiles(tmp_path / "file").write([tftp.File("a/b", "x")])


# ---------------------------------------------------------------- following the tasks


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path) as made:
        async with made.store.write() as conn:
            await nodes.define(conn, ["n01"], mac=MAC)
            await nodes.define(conn, ["n02"], mac="52:54:00:00:00:02")
            await rows.put(conn, "noderes", "n02", {"netboot": "petitboot"})
        yield made


async def turned(desk, hand, names=("n01", "n02")):
    await desk.upkeep.tick()
    await hand.turn(list(names))


async def test_files_and_power_follow_what_becomes_of_the_task(desk, program, tmp_path):
    hand = Turning(desk.tasks, power=power(program), on_arm="reset", files=TftpFiles(tmp_path / "tftp"))
    file = tmp_path / "tftp/xcat/xnba/nodes/n01"
    (task,) = await desk.capture("n01")
    await turned(desk, hand)
    assert file.read_text().startswith("#!gpxe\n#image image-x86-golden\nimgfetch")
    assert desk.token("n01") in file.read_text()
    await turned(desk, hand)
    assert (tmp_path / "calls").read_text() == "n01 reset\n"
    node = await desk.agent(task)
    await turned(desk, hand)
    assert file.read_text() == "#!gpxe\n#image image-x86-golden\nexit\n"
    await node.run()
    await turned(desk, hand)
    assert file.read_text() == "#!gpxe\n#boot\nexit\n"
    await desk.capture("n01")
    await turned(desk, hand)
    assert (tmp_path / "calls").read_text() == "n01 reset\n" * 2


async def test_a_file_that_a_crash_left_is_put_right_at_the_start_and_failures_are_tried_again(
    desk, tmp_path, monkeypatch
):
    monkeypatch.setattr("litho_controller.tasks.turning.AGAIN_S", 0.05)
    folder = tmp_path / "tftp"
    folder.write_text("not a folder yet")
    hand = Turning(desk.tasks, power=NoPower(), on_arm=None, files=TftpFiles(folder))
    running = asyncio.create_task(hand.run())
    await asyncio.sleep(0.2)
    folder.unlink()
    stale = folder / "xcat/xnba/nodes/n01"
    async with asyncio.timeout(60):
        while not stale.exists():  # noqa: ASYNC110 - what is waited for is a file
            await asyncio.sleep(0.02)
    assert stale.read_text() == "#!gpxe\n#boot\nexit\n"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# ---------------------------------------------------------------- systemd


def test_systemd_is_told_in_one_datagram(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        assert sdnotify.notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert ear.recv(100) == b"READY=1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0litho-test-{os.getpid()}")
        assert sdnotify.notify("STOPPING=1", {"NOTIFY_SOCKET": f"@litho-test-{os.getpid()}"})
        assert ear.recv(100) == b"STOPPING=1"
    for path in ("", "relative", str(tmp_path / "nobody")):
        assert not sdnotify.notify("READY=1", {"NOTIFY_SOCKET": path})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
    ],
)
def test_the_watchdog_wants_a_word_in_half_its_time(environ, seconds):
    assert sdnotify.interval_s(environ) == seconds


async def test_the_event_loop_itself_says_that_it_turns(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        running = asyncio.create_task(sdnotify.watchdog())
        loop = asyncio.get_running_loop()
        for _ in range(3):
            assert await asyncio.wait_for(loop.sock_recv(ear, 100), 60) == b"WATCHDOG=1"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_the_unit_exposes_the_machine_to_little(tmp_path):
    done = process.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", UNIT], env={"TERM": "dumb"}
    )
    assert "Overall exposure level for lithograph.service" in done.out
    text = UNIT.read_text()
    assert "Type=notify" in text
    assert "WatchdogSec=" in text
