"""Fixtures of the lab. A test's folder with every program's log is kept when it fails: build/e2e/logs/<test>."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import disks, namespace
from .lab.controller import Controller
from .lab.machine import Disk, Machine, mac
from .lab.network import Network, serve_dhcp
from .lab.nfs import Nfs
from .lab.world import World

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build/e2e"


def pytest_configure(config: pytest.Config) -> None:
    """Only in a namespace of its own: bridges and servers must not appear on the machine itself."""
    if not namespace.inside():
        raise pytest.UsageError("the lab needs a namespace of its own: run scripts/e2e, or make e2e")


@pytest.fixture(scope="session", autouse=True)
def _namespace() -> None:
    namespace.prepare()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Let fixtures know how the test went."""
    report = yield
    if call.when == "call":
        item.stash[_FAILED] = report.failed
    return report


_FAILED: pytest.StashKey[bool] = pytest.StashKey()


@pytest.fixture(scope="session")
def rootimg() -> Path:
    """What `make rootimg` made."""
    folder = Path(os.environ.get("LITHO_ROOTIMG", ROOT / "build/rootimg"))
    assert (folder / "SHA256SUMS").is_file(), f"there is no root image in {folder}: run make rootimg"
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The disk of a node that is worth keeping."""
    return disks.bios_disk(CACHE)


class Lab:
    """Everything that a scenario needs, up and running."""

    def __init__(self, folder: Path, rootimg: Path) -> None:
        self.world = World(folder)
        self.network = Network(self.world)
        self.controller = Controller(self.world, rootimg)
        self.nfs = Nfs(self.world, self.controller.library)
        self._machines: list[Machine] = []

    def open(self) -> None:
        """Start every server."""
        serve_dhcp(self.world, self.controller.boot_script)
        self.nfs.start()
        self.controller.start()
        self.controller.export_library()

    def node(self, number: int, *attached: Disk, known: bool = True, **machine: object) -> Machine:
        """The machine of node `n<number>`, defined at the controller."""
        name = f"n{number:02d}"
        made = Machine(self.world, self.network, name, mac(number), list(attached), **machine)  # type: ignore[arg-type]
        self._machines.append(made)
        if known:
            self.controller.litho("node", "add", name, "--mac", made.mac)
        return made

    def address(self, machine: Machine) -> str:
        """What DHCP gave to a machine."""
        leases = [line.split() for line in (self.world.folder / "leases").read_text().splitlines()]
        return next(words[2] for words in leases if words[1] == machine.mac)

    def close(self) -> None:
        """Switch everything off."""
        for machine in self._machines:
            if machine.running:
                machine.cut_power()
        self.world.close()
        self.network.close()


@pytest.fixture
def lab(request: pytest.FixtureRequest, rootimg: Path) -> Iterator[Lab]:
    """A lab of the test's own."""
    folder = CACHE / "logs" / re.sub(r"[^A-Za-z0-9_-]+", "-", request.node.name).strip("-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = Lab(folder, rootimg)
    try:
        made.open()
        yield made
    finally:
        made.close()
        if not request.node.stash.get(_FAILED, True) and "LITHO_KEEP_LOGS" not in os.environ:
            shutil.rmtree(folder)
