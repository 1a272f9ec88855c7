"""An import that dies at any of its file operations or at the commit, and one that meets an error at any of them.

Every case ends in one of two states: as it was before, or the whole image with its rows. Nothing lies about.
"""

import asyncio
import contextlib
import errno
import functools
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import LithoError
from litho.library import ImageRef, Library
from litho.library.chunks import ChunkStore, gc
from litho.library.chunks.scrub import check_image
from litho.library.verify import check_streams
from litho_controller.bundle.faults import telling
from litho_controller.bundle.importing import Importer
from litho_controller.bundle.requests import ImportRequest
from litho_controller.store import Store
from support import chunked, images
from support.bundles import INSTALL, NETBOOT, BundleSite, cpio_of, manifest, tarball

CHANGES = (
    *("open", "mkdir", "rmdir", "rename", "replace", "link", "symlink", "unlink", "truncate"),
    *("chmod", "fchmod", "utime", "fsync", "write", "fdopen"),
)
"""The functions of `os` through which an import changes a directory or makes it last."""

State = dict[str, object]


@pytest.fixture(autouse=True)
def every_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Count all of these, and the door of each transaction: the moment between the last rename and the commit."""
    monkeypatch.setattr(images, "OPERATIONS", CHANGES)
    real = Store.write
    door = tmp_path / "door"
    door.touch()

    @contextlib.asynccontextmanager
    async def write(self: Store) -> AsyncIterator[AsyncConnection]:
        with telling(door):
            os.utime(door)
        async with real(self) as conn:
            yield conn

    monkeypatch.setattr(Store, "write", write)


class Ground:
    """A site to begin with, copied for every try."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tries = 0

    def prepare(self) -> None:
        """An empty site, whose install directory is where the tries have theirs."""

        async def make() -> None:
            async with BundleSite.open(self.root / "ground") as site:
                await site.keys(installdir=str(self.root / "try/install"))

        asyncio.run(make())

    def fresh(self) -> Path:
        self.tries += 1
        root = self.root / "try"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.root / "ground", root, symlinks=True)
        return root

    def look(self, root: Path, *, recover: bool) -> tuple[State, list[str]]:
        """What is there, after the next start has put things right."""

        async def see() -> tuple[State, list[str]]:
            async with BundleSite.open(root) as site:
                if recover:
                    await site.importer.recover()
                return await site.state(), site.leftovers()

        return asyncio.run(see())


def import_in(root: Path, bundle: Path, **options: object) -> None:
    async def work() -> None:
        store = await Store.open(f"sqlite+aiosqlite:///{root / 'state/db'}")
        try:
            importer = Importer(store, Library.open(root / "library"), root / "state")
            await importer.run(ImportRequest(tarball=str(bundle), **options))  # type: ignore[arg-type]
        finally:
            await store.close()

    asyncio.run(work())


def plain(state: State) -> State:
    """Without what differs from one import to the next: the random part of names kept aside, and the library's temporary
    files, which it sweeps up by age.
    """
    temporary = re.compile(r"library/\.[^/]+\.[0-9a-f]{12}\.part")
    kept = {name: value for name, value in state.items() if not temporary.fullmatch(name)}
    return {re.sub(r"\.old-[0-9a-f]{12}", ".old", name): value for name, value in kept.items()}


def kill_everywhere(
    ground: Ground, bundle: Path, check: Callable[[Path], None], **options: object
) -> tuple[int, set[str]]:
    """Die at step 0, 1, 2, ... until an import comes to its end."""
    before, _ = ground.look(ground.fresh(), recover=False)
    root = ground.fresh()
    import_in(root, bundle, **options)
    after, left = ground.look(root, recover=False)
    assert left == [] or all(".old-" in name for name in left)
    check(root)
    step, seen = 0, set()
    while True:
        root = ground.fresh()
        if not images.dies_at(step, lambda root=root: import_in(root, bundle, **options)):  # type: ignore[misc]
            return step, seen
        state, left = ground.look(root, recover=True)
        kept = [name for name in left if ".old-" not in name]
        if plain(state) == plain(after):
            seen.add("after")
            assert kept == []
        else:
            # What arrived of a good bundle may wait in its room; all else is as it was.
            assert without_rooms(plain(state)) == without_rooms(plain(before)), step
            assert all(is_room(name) for name in kept), (step, kept)
            seen.add("before")
            # And the second try succeeds.
            import_in(root, bundle, **options)
            assert plain(ground.look(root, recover=False)[0]) == plain(after), step
        step += 1


def without_rooms(state: State) -> State:
    return {name: value for name, value in state.items() if not is_room(name)}


def is_room(name: str) -> bool:
    """A room, a directory above one, or what is in one; or a temporary file of the library."""
    return (
        name in ("install", "library")
        or ".litho-import" in name
        or ".import" in name
        or name.startswith("library/.golden")
    )


def everywhere_in(root: Path) -> None:
    assert (root / "install/netboot/rhels5.4/x86_64/foo/rootimg/etc/hostname").read_text() == "node\n"


def netboot_bundle(tmp_path: Path, hostname: str = "node\n") -> Path:
    tree = tmp_path / f"tree-{hostname.strip()}"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text(hostname)
    (tree / "bin").symlink_to("etc")
    return tarball(
        tmp_path / f"{hostname.strip()}.tgz",
        ("manifest.cfg", manifest(**NETBOOT) + f"extra motd:{tmp_path}/try/install/files/here\n".encode()),
        ("rootimg.gz", cpio_of(tree)),
        ("initrd.gz", b"i" * 100),
        ("kernel", b"k" * 100),
        ("motd", hostname.encode()),
    )


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: hundreds of tries, each with a dozen syncs, are about order and not about the disk."""
    with tempfile.TemporaryDirectory(prefix="litho-crash-", dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_an_import_that_dies_at_any_step_leaves_all_or_nothing(ground: Ground, tmp_path: Path) -> None:
    ground.prepare()
    steps, seen = kill_everywhere(ground, netboot_bundle(tmp_path), everywhere_in)
    assert steps > 60 and seen == {"before", "after"}


def test_replacing_an_image_dies_at_any_step_and_the_old_one_is_not_lost(ground: Ground, tmp_path: Path) -> None:
    ground.prepare()
    old = netboot_bundle(tmp_path, "old\n")
    root = ground.fresh()
    import_in(root, old)
    shutil.rmtree(ground.root / "ground")
    shutil.copytree(root, ground.root / "ground", symlinks=True)

    def both(root: Path) -> None:
        everywhere_in(root)
        assert [path.read_text() for path in root.glob("install/netboot/*/*/foo.old-*/rootimg/etc/hostname")] == [
            "old\n"
        ]
        assert [path.read_text() for path in root.glob("install/files/here/motd.old-*")] == ["old\n"]

    steps, seen = kill_everywhere(ground, netboot_bundle(tmp_path), both, replace=True)
    assert steps > 60 and seen == {"before", "after"}


def test_a_captured_disk_dies_at_any_step_and_the_library_is_whole(ground: Ground, tmp_path: Path) -> None:
    bundle = tmp_path / "golden.tar.zst"

    async def make() -> None:
        async with BundleSite.open(tmp_path / "source") as site:
            images.publish(site.library)
            await site.define("golden", {"profile": "golden", "provmethod": "install"}, {})
            await site.export("golden", bundle)

    asyncio.run(make())
    ground.prepare()

    def whole(root: Path) -> None:
        library = Library.open(root / "library")
        assert check_streams(library, library.manifest(ImageRef("golden"))) == []

    steps, seen = kill_everywhere(ground, bundle, whole)
    assert steps > 50 and seen == {"before", "after"}


def test_an_image_of_chunks_dies_at_any_step_and_what_it_stored_is_collected(ground: Ground, tmp_path: Path) -> None:
    bundle, disk = tmp_path / "golden.tar", tmp_path / "disk"
    disk.write_bytes(chunked.contents(1, chunked.MB))

    async def make() -> None:
        async with BundleSite.open(tmp_path / "source") as site:
            chunked.capture(site.library, "golden", disk)
            await site.define("golden", {"profile": "golden", "provmethod": "install"}, {})
            await site.export("golden", bundle)

    asyncio.run(make())
    ground.prepare()
    step, seen, root = 0, set(), ground.fresh()
    while images.dies_at(step, functools.partial(import_in, root, bundle)):
        state, left = ground.look(root, recover=True)
        left = [name for name in left if not name.startswith("library/.chunks/")]
        library = Library.open(root / "library")
        there = library.versions("golden")
        seen.add(bool(there))
        if there:
            assert check_image(library, library.manifest(ImageRef("golden"))) == [], step
            assert state["table osimage"] and left == [], step
        else:
            assert state["table osimage"] == [] and all(map(is_room, left)), step
            for _ in range(3):
                gc.collect(ChunkStore(library), grace_s=0)
            assert not ChunkStore(library).listing().pack, step
            if step % 4 == 0:
                import_in(root, bundle)
                assert check_image(library, library.manifest(ImageRef("golden"))) == [], step
        step, root = step + 1, ground.fresh()
    assert step > 60 and seen == {False, True}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_step_is_told_and_taken_back(ground: Ground, tmp_path: Path, number: int) -> None:
    ground.prepare()
    bundle = tarball(
        tmp_path / "i.tgz",
        ("manifest.cfg", manifest(**INSTALL) + f"extra motd:{tmp_path}/try/install/files\n".encode()),
        ("foo.tmpl", b"template"),
        ("motd", b"hello"),
    )
    before, _ = ground.look(ground.fresh(), recover=False)
    step, failed = 0, 0
    while True:
        root = ground.fresh()
        left = [step]

        def fail() -> None:
            left[0] -= 1  # noqa: B023 - called within the same turn
            if left[0] == -1:  # noqa: B023
                raise OSError(number, os.strerror(number))

        with images.watched(fail):
            try:
                import_in(root, bundle)
                told = ""
            except LithoError as exc:
                told = str(exc)
        reached = left[0] < 0
        state, lying = ground.look(root, recover=True)
        if told:
            failed += 1
            assert without_rooms(state) == without_rooms(before), (step, told)
            assert all(is_room(name) for name in lying)
        else:
            assert (root / "install/custom/rhels5.4/x86_64/foo.tmpl").read_bytes() == b"template"
            assert lying == []
        if not reached:
            break
        step += 1
    assert failed > 20
