"""`make demo`: the main job on this machine, with real parts.

1. A disk with real content is made, and attached as a loop device.
2. The controller is started with its embedded defaults: SQLite, a mosquitto child, a folder as library.
3. Node n01 is told to be captured; its agent runs as a process of its own.
4. Node n02, with a blank disk, is told to be printed from that image.
5. The two disks are compared, block by block and file by file.

Nothing on the machine's own disks is touched: the agents are given loop devices by name, and everything lies in `.demo/`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from demo import disk as demo_disk
from demo.disk import MIB, SMALL, Shape
from demo.proof import prove
from demo.site import Site
from litho.errors import LithoError, RefusedError

ROOT = Path(__file__).resolve().parent.parent / ".demo"


def main() -> int:
    """Entry of `python -m demo`."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="capture a disk and print it onto another")
    parser.add_argument("--small", action="store_true", help="a disk of 400 MB instead of 2.4 GB")
    parser.add_argument("--keep", action="store_true", help="leave both disks afterwards, too")
    parser.add_argument(
        "--directory", type=Path, default=ROOT, help="where everything lies (default: .demo/); emptied first"
    )
    options = parser.parse_args()
    try:
        if os.geteuid() != 0:
            raise RefusedError("loop devices need root", hint="run make demo as root")
        site = Site(options.directory.resolve())
        with site.alone():
            run(site, SMALL if options.small else Shape())
            if not options.keep:
                # The library stays, to be looked at; the disks are large.
                for disk in site.root.glob("*.disk"):
                    disk.unlink()
    except LithoError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return exc.exit_code
    return 0


def run(site: Site, shape: Shape) -> None:
    """The whole job. Raises any of the tree in `litho.errors`."""
    began = time.monotonic()
    site.prepare()
    source, target = site.root / "n01.disk", site.root / "n02.disk"
    say("A disk with FAT32, ext3, ext4 on a logical partition, and swap; its files come from /usr")
    demo_disk.make(source, site.root, shape)
    with demo_disk.attached(source) as one, demo_disk.attached(target, size=(shape.disk + 64) * MIB) as other:
        demo_disk.show_partitions(one)
        site.show("library", "init", str(site.library))
        with site.controller():
            say("The controller runs: SQLite, a mosquitto child, a folder as library. Two nodes are defined")
            site.show("node", "add", "n01", "--mac", "52:54:00:00:00:01", "--group", "lab")
            site.show("node", "add", "n02", "--mac", "52:54:00:00:00:02", "--group", "lab")
            say(f"Node n01 is to be captured; its agent boots with {one}")
            site.show("nodeset", "n01", "image=golden")
            follow(site, "n01", one)
            say(f"Node n02 is to become the same; its agent boots with the blank disk {other}")
            site.show("nodeset", "n02", "osimage=golden")
            follow(site, "n02", other)
            say("The proof: what lies on n02's disk is what lay on n01's")
            for proven in prove(one, other, site.root):
                what = f"{proven.used / MIB:8.1f} MiB in used blocks equal" if proven.used else "UUID and label equal"
                read = f", {proven.files} files read and equal" if proven.files else ""
                print(
                    f"  partition {proven.partition}  {proven.fs:5} {what}{read}, {'clean' if proven.clean else 'no checker'}"
                )
            say("What a person sees afterwards")
            site.show("task", "ls")
            site.show("nodestat", "n01,n02")
            site.show("lsdef", "-t", "osimage", "golden")
            site.show("image", "show", "golden")
    print(f"\nDone in {time.monotonic() - began:.0f} s. The image lies in {site.library}")


def follow(site: Site, node: str, device: Path) -> None:
    """Boot `node`'s agent with `device` and show its task to the end. Raises EngineError when the task does not succeed."""
    task = site.task_of(node)
    with site.agent(node, device) as agent:
        site.show("task", "watch", task)
        agent.wait(30)


def say(text: str) -> None:
    """A heading."""
    print(f"\n== {text}")


if __name__ == "__main__":
    sys.exit(main())
