"""What a bundle must not reach although it lies below an allowed root, and what an import or export must not trust blindly: a
room that is there, a file that was there a moment ago, a program that unpacks.
"""

# ruff: noqa: ASYNC240 - a test may block the loop that only it uses

import asyncio
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from litho.errors import LithoError, RefusedError
from litho_controller.bundle import collect, rootimg, sums
from litho_controller.bundle.importing import Importer
from litho_controller.bundle.limits import TREE
from litho_controller.bundle.requests import ImportRequest
from support.bundles import INSTALL, NETBOOT, BundleSite, cpio_of, manifest, small_tree, tarball

LINUX = {"profile": "foo", "imagetype": "linux", "osname": "Linux", "osvers": "rhels5.4", "osarch": "x86_64"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[BundleSite]:
    async with BundleSite.open(tmp_path / "site") as opened:
        opened.install.mkdir()
        yield opened


# ---------------------------------------------------------------- places below a root that are nobody's


def with_extra(path: Path, file: str, place: Path) -> Path:
    text = manifest(**INSTALL) + f"extra {file}:{place}\n".encode()
    return tarball(path, ("manifest.cfg", text), ("foo.tmpl", b"template"), (file, b"from a stranger"))


@pytest.mark.parametrize("what", ["library", "trust", "state", "rooms", "link"])
async def test_nothing_is_placed_among_images_keys_states_and_rooms(
    site: BundleSite, tmp_path: Path, what: str
) -> None:
    await site.keys(bundleroots=str(site.root))
    (site.root / "trust").mkdir()
    (site.root / "install/link").symlink_to(site.library.root)
    file, place = {
        "library": ("golden.v2.json", site.library.root),
        "trust": ("stranger.pub", site.root / "trust"),
        "state": ("abc.json", site.root / "state/imports"),
        "rooms": ("once-1", site.install / ".litho-import"),
        "link": ("golden.v2.json", site.install / "link"),
    }[what]
    before = await site.state()
    with pytest.raises(RefusedError, match="keeps for itself") as caught:
        await site.take(with_extra(tmp_path / "b.tgz", file, place))
    assert caught.value.code == "bundle-escape"
    assert await site.state() == before and site.leftovers() == []


async def test_a_file_among_the_rooms_stops_no_import(site: BundleSite, tmp_path: Path) -> None:
    rooms = site.install / ".litho-import"
    rooms.mkdir()
    (rooms / "once-1").write_text("no room")
    again = Importer(site.store, site.library, site.root / "state")
    await again.recover()
    assert not rooms.exists()
    bundle = tarball(tmp_path / "b.tgz", ("manifest.cfg", manifest(**INSTALL)), ("foo.tmpl", b"template"))
    assert (await again.run(ImportRequest(tarball=str(bundle)))).name == "Foo_Image"


# ---------------------------------------------------------------- the room of a reading that was cut short


@pytest.mark.parametrize("stranger", ["unlisted", "exchanged"])
async def test_what_lies_in_a_room_from_another_bundle_is_not_taken_for_the_same(
    site: BundleSite, tmp_path: Path, stranger: str
) -> None:
    """Two bundles with the same SHA256SUMS share a room. One of them has something else in the place of the kernel."""
    files = {"kernel": b"K" * 2000, "initrd.gz": b"I" * 2000, "rootimg.gz": cpio_of(small_tree(tmp_path / "tree"))}
    text = manifest(**NETBOOT)
    promised = {"manifest.cfg": hashlib.sha256(text).hexdigest()}
    promised |= {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    front = [("manifest.cfg", text), (sums.FILE, sums.dump(promised, 0))]
    first = ("evil", b"E" * 2000) if stranger == "unlisted" else ("initrd.gz", files["initrd.gz"])
    flag = threading.Event()

    def tick(done: int, total: int) -> None:
        room = next((site.install / ".litho-import").glob("*"), None)
        if room is not None and any(path.name.startswith("m") for path in room.iterdir()):
            flag.set()

    bad = tarball(tmp_path / "bad.tgz", *front, first, *files.items())
    with pytest.raises(LithoError):
        await site.importer.run(ImportRequest(tarball=str(bad)), tick=tick, cancelled=flag)
    good = tarball(tmp_path / "good.tgz", *front, *files.items())
    await site.take(good)
    home = site.install / "netboot/rhels5.4/x86_64/foo"
    assert (home / "kernel").read_bytes() == files["kernel"]
    assert (home / "initrd.gz").read_bytes() == files["initrd.gz"]
    assert site.leftovers() == []


# ---------------------------------------------------------------- an export while its files change


async def test_a_file_that_grew_or_was_exchanged_before_it_is_read_makes_no_bundle(
    site: BundleSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = site.install / "netboot/rhels5.4/x86_64/foo"
    home.mkdir(parents=True)
    for name in ("kernel", "initrd-stateless.gz"):
        (home / name).write_bytes(name.encode())
    (home / "rootimg.gz").write_bytes(cpio_of(small_tree(tmp_path / "tree")))
    await site.define("Foo", {**LINUX, "provmethod": "netboot"}, {})
    real = collect.need_distinct

    def replaced(files: list[collect.Piece]) -> None:
        """What an import with --replace does: the directory is another one from now on."""
        real(files)
        if home.with_name("old").exists():
            return
        home.rename(home.with_name("old"))
        home.mkdir()
        for path in home.with_name("old").iterdir():
            (home / path.name).write_bytes(path.read_bytes() + b"and more")

    monkeypatch.setattr(collect, "need_distinct", replaced)
    for form in ("litho", "xcat"):
        with pytest.raises(LithoError, match="changed while it was exported"):
            await site.export("Foo", tmp_path / "foo.tgz", form=form)
        assert not (tmp_path / "foo.tgz").exists() and list(tmp_path.glob(".*part")) == []
        shutil.rmtree(home.with_name("old"))


# ---------------------------------------------------------------- squashfs


def squashed(tree: Path, image: Path, *more: str) -> Path:
    subprocess.run(["mksquashfs", tree, image, "-quiet", "-no-progress", *more], check=True, stdout=subprocess.DEVNULL)
    return image


def test_a_link_that_climbs_out_of_a_squashfs_is_refused_as_in_an_archive(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/fine").symlink_to("../etc/hostname")
    (tree / "absolute").symlink_to("/etc/hostname")
    image = squashed(tree, tmp_path / "fine.sfs")
    assert rootimg.expand(image, tmp_path / "fine").kind == "squashfs"
    (tree / "a/evil").symlink_to("../../etc/shadow")
    with pytest.raises(RefusedError, match="a link that leaves its tree") as caught:
        rootimg.expand(squashed(tree, tmp_path / "evil.sfs"), tmp_path / "evil")
    assert caught.value.code == "bundle-escape"


def test_a_squashfs_that_would_not_fit_or_is_a_bomb_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "zeros").touch()
    os.truncate(tree / "zeros", TREE.ratio_from + 1)
    image = squashed(tree, tmp_path / "bomb.sfs")
    with pytest.raises(RefusedError, match="times its size") as caught:
        rootimg.expand(image, tmp_path / "one")
    assert caught.value.code == "bundle-bomb"
    (tree / "zeros").write_bytes(os.urandom(1 << 20))
    image = squashed(tree, tmp_path / "large.sfs")
    monkeypatch.setattr(rootimg, "_free", lambda path: TREE.reserve + 1000)
    with pytest.raises(LithoError) as full:
        rootimg.expand(image, tmp_path / "two")
    assert full.value.code == "no-space"


# ---------------------------------------------------------------- what is no file, and two at once


async def test_a_pipe_is_no_bundle_and_is_not_waited_for(site: BundleSite, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tgz")
    with pytest.raises(LithoError, match="no plain file"):
        await asyncio.wait_for(site.take(tmp_path / "pipe.tgz"), 60)


async def test_of_two_imports_of_one_name_at_once_one_is_refused(site: BundleSite, tmp_path: Path) -> None:
    bundles = [
        tarball(tmp_path / f"{n}.tgz", ("manifest.cfg", manifest(**INSTALL)), ("foo.tmpl", b"template %d" % n))
        for n in range(2)
    ]
    done = await asyncio.gather(*map(site.take, bundles), return_exceptions=True)
    refused = [one for one in done if isinstance(one, RefusedError)]
    assert len(refused) == 1 and refused[0].code == "osimage-exists"
    text = (site.install / "custom/rhels5.4/x86_64/foo.tmpl").read_bytes()
    assert text == b"template %d" % (1 - done.index(refused[0]))
    assert site.leftovers() == []
