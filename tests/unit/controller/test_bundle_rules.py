"""The pure rules: sums, rows, xCAT's manifest, the site's keys, and what goes where."""

from pathlib import Path
from typing import get_type_hints

import pytest

from litho import process
from litho.errors import ConfigError, IntegrityError, LithoError, NotFoundError, RefusedError, UsageError
from litho.library.manifest import FileRef, Manifest, Part
from litho.messages import DiskFacts
from litho_controller.bundle import captured, model, plan, rows, site, sums, tarwrite, xcat
from litho_controller.bundle import manifest as cfg
from litho_controller.bundle.manifest import Extra
from litho_controller.bundle.rows import Rows
from litho_controller.bundle.site import Site
from litho_controller.bundle.xcat import XcatExtra, XcatManifest
from support.bundles import INSTALL, NETBOOT, manifest

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


# ---------------------------------------------------------------- sums and signatures


def test_sums_are_coreutils_own_and_read_back() -> None:
    data = sums.dump({"manifest.cfg": SHA, "kernel": SHA[::-1]}, 123)
    assert sums.parse(data) == sums.Sums({"manifest.cfg": SHA, "kernel": SHA[::-1]}, 123)
    assert sums.parse(f"{SHA} *./kernel\r\n".encode()).hashes == {"kernel": SHA}


def test_what_the_sums_promise_must_be_there_and_nothing_else() -> None:
    promised = sums.Sums({"a": SHA})
    sums.require(promised, {"a": SHA, "SHA256SUMS": "x", "SHA256SUMS.sig": "y"})
    for found, problem in (({}, "has no 'a'"), ({"a": SHA[::-1]}, "damaged"), ({"a": SHA, "b": SHA}, "does not list")):
        with pytest.raises(IntegrityError, match=problem):
            sums.require(promised, found)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.key, a.pub, b.pub, and an RSA pair."""
    root = tmp_path_factory.mktemp("keys")
    for name, kind in (
        ("a", ["-algorithm", "ed25519"]),
        ("b", ["-algorithm", "ed25519"]),
        ("rsa", ["-algorithm", "RSA"]),
    ):
        process.run(["openssl", "genpkey", *kind, "-out", root / f"{name}.key"])
        process.run(["openssl", "pkey", "-in", root / f"{name}.key", "-pubout", "-out", root / f"{name}.pub"])
    return root


def test_a_signature_is_found_out_by_its_key_alone(keys: Path) -> None:
    signature = sums.sign(b"words", keys / "a.key")
    both = sums.keys_in([keys / "b.pub", keys / "a.pub"])
    found = sums.signer(b"words", signature, both)
    assert found is not None and found.path.name == "a.pub" and len(found.fingerprint) == 16
    assert sums.signer(b"wordz", signature, both) is None
    assert sums.signer(b"words", bytes(64), both) is None
    assert sums.signer(b"words", signature, both[:1]) is None


def test_keys_of_another_kind_and_files_that_are_no_keys_are_refused(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another kind"):
        sums.sign(b"x", keys / "rsa.key")
    with pytest.raises(UsageError, match="no private key"):
        sums.sign(b"x", keys / "a.pub")
    with pytest.raises(UsageError, match="another kind"):
        sums.keys_in([keys / "rsa.pub"])
    (tmp_path / "junk.pub").write_text("junk")
    with pytest.raises(UsageError, match="no public key"):
        sums.keys_in([tmp_path])
    with pytest.raises(NotFoundError):
        sums.keys_in([tmp_path / "gone.pub"])
    assert sums.keys_in([tmp_path / "no-directory"]) == []


# ---------------------------------------------------------------- rows


def taken(made: Rows, *, trusted: bool = False) -> tuple[dict[str, str], dict[str, str], list[str]]:
    return rows.taken(made, install="/here", roots=["/here"], trusted=trusted, fixed={"rootimgdir": "/here/x"})


def test_paths_move_with_the_install_directory_and_strange_ones_stay_out() -> None:
    made = Rows(
        installdir="/install",
        osimage={"comments": "words", "synclists": "/install/a,/install/b"},
        linuximage={
            "pkglist": "/install/custom/x.pkglist,/opt/xcat/share/xcat/netboot/rh/c.pkglist",
            "otherpkgdir": "/install/post/otherpkgs",
            "exlist": "/etc/shadow",
            "rootimgdir": "/elsewhere",
            "addkcmdline": "quiet",
        },
    )
    osimage, linuximage, notes = taken(made)
    assert osimage == {"comments": "words"}
    assert linuximage == {
        "pkglist": "/here/custom/x.pkglist,/opt/xcat/share/xcat/netboot/rh/c.pkglist",
        "otherpkgdir": "/here/post/otherpkgs",
        "rootimgdir": "/here/x",
        "addkcmdline": "quiet",
    }
    assert len(notes) == 2 and "synclists" in notes[0] and "exlist" in notes[1]
    osimage, linuximage, notes = taken(made, trusted=True)
    assert osimage["synclists"] == "/here/a,/here/b" and linuximage["exlist"] == "/etc/shadow" and notes == []


def test_rows_read_back_and_equal_rows_are_equal_bytes() -> None:
    made = Rows(installdir="/install", osimage={"b": "1", "a": "2"}, linuximage={})
    other = Rows(installdir="/install", osimage={"a": "2", "b": "1"}, linuximage={})
    assert rows.dump(made) == rows.dump(other)
    real = Rows(installdir="/install", osimage={"osvers": "x"}, linuximage={"template": "/a"})
    assert rows.parse(rows.dump(real)) == real


# ---------------------------------------------------------------- xCAT's form


def test_xcats_manifest_is_read_in_both_its_forms() -> None:
    nested = b"""<xcatimage>
  <extra><dest>/install/custom</dest><src>/opt/x.lst</src></extra>
  <kernel>/install/netboot/c/x/p/kernel</kernel><ramdisk>/i/initrd-stateless.gz</ramdisk><rootimg>/i/rootimg.gz</rootimg>
  <linuximage><imagename>n</imagename><pkglist>/a,/b</pkglist></linuximage>
  <osimage><imagename>n</imagename><osvers>centos5.4</osvers><provmethod>netboot</provmethod></osimage>
</xcatimage>"""
    made = xcat.parse(nested)
    assert made.osimage["osvers"] == "centos5.4" and made.linuximage["pkglist"] == "/a,/b" and not made.media
    assert made.extra == (XcatExtra("/opt/x.lst", "/install/custom"),)
    assert xcat.parse(xcat.dump(made)) == made
    flat = b"""<xcatimage><imagename>n</imagename><osvers>centos5.4</osvers><provmethod>install</provmethod>
      <template>/t.tmpl</template><media>required</media></xcatimage>"""
    old = xcat.parse(flat)
    assert old.osimage == {"imagename": "n", "osvers": "centos5.4", "provmethod": "install"}
    assert old.linuximage == {"imagename": "n", "template": "/t.tmpl"} and old.media
    attributes = xcat.parse(b'<xcatimage><osimage imagename="n" osvers="x"/><linuximage imagename="n"/></xcatimage>')
    assert attributes.osimage == {"imagename": "n", "osvers": "x"}


def test_what_is_written_for_xcat_escapes_what_xml_does_not_bear() -> None:
    made = XcatManifest(
        osimage={"imagename": "n", "comments": '<a> & "b"'},
        linuximage={"imagename": "n"},
        files={},
        media=True,
        extra=(),
    )
    assert xcat.parse(xcat.dump(made)) == made


# ---------------------------------------------------------------- the site


def test_a_sites_keys_have_defaults_and_are_checked() -> None:
    assert site.parse({}) == Site()
    made = site.parse({"installdir": "/srv/install/", "bundleroots": "/srv/install, /srv/other", "bundlesigned": "yes"})
    assert (made.install, made.roots, made.signed) == ("/srv/install", ("/srv/install", "/srv/other"), True)
    for keys in ({"installdir": "/"}, {"installdir": "install"}, {"bundleroots": "/a,.."}, {"bundlesigned": "maybe"}):
        with pytest.raises(ConfigError):
            site.parse(keys)


# ---------------------------------------------------------------- captured disks


def test_every_file_of_a_captured_disk_gets_the_name_that_it_has_elsewhere() -> None:
    def ref(suffix: str) -> FileRef:
        return FileRef(file=f"golden.v7-{suffix}", bytes=1, sha256="0" * 64)

    made = Manifest(
        image="golden",
        version=7,
        created="2026-11-22T16:00:00Z",
        software="test",
        disk=DiskFacts(path="/dev/sda", size=1 << 30),
        disk_name="sda",
        table="dos",
        table_dump=ref("sda.sfdisk"),
        head=ref("sda.head"),
        log=ref("sda.log"),
        parts=(Part(number=1, kind="stream", start=0, size=1, data=ref("sda1.partclone.zst")),),
    )
    # A field for a file that is added one day must be in here, and in `renamed`.
    assert {name for name, kind in get_type_hints(Manifest).items() if kind == FileRef | None} == {
        *("table_dump", "head", "log"),
    }
    names = [one.file for one in captured.renamed(made, "silver", 1).files()]
    assert names == ["silver.v1-sda.sfdisk", "silver.v1-sda.head", "silver.v1-sda.log", "silver.v1-sda1.partclone.zst"]


# ---------------------------------------------------------------- what goes where


def planned(
    values: dict[str, str], *extra: Extra, rename: str = "", trusted: bool = False, **site_keys: str
) -> plan.Plan:
    text = manifest(**values) + "".join(f"extra {one.file}:{one.path}\n" for one in extra).encode()
    members = cfg.parse(text).files()
    content = model.content({cfg.FILE: text}, members, "/install")
    executable = dict.fromkeys(members, False)
    return plan.plan(content, site.parse(site_keys), executable=executable, rename=rename, trusted=trusted)


def test_the_seeds_places() -> None:
    made = planned(INSTALL, Extra("my_cool_postscript", "/install/postscripts"))
    assert [one.target for one in made.placed] == [
        "/install/custom/rhels5.4/x86_64/foo.tmpl",
        "/install/postscripts/my_cool_postscript",
    ]
    assert made.media == "/install/rhels5.4/x86_64"
    assert made.linuximage == {
        "template": "/install/custom/rhels5.4/x86_64/foo.tmpl",
        "pkgdir": "/install/rhels5.4/x86_64",
    }
    made = planned(NETBOOT, installdir="/srv/i")
    (home,) = made.placed
    assert home.target == "/srv/i/netboot/rhels5.4/x86_64/foo" and home.expand == "rootimg.gz" and not made.media
    assert [inner.path for inner in home.inner] == ["kernel", "initrd.gz", "rootimg.gz"]
    assert planned({**NETBOOT, "method": "statelite"}).osimage["rootfstype"] == "nfs"


def test_names_that_nobody_would_find_again_become_the_usual_ones() -> None:
    made = planned({**NETBOOT, "kernel": "boot/bzImage-6.1", "initrd": "ramdisk.img", "rootimg": "my.img"})
    assert [inner.path for inner in made.placed[0].inner] == ["kernel", "initrd-stateless.gz", ""]
    assert len(made.notes) == 2


def test_an_image_under_a_new_name_lies_in_places_of_its_own() -> None:
    made = planned(NETBOOT, rename="New")
    assert made.placed[0].target == "/install/netboot/rhels5.4/x86_64/New"
    assert (made.name, made.osimage["profile"]) == ("New", "New")
    assert planned(INSTALL, rename="New").linuximage["template"] == "/install/custom/rhels5.4/x86_64/New.tmpl"
    with pytest.raises(UsageError):
        planned(INSTALL, rename="../New")


@pytest.mark.parametrize(
    "extra",
    [
        Extra("a", "/etc"),
        Extra("a", "/installation"),
        Extra("kernel", "/install/netboot/rhels5.4/x86_64/foo/rootimg/etc"),
        Extra("rootimg", "/install/netboot/rhels5.4/x86_64/foo"),
        Extra("x/foo", "/install/netboot/rhels5.4/x86_64"),
        Extra("x86_64", "/install/netboot/rhels5.4"),
        Extra("x/kernel", "/install/netboot/rhels5.4/x86_64/foo"),
    ],
)
def test_places_that_are_not_allowed_or_taken_are_refused(extra: Extra) -> None:
    with pytest.raises(RefusedError):
        planned(NETBOOT, extra)


def test_more_roots_allow_more_places() -> None:
    extra = Extra("motd", "/srv/files")
    with pytest.raises(RefusedError, match="outside"):
        planned(INSTALL, extra)
    assert planned(INSTALL, extra, bundleroots="/install,/srv").placed[1].target == "/srv/files/motd"


@pytest.mark.parametrize("name", ["foo", "foo.zip", ".tgz", "foo.gz"])
def test_a_tarball_is_named_by_how_it_is_packed(name: str) -> None:
    with pytest.raises(LithoError, match="how to pack"):
        tarwrite.packing_of(name)
    assert tarwrite.packing_of("foo.tar.gz") == tarwrite.packing_of("foo.tgz") == "gzip"


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("/install/rhels5.4/x86_64", "among the installation media"),
        ("/install/debian12/amd64/dists/stable", "among the installation media"),
        ("/install/netboot/rhels5.4/x86_64/other", "among what other images boot"),
        ("/install/netboot/rhels5.4/x86_64/other/rootimg/root", "among what other images boot"),
        ("/install/netboot", "among what other images boot"),
    ],
)
def test_only_a_trusted_bundle_adds_files_to_media_and_to_other_images(place, where):
    for values in (INSTALL, NETBOOT):
        with pytest.raises(RefusedError, match=where) as caught:
            planned(values, Extra("motd", place))
        assert caught.value.code == "bundle-escape" and "trusted key" in caught.value.hint
    assert planned(INSTALL, Extra("motd", place), trusted=True).placed[1].target == f"{place}/motd"


def test_places_of_nobody_are_free():
    for place in ("/install/files", "/install/post/otherpkgs/rhels5.4/x86_64", "/install/custom/x86_64/x", "/install"):
        assert planned(INSTALL, Extra("motd", place)).placed[1].target == f"{place}/motd"
