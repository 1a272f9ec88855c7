"""The page docs/reference/session.md: an example of every command, made by running it.

    python -m demo.session > docs/reference/session.md

A controller of its own runs in a temporary folder; the nodes are agents on small loop devices, so captures and prints are real.
`demo.recorder` says what is replaced by something fixed. A command that ends otherwise than the script says stops it.

Three things stand for what is not here: a script for a machine's management board (`rpower`), a kernel command line in a file for
a boot over the network, and a directory with an old image made on the spot for one that Apache VCL left (`image adopt`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from demo import disk as demo_disk
from demo.disk import MIB, Shape
from demo.recorder import SHOWN, STRANGER, Recorder
from litho import process
from litho.errors import LithoError, RefusedError

TINY = Shape(disk=150, fat=40, fat_content=5, ext3=32, ext3_content=12, ext4=40, ext4_content=16, swap=8)

INTRODUCTION = """\
# An example session

Every command once, in the order in which a site would meet them. This page was made by running them: `python -m demo.session`
starts a controller in a folder of its own (here called `/srv/site`), with agents on loop devices as nodes, and writes down what
is printed. Times, ids of sessions, ports and rates are replaced by fixed ones. [cli.md](cli.md) has every option,
[xcat.md](xcat.md) what xCAT's commands share with xCAT's."""


def main(argv: Sequence[str]) -> int:
    """Entry of `python -m demo.session`: the page on standard output."""
    if argv:
        sys.stderr.write("usage: python -m demo.session > docs/reference/session.md\n")
        return 2
    try:
        if os.geteuid() != 0:
            raise RefusedError("loop devices need root", hint="run it as root")
        with tempfile.TemporaryDirectory(prefix="litho-session-") as folder:
            session = Recorder(Path(folder) / "site")
            session.prepare()
            session.page.append(INTRODUCTION)
            lead(session)
            session.close()
    except LithoError as exc:
        sys.stderr.write(f"session: {exc}\n")
        return exc.exit_code
    sys.stdout.write("\n".join(session.page) + "\n")
    return 0


def lead(session: Recorder) -> None:
    """The whole session. Raises any of the tree in `litho.errors`."""
    source = session.root / "source.disk"
    demo_disk.make(source, session.root, TINY)
    with contextlib.ExitStack() as held:
        one = held.enter_context(demo_disk.attached(source))
        two, three, small = (
            held.enter_context(demo_disk.attached(session.root / f"{name}.disk", size=size * MIB))
            for name, size in (("two", TINY.disk + 16), ("three", TINY.disk + 16), ("small", 16))
        )
        session.disks += [one, two, three, small]
        demo_disk.show_partitions(one)
        old = old_image(session.root / "old", one)
        begin(session)
        with session.controller():
            log = (session.root / "controller.log").read_text()
            session.add("litho serve", "".join(line + "\n" for line in log.splitlines() if "INFO" in line), head=8)
            tables(session)
            capture_and_print(session, one, two)
            failures(session, small)
            switches(session)
            newcomers(session, three)
            bundles(session)
            library(session, one, old)
            ends(session)


def old_image(folder: Path, disk: Path) -> Path:
    """What a capture of Apache VCL looks like, made by the programs that it uses: the table, the boot sector, one partition."""
    folder.mkdir()
    dump = process.run(["sfdisk", "--dump", disk]).out
    (folder / "office-sda.sfdisk").write_text(dump.replace(str(disk), "/dev/sda"))
    with disk.open("rb") as file:
        (folder / "office-sda.mbr").write_bytes(file.read(512))
    path = folder / "office-sda2.gz"
    options = ("-B", "x=y", "-f3", "-o", "-d", "-M", "-c", "-V0", "-z1")
    process.run(["partimage", *options, "save", demo_disk.partition(disk, 2), path], env={"TERM": "linux"})
    return folder


def begin(session: Recorder) -> None:
    """Settings, library, links."""
    session.tell(
        "The settings are read from `/etc/lithograph/lithograph.toml`, or from the file that `LITHO_CONFIG` names.",
        title="Before the first start",
    )
    session.run("litho config check")
    session.run("litho config show", head=9)
    session.run(f"litho library init {SHOWN}/library")
    session.run(f"litho xcat-links {SHOWN}/xcat")
    session.tell(
        "`litho rootimg build` makes the root image that nodes boot, from Debian's packages; it takes minutes, so it is not part "
        "of this page ([rootimg.md](rootimg.md)). `litho rootimg install` puts one there that was built elsewhere."
    )


def tables(session: Recorder) -> None:
    """Definitions, in words of its own and in xCAT's."""
    session.tell("In words of its own, or in xCAT's; both write the same tables.", title="Nodes")
    session.run("litho node add n01 --mac 52:54:00:00:00:01 --groups lab")
    session.run("litho mkdef n02 groups=all,lab mac=52:54:00:00:00:02 arch=x86_64")
    for number in (3, 4, 5):
        session.run(f"litho node add n0{number} --mac 52:54:00:00:00:0{number} --groups lab")
    session.run("litho node ls")
    session.run("litho node show n01")
    session.run("litho lsdef n02")
    session.run("litho chdef n02 addkcmdline=litho.debug")
    session.run("litho lsdef lab -i mac,addkcmdline")
    session.run("litho nodech n01 nodetype.os=image nodetype.profile=golden")
    session.run("litho nodels all nodetype.profile")
    session.tell("What a program reads of a mistake is what xCAT prints.")
    session.run("litho lsdef nope", code=1)
    session.run("litho nodeset nope stat", code=1)
    session.tell("Tables whole, and single rows of them.", title="Tables")
    session.run("litho tabdump")
    session.run("litho tabdump mac")
    session.run("litho tabch key=excludenodes site.value=n99")
    session.run("litho gettab key=excludenodes site.value")
    dump = session.quiet("litho tabdump nodetype").out
    (session.root / "nodetype.csv").write_text(dump)
    session.run(f"litho tabrestore {SHOWN}/nodetype.csv")


def capture_and_print(session: Recorder, one: Path, two: Path) -> None:
    """The main job."""
    session.tell(
        "n01 is told to be captured. It boots the root image, and its agent does the rest; `--watch` follows it, with bars on a "
        "terminal.",
        title="Capture",
    )
    session.run("litho nodeset n01 stat")
    session.works("n01", one, "litho nodeset n01 image=golden --engine partclone --label owner=physics --watch")
    session.run("litho nodestat n01")
    session.run("litho lsdef -t osimage golden")
    session.run("litho image ls")
    session.run("litho image show golden")
    session.run("litho image verify golden")
    session.tell("n02, with a blank disk, becomes the same.", title="Print")
    session.run("litho nodeset n02 osimage=golden")
    session.run("litho nodestat lab")
    session.works("n02", two, "litho task watch t-000002")
    session.run("litho task ls")
    session.run("litho task show t-000002")
    session.run("litho task log t-000002")


def failures(session: Recorder, small: Path) -> None:
    """A wave that stops, and what is said of it."""
    session.tell(
        "A wave prints a few nodes first. Here the first node's disk is too small; the wave stops by itself, and the others "
        "keep theirs.",
        title="When it stops",
    )
    session.run("litho nodeset n02-n05 osimage=golden --wave 1,50% --stop-after 1")
    session.works("n02", small, "litho task watch t-000003", code=4)
    session.until(lambda: "stopped" in session.quiet("litho wave ls").out, "the wave has stopped")
    session.run("litho wave ls")
    session.run("litho task ls --node n02-n05")
    session.run("litho task log t-000003", head=7)
    session.run("litho nodestat n02-n05")
    session.run("litho task retry t-000003")
    session.run("litho task cancel t-000007")
    session.run("litho nodeset lab boot")


def switches(session: Recorder) -> None:
    """rpower and rinv."""
    session.tell(
        "The site's own program switches nodes (`power.command`); a machine is what its agent said.", title="Power"
    )
    session.run("litho rpower n01,n02 stat")
    session.run("litho rpower n02 off")
    session.run("litho rpower n02 stat")
    session.run("litho rinv n01")
    session.run("litho rinv n05", code=1)


def newcomers(session: Recorder, disk: Path) -> None:
    """A machine that no node is."""
    session.tell(
        "A machine that no node is shows itself and waits in the root image until it has a task.", title="New machines"
    )
    with session.stranger(disk) as agent:
        session.until(lambda: STRANGER in session.quiet("litho node ls --discovered").out, "the machine shows itself")
        session.run("litho node ls --discovered")
        session.run(f"litho node add n06 --from-discovered {STRANGER} --groups lab")
        session.run("litho nodeset n06 osimage=golden")
        done = session.quiet("litho task watch t-000008")
        session.add("litho task watch t-000008", done.out + done.err)
        if done.code:
            raise process.failure(done)
        agent.wait(60)


def bundles(session: Recorder) -> None:
    """Images as files."""
    session.tell("An image goes to another site as one file, and comes from one.", title="Images between sites")
    session.run(f"litho export golden {SHOWN}/golden.tar.zst")
    session.run(f"litho import {SHOWN}/golden.tar.zst --rename silver --dry-run")
    session.run(f"litho import {SHOWN}/golden.tar.zst --rename silver")
    session.run(f"litho xcatexport silver {SHOWN}/silver.tgz")
    session.run(f"litho xcatimport {SHOWN}/silver.tgz", code=1)
    session.run(f"litho xcatimport {SHOWN}/silver.tgz --rename bronze")


def library(session: Recorder, one: Path, old: Path) -> None:
    """What is done with versions."""
    session.tell(
        "A second capture of a name is its second version; this time in chunks, which versions share. Without "
        "a name it is nodetype.profile.",
        title="The library",
    )
    session.works("n01", one, "litho nodeset n01 image --watch")
    session.works("n01", one, "litho node verify n01 --image golden --watch")
    session.run("litho image stats")
    session.run("litho image diff golden:1 golden:2")
    session.run(f"litho image cp golden:2:/etc/os-release {SHOWN}/os-release --part 5")
    (session.root / "mnt").mkdir()
    mounted = session.root / "mnt/etc/os-release"
    session.broken_off(f"litho image mount golden:2 {SHOWN}/mnt --part 5", mounted.exists)
    session.run(f"litho image convert golden:2 --to partclone --name plain --scratch {SHOWN}", head=1, last=1)
    session.run("litho image scrub")
    session.run("litho image prune golden --keep 1 --dry-run")
    session.run("litho image prune golden --keep 1")
    session.run("litho image gc")
    session.run("litho image rm bronze:1")
    session.tell("An image that partimage made, as Apache VCL keeps them; here only sda2 has one.")
    names = " ".join(f"{SHOWN}/old/{path.name}" for path in sorted(old.iterdir()))
    session.run(f"litho image adopt office {names} --leave-out 1 --leave-out 5 --leave-out 6")
    session.run("litho image ls")


def ends(session: Recorder) -> None:
    """Taking away."""
    session.tell("Definitions go; the disks that they meant stay as they are.", title="Taking away")
    session.run("litho rmdef n05")
    session.run("litho node rm n04")
    session.run("litho mkdef -t osimage compute osvers=debian12 osarch=x86_64 profile=compute provmethod=netboot")
    session.run("litho rmdef -t osimage compute")
    session.run("litho nodeset all stat")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
