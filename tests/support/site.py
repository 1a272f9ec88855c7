"""A whole site for tests: the demonstration's folder, controller and agents, with small disks and ways to break each of them.

`Bench` starts `litho serve` and `litho-agent run` as processes, in a folder whose library is a file system of its own (a
tmpfs), so that it can be full or read-only. Processes are found as descendants of ours, never by name alone. A "middle"
is made by stopping the engine (SIGSTOP) as soon as it runs: what is stopped stays in the middle until the test says
otherwise.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from demo import disk as demo_disk
from demo.disk import MIB, Shape
from demo.site import Site

from litho import process
from litho.library import ImageRef, Library, whole
from litho_controller import api
from litho_controller.client import Client
from support.loop import loop_disk, part, reread, sh

TINY = Shape(disk=150, fat=40, fat_content=5, ext3=32, ext3_content=12, ext4=40, ext4_content=16, swap=8)
LIBRARY_MIB = 256
PLAIN_MIB = 64
PLAIN_CONTENT_MIB = 24
BOOT_CODE = b"BOOT CODE OF A TEST".ljust(440, b"\x90")


def until(true: Callable[[], Any], *, within_s: float = 60.0, what: str = "it", every_s: float = 0.02) -> Any:
    """What `true` says as soon as it says something; the test fails after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:.0f} s"
        time.sleep(every_s)


# ---------------------------------------------------------------- processes


def descendants(pid: int) -> dict[int, str]:
    """Every living process below `pid`, with its name."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                state, parent = rest.split()[:2]
                if state not in "ZX":
                    parents[int(entry.name)] = (int(parent), name)
    found: dict[int, str] = {}
    fresh = {pid}
    while fresh:
        fresh = {child for child, (parent, _) in parents.items() if parent in fresh and child not in found}
        found.update({child: parents[child][1] for child in fresh})
    return found


def below(pid: int, name: str) -> int:
    """A descendant of `pid` whose name begins with `name`; 0 when there is none."""
    return next((child for child, found in descendants(pid).items() if found.startswith(name)), 0)


def stopped(pid: int, name: str) -> int:
    """Wait for a descendant of that name, and stop it where it is."""
    found = until(lambda: below(pid, name), what=f"{name} runs", every_s=0.002)
    os.kill(found, signal.SIGSTOP)
    return int(found)


def go_on(pid: int) -> None:
    """Let a stopped process go on."""
    os.kill(pid, signal.SIGCONT)


# ---------------------------------------------------------------- disks


def mbr_disk(folder: Path) -> Path:
    """A disk image with an MBR: FAT32, ext3, ext4 as a logical partition, swap."""
    image = folder / "mbr.disk"
    demo_disk.make(image, folder, TINY)
    return image


def plain_tree(folder: Path) -> Path:
    """A directory with some text and much that no compressor makes smaller."""
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    for number in range(8):
        (tree / f"data{number}").write_bytes(os.urandom(PLAIN_CONTENT_MIB * MIB // 8))
    return tree


def plain_disk(folder: Path, *, label: str = "dos", fs: str = "ext4", name: str = "plain") -> Path:
    """A disk image with one partition of incompressible content; `label` "" is a file system on the whole disk."""
    image = folder / f"{name}.disk"
    tree = folder / "tree"
    if not tree.exists():
        plain_tree(folder)
    with loop_disk(image, size=PLAIN_MIB * MIB) as disk:
        target = disk
        if label:
            active = ", bootable" if label == "dos" else ""
            table = f"label: {label}\nstart=2048, size={PLAIN_MIB - 4}MiB{active}\n"
            sh("sfdisk", "--no-reread", "--no-tell-kernel", "--quiet", disk, stdin=table)
            with disk.open("r+b") as raw:
                raw.write(BOOT_CODE)
            reread(disk)
            target = part(disk, 1)
        sh(f"mkfs.{fs}", "-q", "-F", "-d", tree, "-L", "plain", target)
        sh("sync", "--file-system", image)
    return image


@contextlib.contextmanager
def source(image: Path) -> Iterator[Path]:
    """`image` as a disk whose partitions, if it has a table, have their nodes."""
    with loop_disk(image) as disk:
        subprocess.run(["partx", "-a", str(disk)], capture_output=True, check=False)
        yield disk


@contextlib.contextmanager
def target(folder: Path, mib: int = PLAIN_MIB) -> Iterator[Path]:
    """A disk that holds what must not be lost without need: a pattern in its first 8 MiB."""
    image = folder / f"target-{time.monotonic_ns()}.disk"
    image.write_bytes(b"what was here before " * (8 * MIB // 21))
    with loop_disk(image, size=mib * MIB) as disk:
        yield disk
    image.unlink()


def pretends_to_boot(device: Path) -> bool:
    """True when there is any boot code, or a partition with the active flag."""
    with device.open("rb") as file:
        sector = file.read(512)
    return any(sector[:440]) or any(sector[at] & 0x80 for at in range(446, 510, 16))


def digest(device: Path) -> str:
    """The SHA-256 of all that lies on a disk."""
    with device.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- the site


class Bench(Site):
    """A site whose controller can be started, ended, killed and started again."""

    def __init__(self, root: Path, **timeouts: float) -> None:
        super().__init__(root)
        self.timeouts = {"lease_s": 30.0, "heartbeat_s": 0.4, "progress_s": 0.2, "boot_s": 60.0} | timeouts
        self.client = Client(root / "litho.sock", timeout=60)
        self._controller: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """The demonstration's folder, with short waits and a library that is a file system of its own."""
        super().prepare()
        lines = [f"{name} = {value}" for name, value in self.timeouts.items()]
        with self.config.open("a") as file:
            file.write(
                "[timeouts]\n"
                + "\n".join(lines)
                + '\n[slots]\nlibrary = 2\n[boot]\nrequire_mac = false\n[capture]\nengine = "auto"\n'
            )
        self.library.mkdir()
        sh("mount", "-t", "tmpfs", "-o", f"size={LIBRARY_MIB}m", "lithograph-test", self.library)
        Library.create(self.library)

    def remove(self) -> None:
        """End what runs, and unmount the library."""
        self.end(signal.SIGTERM)
        subprocess.run(["umount", "--lazy", str(self.library)], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)

    # ------------------------------------------------------------ the controller

    def start(self) -> None:
        """Start the controller and return when it answers."""
        log = (self.root / "controller.log").open("ab")
        with log:
            self._controller = process.start(self._argv("litho", "serve"), stdout=log, stderr=log, env=self._env)
        self._await(self._controller)

    def end(self, number: int) -> None:
        """End the controller by a signal."""
        if self._controller is not None:
            self._controller.send_signal(number)
            self._controller.wait(60)
            self._controller = None

    def broker(self) -> int:
        """The process id of the embedded broker; 0 while there is none."""
        assert self._controller is not None
        return below(self._controller.pid, "mosquitto")

    # ------------------------------------------------------------ asking

    def said(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output and errors of a `litho` command."""
        done = process.run(self._argv("litho", *words), ok=range(256), env=self._env)
        return done.code, done.out, done.err

    def reads(self, node: str) -> str:
        """What a person reads: the line of `litho nodestat`."""
        line = self.ask("nodestat", node).strip()
        assert line.startswith(f"{node}: ")
        return line.removeprefix(f"{node}: ")

    @property
    def agent_program(self) -> Path:
        """`litho-agent`."""
        return self._bin / "litho-agent"

    def define(self, *nodes: str) -> None:
        for node in nodes:
            self.client.add_nodes(api.NodeAdd(range=node))

    def nodeset(self, node: str, state: api.NodesetState, image: str, **job: Any) -> str:
        """Give the node a task; answers its id."""
        request = api.NodesetRequest(range=node, state=state, image=image, job=api.JobOptions(**job))
        [line] = self.client.nodeset(request).nodes
        assert not line.error, line.error
        return line.task

    def task(self, task: str) -> api.TaskView:
        return self.client.task(task)

    def reaches(self, task: str, *states: str, within_s: float = 60.0) -> api.TaskView:
        """The task, as soon as it is in one of `states`."""

        def there() -> api.TaskView | None:
            found = self.task(task)
            if found.state.ended and found.state not in states:
                raise AssertionError(f"{task} is {found.state}: {found.reason}\n{self.logs()}")
            return found if found.state in states else None

        return until(there, within_s=within_s, what=f"{task} is {' or '.join(states)}")

    def logs(self) -> str:
        """The last words of all that ran here."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.root.glob("*.log"))

    @contextlib.contextmanager
    def booted(self, node: str, disk: Path | str, task: str) -> Iterator[subprocess.Popen[bytes]]:
        """The node's agent as a process, as soon as its task is armed."""
        self.reaches(task, "armed")
        with self.agent(node, Path(disk)) as agent:
            yield agent

    def do(self, node: str, state: api.NodesetState, image: str, disk: Path | str, **job: Any) -> api.TaskView:
        """A whole task; answers how it ended. The agent must end by itself, and the slot be free."""
        task = self.nodeset(node, state, image, **job)
        with self.booted(node, disk, task) as agent:
            ended = self.reaches(task, "succeeded", "failed", "cancelled", "lost")
            agent.wait(60)
        self.is_idle(node)
        return ended

    def captured(self, node: str, image: str, disk: Path, **job: Any) -> api.TaskView:
        """A capture that must go well."""
        done = self.do(node, "image", image, disk, **job)
        assert done.state == "succeeded", f"{done.reason}\n{self.logs()}"
        return done

    # ------------------------------------------------------------ what must be true afterwards

    def is_idle(self, node: str) -> None:
        """The node has no task, no boot file and no slot, and boots its own disk."""
        until(lambda: not self.client.tasks(node=node, active=True).tasks, what=f"{node} is idle")
        assert [view.state for view in self.client.nodes(node).nodes] == ["boot"]
        assert not (self.state / "boot" / f"{node}.cmdline").exists()

    def has_no_remains(self, image: str) -> None:
        """Nothing of an unfinished version lies in the library (the controller's sweep may take a moment)."""
        until(lambda: not self.unfinished(image), what=f"the remains of {image} are gone")

    def unfinished(self, image: str) -> list[str]:
        """The files of a version in the making."""
        return sorted(
            path.name for path in self.library.iterdir() if image in path.name and path.name.endswith(".part")
        )

    def verifies(self, image: str, version: int) -> None:
        """`image` names `version`, and every byte of it is what it was."""
        library = Library.open(self.library)
        assert library.current(image) == version
        assert whole.check(library, library.manifest(ImageRef(image, version)), lambda _: None, deep=True) == []

    def manifest(self, image: str) -> dict[str, Any]:
        """The current manifest as `litho image show --json` prints it."""
        found = json.loads(self.ask("image", "show", image, "--json"))
        assert isinstance(found, dict)
        return found


@contextlib.contextmanager
def running(folder: Path, **timeouts: float) -> Iterator[Bench]:
    """A site in `folder` that runs, with the nodes n01 to n20; `timeouts` are keys of the settings' section of that name."""
    made = Bench(folder / "s", **timeouts)
    made.prepare()
    try:
        made.start()
        made.define("n01-n20")
        yield made
    finally:
        made.remove()
