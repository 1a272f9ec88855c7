"""The commands against a controller that runs: export, import, and what nodeset says afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.site import Site

from litho import process
from litho.errors import EngineError
from litho.library import Library
from support.bundles import INSTALL, NETBOOT, cpio_of, manifest, small_tree, tarball
from support.images import publish


class Commands:
    """A controller, and commands typed in a directory."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder

    def __call__(self, *words: str | Path, ok: int = 0) -> str:
        """What a command prints; on errors what it says."""
        env = {"LITHO_CONFIG": str(self.site.config)}
        litho = self.site._argv("litho", *words)
        done = process.run(["sh", "-c", 'cd "$0" && exec "$@"', self.folder, *litho], ok=(ok,), env=env)
        return done.out if ok == 0 else done.err


@pytest.fixture
def litho(tmp_path: Path) -> Iterator[Commands]:
    site = Site(tmp_path / "site")
    site.prepare()
    Library.create(site.library)
    folder = tmp_path / "folder"
    folder.mkdir()
    with site.controller():
        commands = Commands(site, folder)
        commands("tabch", "key=installdir", f"site.value={tmp_path}/install")
        commands("node", "add", "n01", "--mac", "52:54:00:00:00:01")
        yield commands


def test_a_bundle_goes_in_and_out_under_both_names(litho: Commands, tmp_path: Path) -> None:
    tarball(litho.folder / "seed.tgz", ("manifest.cfg", manifest(**INSTALL)), ("foo.tmpl", b"template"))
    told = litho("import", "seed.tgz", "--dry-run")
    assert "would be placed" in told and "nothing was changed" in told
    told = litho("xcatimport", "seed.tgz")
    assert "run copycds with the media of rhels5.4 x86_64" in told and "now: nodeset" in told
    assert "Foo_Image" in litho("tabdump", "osimage")
    assert litho("xcatimport", "seed.tgz", ok=1).startswith("Error: there is an osimage Foo_Image already")
    assert litho("import", "seed.tgz", ok=4).startswith("litho: there is an osimage Foo_Image already")
    assert litho("xcatexport", "Foo_Image").startswith(f"Foo_Image: {litho.folder}/Foo_Image.tgz")
    assert (litho.folder / "Foo_Image.tgz").is_file()
    assert "linuximage.template" not in litho(
        "export", "Foo_Image", "again.tar.xz", "--extra", "seed.tgz:/x/y", "--json"
    )
    assert "no osimage Nobody" in litho("export", "Nobody", ok=3)
    assert "is not SRC:DEST" in litho("export", "Foo_Image", "x.tgz", "--extra", "seed.tgz", ok=4)
    (litho.folder / "junk.tgz").write_bytes(os.urandom(2000))
    assert "is it a tar file?" in litho("import", "junk.tgz", ok=4)
    assert "does not exist" in litho("import", "gone.tgz", ok=1)


def test_a_captured_disk_is_printed_from_an_imported_bundle(litho: Commands, tmp_path: Path) -> None:
    elsewhere = Library.create(tmp_path / "elsewhere")
    publish(elsewhere)
    names = sorted(path.name for path in elsewhere.root.glob("golden.v1*"))
    text = manifest(name="golden", profile="golden", method="image", image="golden.v1.json")
    members = [(name, (elsewhere.root / name).read_bytes()) for name in names]
    tarball(
        litho.folder / "golden.tgz",
        ("manifest.cfg", text),
        *sorted(members, key=lambda one: one[0] != "golden.v1.json"),
    )
    assert "as version 1" in litho("import", "golden.tgz")
    assert "n01: install image-x86-golden" in litho("nodeset", "n01", "osimage=golden")
    litho("export", "golden:1", "out.tar.zst")
    assert "as version 1" in litho("import", "out.tar.zst", "--rename", "silver")


def test_a_netboot_image_is_placed_whole(litho: Commands, tmp_path: Path) -> None:
    rootimg = cpio_of(small_tree(tmp_path / "tree"))
    files = [("rootimg.gz", rootimg), ("initrd.gz", b"i"), ("kernel", b"k")]
    tarball(litho.folder / "net.tgz", ("manifest.cfg", manifest(**NETBOOT)), *files)
    told = litho("import", "net.tgz")
    assert "set-uid" in told
    home = tmp_path / "install/netboot/rhels5.4/x86_64/foo"
    assert (home / "rootimg/etc/hostname").is_file()
    assert f"rootimgdir={home}" in litho("lsdef", "-t", "osimage", "Foo_Stateless")


def test_an_import_that_a_dead_controller_left_is_put_right_at_the_next_start(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.prepare()
    Library.create(site.library)
    room = tmp_path / "install/.litho-import/once-1"
    room.mkdir(parents=True)
    (room / "000000").write_text("old and aside")
    placed = tmp_path / "install/new"
    placed.write_text("half an import")
    journals = site.state / "imports"
    journals.mkdir(parents=True)
    (journals / "abc.json").write_text(
        f'{{"format":1,"id":"abc","name":"Foo","rooms":["{room}"],"folders":[],'
        f'"steps":[{{"staged":"{room}/staged","target":"{placed}","aside":""}}]}}'
    )
    with site.controller():
        pass
    assert not placed.exists() and list(journals.iterdir()) == []
    log = (site.root / "controller.log").read_text()
    assert "an import of Foo that was interrupted was taken back" in log


def test_a_relative_path_is_no_path_for_the_daemon(litho: Commands) -> None:
    from litho.errors import UsageError
    from litho_controller.bundle.requests import ImportRequest
    from litho_controller.client import Client

    client = Client(litho.site.root / "litho.sock")
    with pytest.raises(UsageError, match="absolute"):
        list(client.import_bundle(ImportRequest(tarball="x.tgz")))
    with pytest.raises(EngineError):
        litho("import", "gone.tgz")
