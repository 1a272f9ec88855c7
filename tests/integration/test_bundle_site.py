"""What a person does with bundles: sign and verify, look first, replace, rename, try again; and what xCAT's bundles become."""

# ruff: noqa: ASYNC240 - a test may block the loop that only it uses

import gzip
import os
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from litho import process
from litho.errors import CancelledError, IntegrityError, LithoError, NotFoundError, RefusedError, UsageError
from litho.library import ImageRef
from litho.library.verify import check_streams
from litho_controller.bundle import intake
from litho_controller.bundle.limits import BUNDLE
from litho_controller.bundle.requests import ImportRequest
from support.bundles import INSTALL, NETBOOT, BundleSite, cpio_of, files_below, manifest, small_tree, tarball
from support.images import flip, publish

LINUX = {"profile": "foo", "imagetype": "linux", "osname": "Linux", "osvers": "rhels5.4", "osarch": "x86_64"}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[BundleSite]:
    async with BundleSite.open(tmp_path / "here") as site:
        yield site


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[BundleSite]:
    async with BundleSite.open(tmp_path / "there") as site:
        site.install.mkdir()
        yield site


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """The seed's own install bundle."""
    return tarball(tmp_path / "Foo_Image.tgz", ("manifest.cfg", manifest(**INSTALL)), ("foo.tmpl", b"template"))


def netboot_home(site: BundleSite, method: str = "netboot") -> Path:
    home = site.install / "netboot/rhels5.4/x86_64/foo"
    home.mkdir(parents=True)
    (home / "kernel").write_bytes(b"kernel")
    (home / f"initrd-{'stateless' if method == 'netboot' else 'statelite'}.gz").write_bytes(gzip.compress(b"initrd"))
    return home


# ---------------------------------------------------------------- export says what is missing


@pytest.mark.parametrize("column", ["provmethod", "profile", "osvers", "osarch"])
async def test_an_export_names_the_column_that_is_empty(here: BundleSite, tmp_path: Path, column: str) -> None:
    cells = {**LINUX, "provmethod": "install"}
    del cells[column]
    await here.define("Foo", cells, {})
    with pytest.raises(RefusedError, match=f"osimage.{column} is empty"):
        await here.export("Foo", tmp_path / "foo.tgz")
    assert list(tmp_path.glob("*foo*")) == []


async def test_an_export_says_what_it_does_not_find(here: BundleSite, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no osimage Nobody"):
        await here.export("Nobody", tmp_path / "foo.tgz")
    await here.define("Foo", {**LINUX, "provmethod": "install"}, {})
    with pytest.raises(RefusedError, match=r"linuximage\.template is empty"):
        await here.export("Foo", tmp_path / "foo.tgz")
    await here.define("Foo", {"provmethod": "sysclone"}, {})
    with pytest.raises(RefusedError, match=r"osimage\.provmethod is 'sysclone'"):
        await here.export("Foo", tmp_path / "foo.tgz")
    await here.define("Foo", {"provmethod": "netboot"}, {})
    with pytest.raises(RefusedError, match=r"linuximage\.rootimgdir means"):
        await here.export("Foo", tmp_path / "foo.tgz")
    netboot_home(here)
    with pytest.raises(NotFoundError, match="no packed root image"):
        await here.export("Foo", tmp_path / "foo.tgz")
    (tmp_path / "there.tgz").touch()
    with pytest.raises(RefusedError, match="exists already"):
        await here.export("Foo", tmp_path / "there.tgz")
    # A tarball takes the place of a file only: never that of a device.
    pipe = tmp_path / "pipe.tgz"
    os.mkfifo(pipe)
    with pytest.raises(RefusedError, match="is not a file"):
        await here.export("Foo", pipe, replace=True)
    assert pipe.is_fifo()
    with pytest.raises(UsageError, match="does not say how to pack"):
        await here.export("Foo", tmp_path / "foo.zip")


async def test_a_file_that_changes_while_it_is_exported_makes_no_bundle(
    here: BundleSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = netboot_home(here)
    (home / "rootimg.gz").write_bytes(cpio_of(small_tree(tmp_path / "tree")))
    await here.define("Foo", {**LINUX, "provmethod": "netboot"}, {})
    from litho_controller.bundle import sums

    real = sums.dump

    def dump(*args: object) -> bytes:
        (home / "kernel").write_bytes(b"kernex")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(sums, "dump", dump)
    with pytest.raises(LithoError, match="changed while it was exported"):
        await here.export("Foo", tmp_path / "foo.tgz")
    assert not (tmp_path / "foo.tgz").exists() and list(tmp_path.glob(".*part")) == []


async def test_a_damaged_part_of_a_captured_disk_is_not_exported(here: BundleSite, tmp_path: Path) -> None:
    publish(here.library)
    await here.define("golden", {"profile": "golden", "provmethod": "install"}, {})
    flip(here.library.root / "golden.v1-sda1.partclone.zst", 20)
    with pytest.raises(LithoError, match="not what its manifest says"):
        await here.export("golden", tmp_path / "golden.tgz")


# ---------------------------------------------------------------- look, replace, rename


async def test_a_dry_run_tells_everything_and_changes_nothing(there: BundleSite, seed: Path) -> None:
    before = await there.state()
    report = await there.take(seed, dry_run=True)
    assert report.placed == (f"{there.install}/custom/rhels5.4/x86_64/foo.tmpl",)
    assert report.osimage["osvers"] == "rhels5.4" and "SHA256SUMS" in report.notes[0]
    assert await there.state() == before and there.leftovers() == []


async def test_what_is_there_is_refused_kept_aside_or_left_alone(there: BundleSite, seed: Path, tmp_path: Path) -> None:
    await there.take(seed)
    with pytest.raises(RefusedError, match="osimage Foo_Image already"):
        await there.take(seed)
    # Another image with the same template: the same bytes are no conflict.
    other = tarball(
        tmp_path / "o.tgz", ("manifest.cfg", manifest(**{**INSTALL, "name": "Other"})), ("foo.tmpl", b"template")
    )
    assert (await there.take(other)).same == (f"{there.install}/custom/rhels5.4/x86_64/foo.tmpl",)
    third = tarball(
        tmp_path / "t.tgz", ("manifest.cfg", manifest(**{**INSTALL, "name": "Third"})), ("foo.tmpl", b"new")
    )
    with pytest.raises(RefusedError, match=r"foo\.tmpl exists already"):
        await there.take(third)
    assert await there.row("osimage", "Third") == {}
    report = await there.take(third, replace=True)
    (aside,) = report.aside
    assert Path(aside).read_bytes() == b"template"
    assert (there.install / "custom/rhels5.4/x86_64/foo.tmpl").read_bytes() == b"new"


async def test_a_file_that_appears_in_the_last_moment_is_not_written_over(
    there: BundleSite, seed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litho_controller.bundle import journal

    target = there.install / "custom/rhels5.4/x86_64/foo.tmpl"
    target.parent.mkdir(parents=True)
    real = journal.place

    def place(made: journal.Journal) -> None:
        target.write_text("somebody else's")
        real(made)

    monkeypatch.setattr(journal, "place", place)
    with pytest.raises(LithoError, match="exists already"):
        await there.take(seed)
    assert target.read_text() == "somebody else's"
    assert await there.row("osimage", "Foo_Image") == {} and there.leftovers() == []


async def test_an_extra_file_goes_to_another_file_system_too(there: BundleSite, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="litho-other-", dir="/dev/shm") as other:
        assert Path(other).stat().st_dev != tmp_path.stat().st_dev
        await there.keys(bundleroots=f"{there.install},{other}")
        text = manifest(**INSTALL) + f"extra motd:{other}/deep/files\n".encode()
        bundle = tarball(tmp_path / "e.tgz", ("manifest.cfg", text), ("foo.tmpl", b"t"), ("motd", b"hello"))
        await there.take(bundle)
        assert files_below(Path(other)) == {
            "deep": ("dir", 0o755),
            "deep/files": ("dir", 0o755),
            "deep/files/motd": (0o644, b"hello"),
        }
        assert there.leftovers() == []


# ---------------------------------------------------------------- signatures


async def test_signed_bundles_are_known_by_whom(here: BundleSite, there: BundleSite, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        process.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / f"{name}.key"])
        process.run(["openssl", "pkey", "-in", tmp_path / f"{name}.key", "-pubout", "-out", tmp_path / f"{name}.pub"])
    custom = here.install / "custom/rhels5.4/x86_64"
    custom.mkdir(parents=True)
    (custom / "foo.tmpl").write_text("template")
    synclist = f"{here.install}/custom/foo.synclist"
    await here.define("Foo", {**LINUX, "provmethod": "install", "synclists": synclist}, {})
    plain, signed = tmp_path / "plain.tgz", tmp_path / "signed.tgz"
    await here.export("Foo", plain)
    assert (await here.export("Foo", signed, sign=str(tmp_path / "ours.key"))).signed
    ours, theirs = str(tmp_path / "ours.pub"), str(tmp_path / "theirs.pub")
    with pytest.raises(RefusedError, match="not signed"):
        await there.take(plain, verify=(ours,))
    with pytest.raises(RefusedError, match="by no key that is trusted"):
        await there.take(signed, verify=(theirs,))
    assert there.leftovers() == []
    report = await there.take(signed, dry_run=True)
    assert report.signed_by == "" and any("not trusted here" in note for note in report.notes)
    report = await there.take(signed, verify=(theirs, ours))
    assert report.signed_by.startswith("ours (")
    # A trusted signature lets the guarded columns in.
    assert (await there.row("osimage", "Foo"))["synclists"] == f"{there.install}/custom/foo.synclist"
    # The site's own rule and trust store.
    await there.keys(bundlesigned="yes")
    with pytest.raises(RefusedError, match="not signed"):
        await there.take(plain, rename="Bar")
    (there.root / "trust").mkdir()
    (there.root / "trust/ours.pub").write_bytes((tmp_path / "ours.pub").read_bytes())
    assert (await there.take(signed, rename="Bar")).signed_by.startswith("ours (")
    # One changed byte behind a good signature.
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    process.run(["tar", "xf", signed, "-C", unpacked])
    (unpacked / "foo.tmpl").write_text("tamplate")
    names = ["manifest.cfg", "SHA256SUMS", "SHA256SUMS.sig", "tables.json", "foo.tmpl"]
    process.run(["tar", "-czf", tmp_path / "bad.tgz", "-C", unpacked, *names])
    with pytest.raises(IntegrityError, match=r"foo\.tmpl.*damaged"):
        await there.take(tmp_path / "bad.tgz", rename="Baz")
    (unpacked / "SHA256SUMS").write_text((unpacked / "SHA256SUMS").read_text().replace("  tables", "   tables"))
    process.run(["tar", "-czf", tmp_path / "bad.tgz", "-C", unpacked, *names])
    with pytest.raises(LithoError):
        await there.take(tmp_path / "bad.tgz", rename="Baz")


# ---------------------------------------------------------------- stopping, and trying again


async def test_an_import_that_is_stopped_goes_on_where_it_was(
    here: BundleSite, there: BundleSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(here.library, stream=os.urandom(3_000_000))
    await here.define("golden", {"profile": "golden", "provmethod": "install"}, {})
    bundle = tmp_path / "golden.tar"
    await here.export("golden", bundle)
    before = await there.state()
    flag = threading.Event()
    ticks: list[int] = []

    def tick(done: int, total: int) -> None:
        """Told after every member: the fifth is the partition table, the sixth would be the first partition."""
        ticks.append(done)
        if len(ticks) == 5:
            flag.set()

    with pytest.raises(CancelledError):
        await there.importer.run(ImportRequest(tarball=str(bundle)), tick=tick, cancelled=flag)
    (room,) = (there.library.root / ".import").iterdir()
    arrived = sorted(path.name for path in room.iterdir() if path.name.startswith("m"))
    assert arrived and there.library.versions("golden") == []
    after = {name: value for name, value in (await there.state()).items() if "/.import" not in name}
    assert after == before
    # The second try writes only what is missing.
    written: list[str] = []
    real = intake.Intake._write

    def write(self: intake.Intake, final: Path, name: str, body: object) -> str:
        written.append(final.name)
        return real(self, final, name, body)  # type: ignore[arg-type]

    monkeypatch.setattr(intake.Intake, "_write", write)
    assert (await there.take(bundle)).version == 1
    assert written and not set(written) & set(arrived)
    assert check_streams(there.library, there.library.manifest(ImageRef("golden"))) == []
    assert there.leftovers() == []


async def test_a_bundle_that_does_not_fit_is_not_begun(
    there: BundleSite, seed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await there.state()
    monkeypatch.setattr(intake, "_free", lambda path: BUNDLE.reserve + 10)
    with pytest.raises(LithoError, match="free") as caught:
        await there.take(seed)
    assert caught.value.code == "no-space"
    assert await there.state() == before and there.leftovers() == []


async def test_a_full_file_system_is_told_and_leaves_nothing(tmp_path: Path, seed: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", small])
    try:
        async with BundleSite.open(small / "site") as site:
            site.install.mkdir()
            tree = tmp_path / "tree"
            tree.mkdir()
            (tree / "big").write_bytes(os.urandom(1 << 20) * 60)
            members = [("rootimg.gz", cpio_of(tree)), ("initrd.gz", b"i"), ("kernel", b"k")]
            bundle = tarball(tmp_path / "big.tar", ("manifest.cfg", manifest(**NETBOOT)), *members, mode="w")
            before = await site.state()
            with pytest.raises(LithoError) as caught:
                await site.take(bundle)
            assert caught.value.code == "no-space"
            assert await site.state() == before and site.leftovers() == []
            await site.take(seed)
    finally:
        process.run(["umount", small])


# ---------------------------------------------------------------- xCAT's bundles


def xcat_bundle(path: Path, manifest_xml: str, **files: bytes) -> Path:
    """As imgexport makes it: `tar czf` of a directory, everything below `./<image>/`."""
    members = [
        ("./Foo/manifest.xml", manifest_xml.encode()),
        *((f"./Foo/{name}", data) for name, data in files.items()),
    ]
    return tarball(path, *members)


async def test_an_imgexport_bundle_is_taken_with_its_package_lists(there: BundleSite, tmp_path: Path) -> None:
    xml = """<xcatimage>
      <extra><dest>/install/custom/netboot/centos</dest><src>/opt/xcat/share/xcat/netboot/centos/compute.postinst</src></extra>
      <extra><dest>/install/more</dest><src>/root/folder</src></extra>
      <kernel>/install/netboot/centos5.4/x86_64/compute/kernel</kernel>
      <linuximage><imagename>Foo</imagename>
        <exlist>/opt/xcat/share/xcat/netboot/centos/compute.exlist</exlist>
        <pkglist>/install/custom/netboot/centos/compute.pkglist</pkglist>
        <rootimgdir>/install/netboot/centos5.4/x86_64/compute</rootimgdir></linuximage>
      <osimage><imagename>Foo</imagename><osarch>x86_64</osarch><osvers>centos5.4</osvers><profile>compute</profile>
        <provmethod>netboot</provmethod><osname>Linux</osname><synclists>/install/custom/x.synclist</synclists></osimage>
      <ramdisk>/install/netboot/centos5.4/x86_64/compute/initrd-stateless.gz</ramdisk>
      <rootimg>/install/netboot/centos5.4/x86_64/compute/rootimg.gz</rootimg>
    </xcatimage>""".replace("/install/", f"{there.install}/")
    files = {
        "kernel": b"k",
        "initrd-stateless.gz": b"i",
        "rootimg.gz": cpio_of(small_tree(tmp_path / "tree")),
        "compute.exlist": b"./boot*\n",
        "compute.pkglist": b"bash\n",
        "x.synclist": b"/etc/shadow -> /tmp/x\n",
        "extra/compute.postinst": b"#!/bin/sh\n",
        "extra/root/folder/a": b"a",
        "extra/root/folder/sub/b": b"b",
    }
    report = await there.take(xcat_bundle(tmp_path / "Foo.tgz", xml, **files))
    assert report.form == "xcat"
    home = there.install / "netboot/centos5.4/x86_64/compute"
    assert (home / "kernel").read_bytes() == b"k" and (home / "rootimg/etc/hostname").exists()
    row = await there.row("linuximage", "Foo")
    assert row["pkglist"] == f"{there.install}/custom/netboot/centos/compute.pkglist"
    # What lay among xCAT's own files comes to a place of this site's.
    assert row["exlist"] == f"{there.install}/custom/centos5.4/x86_64/compute/compute.exlist"
    assert Path(row["exlist"]).read_bytes() == b"./boot*\n" and Path(row["pkglist"]).read_bytes() == b"bash\n"
    assert "synclists" not in await there.row("osimage", "Foo")
    assert not list(there.install.rglob("x.synclist"))
    assert (there.install / "more/sub/b").read_bytes() == b"b"
    assert (there.install / "custom/netboot/centos/compute.postinst").exists()


async def test_an_old_flat_bundle_and_a_statelite_one_are_taken(there: BundleSite, tmp_path: Path) -> None:
    flat = """<xcatimage><imagename>Old</imagename><osvers>rhels5.4</osvers><osarch>x86_64</osarch><profile>old</profile>
      <provmethod>install</provmethod><template>/opt/xcat/share/xcat/install/rh/old.tmpl</template><media>required</media>
      </xcatimage>"""
    report = await there.take(xcat_bundle(tmp_path / "Old.tgz", flat, **{"old.tmpl": b"t"}))
    assert report.media == f"{there.install}/rhels5.4/x86_64"
    assert (await there.row("linuximage", "Old"))["template"] == f"{there.install}/custom/rhels5.4/x86_64/old.tmpl"
    home = f"{there.install}/netboot/rhels5.4/x86_64/lite"
    lite = f"""<xcatimage><kernel>{home}/kernel</kernel><ramdisk>{home}/initrd-statelite.gz</ramdisk>
      <rootimgtree>{home}/rootimg/rootimgtree.gz</rootimgtree><litefile>{home}/litefile.csv</litefile>
      <linuximage><imagename>Lite</imagename><rootimgdir>{home}</rootimgdir></linuximage>
      <osimage><imagename>Lite</imagename><osvers>rhels5.4</osvers><osarch>x86_64</osarch><profile>lite</profile>
      <provmethod>statelite</provmethod></osimage></xcatimage>"""
    tree = cpio_of(small_tree(tmp_path / "tree"))
    files = {
        "kernel": b"k",
        "initrd-statelite.gz": b"i",
        "rootimgtree.gz": tree,
        "litefile.csv": b'"Lite","/etc/x","rw"\n',
    }
    await there.take(xcat_bundle(tmp_path / "Lite.tgz", lite, **files))
    assert {path.name for path in Path(home).iterdir()} == {*files, "rootimg"}
    assert (await there.row("osimage", "Lite"))["rootfstype"] == "nfs"


@pytest.mark.parametrize("method", ["install", "netboot", "statelite"])
async def test_what_is_exported_for_xcat_is_what_imgimport_looks_for(
    here: BundleSite, there: BundleSite, tmp_path: Path, method: str
) -> None:
    (tmp_path / "motd").write_text("hello\n")
    lists = here.install / "custom/netboot"
    lists.mkdir(parents=True)
    (lists / "foo.pkglist").write_text("bash\n")
    linuximage = {"pkglist": str(lists / "foo.pkglist"), "exlist": f"{here.install}/gone.exlist"}
    if method == "install":
        (here.install / "foo.tmpl").write_text("template")
        linuximage["template"] = str(here.install / "foo.tmpl")
    else:
        home = netboot_home(here, method)
        tree = small_tree(home / "rootimg")
        if method == "netboot":
            (home / "rootimg.gz").write_bytes(cpio_of(tree))
    await here.define("Foo", {**LINUX, "provmethod": method}, linuximage)
    bundle = tmp_path / "Foo.tgz"
    extra = (f"{tmp_path}/motd:{there.install}/files",)
    report = await here.export("Foo", bundle, form="xcat", extra=extra)
    assert any("gone.exlist" in note for note in report.notes)
    with tarfile.open(bundle) as tar:
        names = set(tar.getnames())
        handle = tar.extractfile("Foo/manifest.xml")
        assert handle is not None
        xml = handle.read().decode()
    assert {"Foo/manifest.xml", "Foo/foo.pkglist", "Foo/extra/motd"} <= names
    # Every file is flat beside the manifest, under the base name of the path that the manifest has.
    for element in ("kernel", "ramdisk", "rootimg", "rootimgtree", "template", "pkglist"):
        if f"<{element}>" in xml:
            path = xml.partition(f"<{element}>")[2].partition("<")[0]
            assert path.startswith("/") and f"Foo/{Path(path).name}" in names
    assert ("<media>required</media>" in xml) == (method == "install")
    await there.keys(bundleroots=f"{there.install},{here.install}")
    taken = await there.take(bundle)
    assert (taken.form, taken.method) == ("xcat", method)
    assert (there.install / "files/motd").read_text() == "hello\n"
    assert (await there.row("osimage", "Foo"))["osvers"] == "rhels5.4"


async def test_a_statelite_tree_is_packed_for_the_bundle_and_comes_back(
    here: BundleSite, there: BundleSite, tmp_path: Path
) -> None:
    home = netboot_home(here, "statelite")
    small_tree(home / "rootimg")
    await here.define("Lite", {**LINUX, "provmethod": "statelite", "rootfstype": "nfs"}, {"rootimgdir": str(home)})
    await here.export("Lite", tmp_path / "1.tgz")
    await there.take(tmp_path / "1.tgz", set_uid=True)
    wanted = files_below(home / "rootimg")
    del wanted["dev/null"]
    assert files_below(there.install / "netboot/rhels5.4/x86_64/foo/rootimg") == wanted
    assert subprocess.run(["ls", "-A", tmp_path], capture_output=True, text=True, check=True).stdout.split() == [  # noqa: ASYNC221
        "1.tgz",
        "here",
        "there",
    ]
