"""manifest.cfg: what it may say, and which line is wrong when it may not."""

import os
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litho.errors import LithoError, RefusedError
from litho_controller.bundle import manifest as cfg
from litho_controller.bundle.manifest import Extra, Manifest
from support.bundles import INSTALL, NETBOOT, manifest

EXAMPLES = int(os.environ.get("LITHO_HOSTILE", "300"))
"""How many generated cases a test looks at; 10,000 for the long run."""

SEED = b"""
name Foo_Image  # required. Eg: My_Image
  os\trhels5.4
arch x86_64
# a comment of its own

media required
profile foo
method install
template foo.tmpl
extra my_cool_postscript:/install/postscripts
extra motd:/install/files/
"""


def test_the_seeds_manifest_is_read_in_any_order_with_comments_and_blanks() -> None:
    assert cfg.parse(SEED) == Manifest(
        name="Foo_Image",
        os="rhels5.4",
        arch="x86_64",
        profile="foo",
        method="install",
        template="foo.tmpl",
        media=True,
        extra=(Extra("my_cool_postscript", "/install/postscripts"), Extra("motd", "/install/files")),
    )


@pytest.mark.parametrize("method", ["netboot", "statelite"])
def test_a_netboot_manifest_needs_kernel_initrd_and_rootimg(method: str) -> None:
    whole = {**NETBOOT, "method": method}
    assert cfg.parse(manifest(**whole)).rootimg == "rootimg.gz"
    for key in ("name", "os", "arch", "profile", "initrd", "kernel", "rootimg"):
        with pytest.raises(RefusedError, match=f"{key} is missing"):
            cfg.parse(manifest(**{k: v for k, v in whole.items() if k != key}))


@pytest.mark.parametrize("key", ["name", "os", "arch", "profile", "template", "media"])
def test_an_install_manifest_needs_template_and_media(key: str) -> None:
    with pytest.raises(RefusedError, match=f"{key} is missing"):
        cfg.parse(manifest(**{k: v for k, v in INSTALL.items() if k != key}))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"colour red", "unknown key 'colour'"),
        (b"NAME foo", "unknown key 'NAME'"),
        (b"name other", "name is given twice .first in line 1"),
        (b"extra motd", "extra is 'motd'"),
        (b"extra motd:files", "extra is"),
        (b"extra motd:/install/../etc", "extra is"),
        (b"extra ../motd:/install", "extra is"),
        (b"extra a:/", "extra is"),
        (b"initrd", "initrd has no value"),
        (b"initrd /etc/passwd", "initrd is '/etc/passwd'"),
        (b"initrd ../../etc/passwd", "initrd is"),
        (b"kernel k", "kernel has no meaning with method install"),
        (b"initrd a\0b", "control characters"),
        (b"initrd \xff\xfe", "not UTF-8"),
        (b"initrd " + b"x" * 2000, "more than 1024"),
        (b"initrd caf\xc3\xa9", "initrd is"),
        (b"\x1b[2Jname x", "control characters"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(line: bytes, problem: str) -> None:
    with pytest.raises(RefusedError, match=f"line 8 of manifest.cfg: .*{problem}") as caught:
        cfg.parse(manifest(**INSTALL) + line + b"\n")
    assert caught.value.code == "bad-manifest"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../x"),
        ("name", "two words"),
        ("name", "-x"),
        ("name", "x" * 101),
        ("os", ".."),
        ("os", "a/b"),
        ("arch", "."),
        ("profile", "foo."),
        ("method", "sysclone"),
        ("media", "optional"),
        ("template", "a/../b"),
        ("template", "a//b"),
        ("template", "./a"),
        ("template", "tem\tplate\t"),
    ],
)
def test_a_bad_value_is_named_by_its_line(key: str, value: str) -> None:
    number = list(INSTALL).index(key) + 1
    with pytest.raises(RefusedError, match=f"line {number} of manifest.cfg"):
        cfg.parse(manifest(**{**INSTALL, key: value}))


def test_nothing_and_far_too_much_are_refused() -> None:
    for data in (b"", b"\n\n# only words\n", b"name x\n", b"#" * 100_000):
        with pytest.raises(RefusedError, match=r"manifest\.cfg"):
            cfg.parse(data)


_word = st.text(string.ascii_letters + string.digits + "._+-", min_size=1, max_size=20).filter(
    lambda text: cfg.is_word(text) and ".v" not in text and not text.endswith((".json", ".part"))
)
_file = st.lists(_word, min_size=1, max_size=3).map("/".join)
_extras = st.lists(st.builds(Extra, _file, _file.map(lambda path: "/" + path)), max_size=4, unique=True).map(tuple)
_manifests = st.one_of(
    st.builds(
        Manifest, name=_word, os=_word, arch=_word, profile=_word, method=st.just("install"), template=_file,
        media=st.just(True), extra=_extras,
    ),
    st.builds(
        Manifest, name=_word, os=_word, arch=_word, profile=_word, method=st.sampled_from(["netboot", "statelite"]),
        initrd=_file, kernel=_file, rootimg=_file, media=st.booleans(), extra=_extras,
    ),
)  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(_manifests)
def test_what_is_written_is_read_back(made: Manifest) -> None:
    assert cfg.check(made) == made


_junk = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.tuples(st.sampled_from([*cfg._KEYS, "extra", "#", "nothing", ""]), st.text(max_size=30)).map(
            lambda pair: f"{pair[0]} {pair[1]}"
        ),
        max_size=15,
    ).map(lambda lines: "\n".join(lines).encode()),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(_junk, st.integers(0, 200))
def test_junk_is_refused_or_harmless(junk: bytes, at: int) -> None:
    whole = manifest(**NETBOOT)
    for data in (junk, whole[:at] + junk + whole[at:]):
        try:
            made = cfg.parse(data)
        except LithoError as exc:
            assert exc.code == "bad-manifest"
            assert str(exc).isprintable()
        else:
            for file in made.files():
                assert not file.startswith("/") and ".." not in file.split("/")
            for text in (made.os, made.arch, made.profile, made.name):
                assert "/" not in text and text != ".."
            assert all(".." not in extra.path.split("/") for extra in made.extra)
