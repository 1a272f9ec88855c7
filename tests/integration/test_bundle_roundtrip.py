"""Export from one site, import at another, export again: the same rows, the same files, the same bundle."""

import gzip
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from litho import process
from litho.errors import RefusedError
from litho.library import ImageRef, Library
from litho.library.verify import check_streams
from litho_controller.tables import rows
from support.bundles import INSTALL, NETBOOT, BundleSite, cpio_of, files_below, manifest, small_tree, tarball
from support.images import publish


def run(*argv: str | Path) -> process.Done:
    return process.run(argv)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[BundleSite]:
    async with BundleSite.open(tmp_path / "here") as site:
        yield site


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[BundleSite]:
    async with BundleSite.open(tmp_path / "there") as site:
        yield site


async def define_install(site: BundleSite) -> None:
    custom = site.install / "custom/rhels5.4/x86_64"
    custom.mkdir(parents=True)
    (custom / "foo.tmpl").write_text("#INCLUDE#\n")
    await site.define(
        "Foo_Image",
        {
            "profile": "foo",
            "imagetype": "linux",
            "provmethod": "install",
            "osname": "Linux",
            "osvers": "rhels5.4",
            "osarch": "x86_64",
            "comments": 'with "quotes", a comma',
        },
        {"template": str(custom / "foo.tmpl"), "pkgdir": f"{site.install}/rhels5.4/x86_64", "addkcmdline": "quiet"},
    )


async def define_netboot(site: BundleSite, tree: Path) -> None:
    home = site.install / "netboot/rhels5.4/x86_64/foo"
    home.mkdir(parents=True)
    (home / "kernel").write_bytes(b"kernel" * 1000)
    (home / "initrd-stateless.gz").write_bytes(gzip.compress(b"initrd" * 1000))
    (home / "rootimg.gz").write_bytes(cpio_of(tree))
    await site.define(
        "Foo_Stateless",
        {
            "profile": "foo",
            "imagetype": "linux",
            "provmethod": "netboot",
            "osname": "Linux",
            "osvers": "rhels5.4",
            "osarch": "x86_64",
            "synclists": f"{site.install}/custom/netboot/foo.synclist",
        },
        {"rootimgdir": str(home), "permission": "755", "postinstall": f"{site.install}/custom/foo.postinstall"},
    )


@pytest.mark.parametrize("ending", ["tgz", "tar.zst", "tar.xz", "tar"])
async def test_an_install_image_comes_back_the_same_in_every_packing(
    here: BundleSite, there: BundleSite, tmp_path: Path, ending: str
) -> None:
    await define_install(here)
    first, second = tmp_path / f"first.{ending}", tmp_path / f"second.{ending}"
    await here.export("Foo_Image", first)
    await there.take(first)
    assert (there.install / "custom/rhels5.4/x86_64/foo.tmpl").read_text() == "#INCLUDE#\n"
    for table in ("osimage", "linuximage"):
        ours = {key: value.replace(str(here.root), "") for key, value in (await here.row(table, "Foo_Image")).items()}
        theirs = {
            key: value.replace(str(there.root), "") for key, value in (await there.row(table, "Foo_Image")).items()
        }
        assert ours == theirs
    # Below another install directory the bundle would say so; from the same one it is the same, byte by byte.
    for site in (here, there):
        await site.keys(installdir=str(site.install))
    again = tmp_path / f"again.{ending}"
    await here.export("Foo_Image", again)
    assert again.read_bytes() == first.read_bytes()
    await there.export("Foo_Image", second)
    async with BundleSite.open(tmp_path / "third") as third:
        await third.take(second)
        assert await third.row("osimage", "Foo_Image") == await there.row("osimage", "Foo_Image")


async def test_a_bundle_exported_again_on_an_emptied_site_is_the_same_byte_for_byte(
    here: BundleSite, tmp_path: Path
) -> None:
    await define_install(here)
    await define_netboot(here, small_tree(tmp_path / "tree"))
    (tmp_path / "motd").write_text("hello\n")
    extra = (f"{tmp_path}/motd:{here.install}/files",)
    for name in ("Foo_Image", "Foo_Stateless"):
        await here.export(name, tmp_path / f"{name}.tgz", extra=extra)
    before = files_below(here.install)
    rows_before = {
        name: [await here.row(table, name) for table in ("osimage", "linuximage")]
        for name in ("Foo_Image", "Foo_Stateless")
    }
    shutil.rmtree(here.install)
    async with here.store.write() as conn:
        for table in ("osimage", "linuximage"):
            await rows.remove(conn, table, ["Foo_Image", "Foo_Stateless"])
    for name in ("Foo_Image", "Foo_Stateless"):
        await here.take(tmp_path / f"{name}.tgz", all_columns=True, replace=True)
        assert [await here.row(table, name) for table in ("osimage", "linuximage")] == rows_before[name]
        await here.export(name, tmp_path / f"{name}-2.tgz", extra=(f"{here.install}/files/motd:{here.install}/files",))
        assert (tmp_path / f"{name}-2.tgz").read_bytes() == (tmp_path / f"{name}.tgz").read_bytes()
    after = files_below(here.install)
    assert {name: value for name, value in after.items() if name in before} == before
    assert after["files/motd"] == (0o644, b"hello\n")
    assert here.leftovers() == []


async def test_a_netboot_image_is_expanded_beside_itself(here: BundleSite, there: BundleSite, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    await define_netboot(here, tree)
    await here.export("Foo_Stateless", tmp_path / "foo.tgz")
    report = await there.take(tmp_path / "foo.tgz")
    home = there.install / "netboot/rhels5.4/x86_64/foo"
    assert {path.name for path in home.iterdir()} == {"kernel", "initrd-stateless.gz", "rootimg.gz", "rootimg"}
    expanded = files_below(home / "rootimg")
    wanted = files_below(tree, skip=())
    del wanted["dev/null"]
    wanted["usr/bin/su"] = wanted["usr/bin/su2"] = (0o755, b"su" * 3000)
    assert expanded == wanted
    assert (home / "rootimg/usr/bin/su").stat().st_nlink == 2
    told = " ".join(report.notes)
    assert (
        "set-uid" in told
        and "devices" in told
        and "postinstall was left out" in told
        and "synclists was left out" in told
    )
    row = await there.row("linuximage", "Foo_Stateless")
    assert row == {"imagename": "Foo_Stateless", "rootimgdir": str(home), "permission": "755"}


async def test_the_seeds_own_bundles_are_taken(there: BundleSite, tmp_path: Path) -> None:
    tarball(tmp_path / "i.tgz", ("manifest.cfg", manifest(**INSTALL)), ("foo.tmpl", b"template"))
    report = await there.take(tmp_path / "i.tgz")
    assert (there.install / "custom/rhels5.4/x86_64/foo.tmpl").read_bytes() == b"template"
    assert report.media == f"{there.install}/rhels5.4/x86_64" and not report.media_there
    assert await there.row("osimage", "Foo_Image") == {
        "imagename": "Foo_Image",
        "profile": "foo",
        "imagetype": "linux",
        "provmethod": "install",
        "osname": "Linux",
        "osvers": "rhels5.4",
        "osarch": "x86_64",
        "osdistroname": "rhels5.4-x86_64",
    }
    (there.install / "rhels5.4/x86_64").mkdir(parents=True)
    assert (await there.take(tmp_path / "i.tgz", rename="Bar")).media_there
    assert (there.install / "custom/rhels5.4/x86_64/Bar.tmpl").read_bytes() == b"template"
    assert (await there.row("osimage", "Bar"))["profile"] == "Bar"

    tree = small_tree(tmp_path / "tree")
    members = [
        ("rootimg.gz", cpio_of(tree)),
        ("initrd.gz", b"i"),
        ("kernel", b"k"),
        ("manifest.cfg", manifest(**NETBOOT)),
    ]
    tarball(tmp_path / "n.tgz", *members)
    await there.take(tmp_path / "n.tgz")
    home = there.install / "netboot/rhels5.4/x86_64/foo"
    assert (home / "initrd.gz").read_bytes() == b"i" and (home / "rootimg/etc/hostname").read_text() == "node\n"
    assert (await there.row("linuximage", "Foo_Stateless"))["rootimgdir"] == str(home)


async def test_a_captured_disk_travels_with_all_its_parts(here: BundleSite, there: BundleSite, tmp_path: Path) -> None:
    publish(here.library)
    publish(here.library, stream=b"the second version " * 9000)
    await here.define("golden", {"profile": "golden", "imagetype": "linux", "provmethod": "install"}, {})
    await here.export("golden", tmp_path / "golden.tar.zst")
    report = await there.take(tmp_path / "golden.tar.zst")
    assert (report.version, report.method) == (1, "image")
    arrived = there.library.manifest(ImageRef("golden"))
    assert check_streams(there.library, arrived) == []
    assert [part.stream_sha256 for part in arrived.parts] == [
        part.stream_sha256 for part in here.library.manifest(ImageRef("golden", 2)).parts
    ]
    await there.export("golden", tmp_path / "again.tar.zst")
    # The sites' install directories differ, and with them tables.json; the image itself is the same.
    assert "golden.v1-sda1.partclone.zst" in run("tar", "tf", tmp_path / "again.tar.zst").out
    with pytest.raises(RefusedError, match="already"):
        await there.take(tmp_path / "golden.tar.zst")
    assert (await there.take(tmp_path / "golden.tar.zst", replace=True)).version == 2
    assert (await there.take(tmp_path / "golden.tar.zst", rename="silver")).name == "silver"
    assert check_streams(there.library, there.library.manifest(ImageRef("silver"))) == []
    assert there.library.versions("golden") == [1, 2] and there.leftovers() == []
    # Unpacked by hand, the bundle's files are a library's.
    by_hand = tmp_path / "by-hand"
    by_hand.mkdir()
    run("tar", "xf", tmp_path / "golden.tar.zst", "-C", by_hand)
    run("sh", "-c", f"cd {by_hand} && sha256sum --quiet -c SHA256SUMS")
    assert check_streams(Library.create(by_hand), Library.open(by_hand).manifest(ImageRef("golden", 1))) == []
