"""Fixtures of the lab. A test's folder with every program's log is kept when it fails: build/e2e/logs/<test>."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import disks, figures, namespace, shared
from .lab.controller import Controller
from .lab.machine import Disk, Machine, mac
from .lab.network import Network, lay_out_tftp, serve_dhcp
from .lab.nfs import Nfs
from .lab.wire import Wire
from .lab.world import World

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build/e2e"
FIRST = ("test_uefi", "test_troubles", "test_capture_restore", "test_many", "test_pxe", "test_discover")


def pytest_configure(config: pytest.Config) -> None:
    """Only in a namespace of its own: bridges and servers must not appear on the machine itself."""
    if not namespace.inside():
        raise pytest.UsageError("the lab needs a namespace of its own: run scripts/e2e, or make e2e")
    config.addinivalue_line("markers", "quick: the main job alone, capture and restore")
    config.addinivalue_line("markers", "scenario(title): what the table of scenarios calls it")
    config.stash[_ROWS] = []
    namespace.prepare()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: what is left for the end is short, so two labs end together."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests that this lab is the first to take; another lab runs the others."""
    if session.testsfailed or session.config.option.collectonly:
        return None  # pytest's own loop says it
    for item in session.items:
        # The restore has the image that the capture made.
        if not shared.take("quick" if item.get_closest_marker("quick") else item.nodeid):
            continue
        # Which one is next nobody knows yet, so nothing stays set up for it.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
    return True


@pytest.fixture(autouse=True)
def row(request: pytest.FixtureRequest) -> figures.Row:
    """The scenario's line in the table."""
    marker = request.node.get_closest_marker("scenario")
    plain = re.sub(r"^test_", "", request.node.name).replace("_", " ")
    made = figures.Row(title=marker.args[0] if marker else plain)
    request.config.stash[_ROWS].append(made)
    figures.write(request.config.stash[_ROWS])
    request.node.stash[_ROW] = made
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Let fixtures and the table know how the test went."""
    report = yield
    if call.when == "call":
        item.stash[_FAILED] = report.failed
    if made := item.stash.get(_ROW, None):
        made.seconds += report.duration
        if call.when == "call":
            made.outcome = report.outcome
        elif report.failed:
            made.outcome = "failed"
        if report.failed and call.excinfo:
            made.reason = made.reason or call.excinfo.exconly(tryshort=True).strip().partition("\n")[0]
        figures.write(item.config.stash[_ROWS])
    return report


_FAILED: pytest.StashKey[bool] = pytest.StashKey()
_ROW: pytest.StashKey[figures.Row] = pytest.StashKey()
_ROWS: pytest.StashKey[list[figures.Row]] = pytest.StashKey()


@pytest.fixture(scope="session")
def rootimg() -> Path:
    """What `make rootimg` made."""
    folder = Path(os.environ.get("LITHO_ROOTIMG", ROOT / "build/rootimg"))
    assert (folder / "SHA256SUMS").is_file(), f"there is no root image in {folder}: run make rootimg"
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The disk of a node that is worth keeping."""
    with shared.alone(CACHE):
        return disks.bios_disk(CACHE)


class Lab:
    """Everything that a scenario needs, up and running."""

    def __init__(self, folder: Path, rootimg: Path, row: figures.Row) -> None:
        self.world = World(folder)
        self.network = Network(self.world)
        self.wire = Wire(self.world)
        self.controller = Controller(self.world, rootimg)
        self.nfs = Nfs(self.world, self.controller.library)
        self.rootimg = rootimg
        self._row = row
        self._machines: list[Machine] = []

    def open(self) -> None:
        """Start every server."""
        self.controller.make_library()
        lay_out_tftp(self.controller.tftp, self.rootimg)
        serve_dhcp(self.world, self.controller.tftp, self.controller.boot_script)
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

    def figure(self, name: str, value: str | float) -> None:
        """Something measured, for the table; a number is seconds."""
        self._row.figures[name] = value if isinstance(value, str) else f"{value:.1f} s"

    def close(self) -> None:
        """Switch everything off."""
        for machine in self._machines:
            if machine.running:
                machine.cut_power()
        self.wire.close()
        self.world.close()
        self.network.close()


@pytest.fixture
def lab(request: pytest.FixtureRequest, rootimg: Path, row: figures.Row) -> Iterator[Lab]:
    """A lab of the test's own."""
    folder = CACHE / "logs" / re.sub(r"[^A-Za-z0-9_-]+", "-", request.node.name).strip("-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = Lab(folder, rootimg, row)
    try:
        made.open()
        yield made
    finally:
        made.close()
        if not request.node.stash.get(_FAILED, True) and "LITHO_KEEP_LOGS" not in os.environ:
            shutil.rmtree(folder)


class Keeper:
    """The library with the captured golden image, for tests that restore it: kept by the first that has captured it."""

    def __init__(self) -> None:
        self._library = shared.folder() / "library"

    def keep(self, lab: Lab) -> None:
        """Put a copy of the lab's library aside."""
        shutil.copytree(lab.controller.library, self._library)

    def give(self, lab: Lab, golden: Path) -> None:
        """Let the lab have the image `golden`; it is captured now when nobody has yet."""
        if self._library.is_dir():
            lab.controller.adopt(self._library)
            return
        n90 = lab.node(90, Disk(file=disks.layer(golden, lab.world.folder / "kept.qcow2"), bus="ide"))
        lab.controller.litho("nodeset", "n90", "image=golden", "--engine", "partimage", "--then", "poweroff")
        n90.power_on()
        lab.controller.wait_task("n90", "succeeded", 500)
        n90.wait_off(60)
        self.keep(lab)


@pytest.fixture
def keeper() -> Keeper:
    """For the test that captures it anyway."""
    return Keeper()


@pytest.fixture
def golden_image(lab: Lab, golden: Path, keeper: Keeper) -> str:
    """The name of the golden disk's image, in the lab's library."""
    keeper.give(lab, golden)
    return "golden"
