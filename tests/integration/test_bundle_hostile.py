"""Bundles from people who mean harm: a corpus of crafted ones, and generated ones. None may escape, crash, or change a row.

`LITHO_HOSTILE=10000` looks at ten thousand generated bundles of each kind instead of a few dozen.
"""

import asyncio
import gzip
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litho.errors import IntegrityError, LithoError, RefusedError, UsageError
from litho_controller.bundle.requests import Imported
from support import hostile
from support.bundles import INSTALL, NETBOOT, BundleSite, cpio_of, files_below, manifest, tarball
from support.hostile import CASES, info, newc, tgz

CORPUS = Path(__file__).parents[1] / "corpus/bundles"
EXAMPLES = int(os.environ.get("LITHO_HOSTILE", "60"))
OUTSIDE = ("/tmp/evil", "/tmp/x", "/etc/cron.d/t.tmpl", "/etc/cron.d/evil", "/etc/evil", "/install", "/installation")  # noqa: S108

quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Target:
    """A site that stays open for many bundles, with something in it that must not change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runner = asyncio.Runner()
        self.opened = BundleSite.open(root / "site")
        self.site = self.runner.run(self.opened.__aenter__())
        self.site.install.mkdir()
        (root / "canary").mkdir()
        (root / "canary/file").write_text("alive\n")
        self.bundle = root / "bundle"
        self.before = self.state()
        self.outside = {name: os.path.lexists(name) for name in OUTSIDE}

    def state(self) -> dict[str, object]:
        found = self.runner.run(self.site.state())
        return {**found, **{f"canary {k}": v for k, v in files_below(self.root / "canary").items()}}

    def offer(self, data: bytes, **options: object) -> Imported | LithoError:
        """Import `data`. Anything else than an answer or a LithoError is a crash and fails the test."""
        self.bundle.write_bytes(data)
        try:
            return self.runner.run(self.site.take(self.bundle, **options))
        except LithoError as exc:
            assert str(exc).isprintable(), str(exc)
            return exc

    def unharmed(self) -> None:
        assert self.state() == self.before
        assert self.site.leftovers() == []
        assert {name: os.path.lexists(name) for name in OUTSIDE} == self.outside

    def take_away(self, report: Imported) -> None:
        """A generated bundle that was harmless after all: look at it, and forget it."""
        import shutil

        from litho_controller.tables import rows

        for target in report.placed:
            assert Path(target).resolve().is_relative_to(self.site.install)
            found = files_below(Path(target).parent)
            assert not any(mode & 0o6000 for kind, mode in (v for v in found.values() if v[0] == "dir") if kind == "")  # type: ignore[index]
        for path in self.site.install.rglob("*"):
            assert path.is_symlink() or path.is_file() or path.is_dir()
            assert path.is_symlink() or not (path.is_file() and path.stat().st_mode & 0o6000)

        async def forget() -> None:
            async with self.site.store.write() as conn:
                for table in ("osimage", "linuximage"):
                    await rows.remove(conn, table, [report.name])

        self.runner.run(forget())
        shutil.rmtree(self.site.install)
        self.site.install.mkdir()

    def close(self) -> None:
        self.runner.run(self.opened.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="litho-hostile-", dir="/dev/shm") as made:
        opened = Target(Path(made))
        yield opened
        opened.close()


def test_the_corpus_is_what_its_script_makes() -> None:
    assert {path.stem for path in CORPUS.glob("*.bundle")} == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_crafted_bundle_is_refused_and_changes_nothing(target: Target, name: str) -> None:
    for data in ((CORPUS / f"{name}.bundle").read_bytes(), CASES[name]()):
        for options in ({}, {"dry_run": True}, {"replace": True, "set_uid": True, "all_columns": True}):
            if name.startswith("rootimg") and options.get("dry_run"):
                continue  # a root image is looked into when it is expanded
            answer = target.offer(data, **options)
            assert isinstance(answer, (RefusedError, IntegrityError, UsageError)) or (
                isinstance(answer, LithoError) and answer.code in ("engine", "bad-manifest")
            ), answer
            target.unharmed()


def test_the_crafted_bundles_are_refused_for_what_is_wrong_with_them(target: Target) -> None:
    codes = {}
    for name in CASES:
        answer = target.offer((CORPUS / f"{name}.bundle").read_bytes())
        assert isinstance(answer, LithoError)
        codes[name] = answer.code
    for name, code in codes.items():
        kind = name.partition("-")[0]
        if name.startswith("bomb"):
            assert code == "bundle-bomb", name
        elif ("dotdot" in name and kind in ("name", "rootimg")) or name in (
            "name-absolute",
            "extra-outside",
            "kind-symlink",
        ):
            assert code in ("bundle-escape", "bad-tar"), (name, code)
        elif name.startswith("sums-") and "junk" not in name and "twice" not in name:
            assert code == "corrupt-bundle", (name, code)
        elif kind == "xml" and name != "xml-extra-outside":
            assert code == "bad-manifest", (name, code)


def test_a_file_is_not_placed_through_links_that_a_root_image_brought(target: Target) -> None:
    rootimg = gzip.compress(newc((".", 0o40755, b""), ("out", 0o120777, str(target.root / "canary").encode())), mtime=0)
    inside = f"extra kernel:{target.site.install}/netboot/rhels5.4/x86_64/evil/rootimg/out\n".encode()
    assert isinstance(target.offer(hostile.netboot(rootimg, extra=inside)), RefusedError)
    target.unharmed()
    target.unharmed()


@pytest.mark.parametrize("where", ["canary", "", "site", "/", ".."])
def test_two_bundles_cannot_work_together_to_get_out(target: Target, where: str) -> None:
    """One brings a link, to a strange place or to one above the install directory, and the other would go through it."""
    leads = "/" if where == "/" else str(target.root / where)
    rootimg = gzip.compress(newc((".", 0o40755, b""), ("out", 0o120777, leads.encode())), mtime=0)
    first = target.offer(hostile.netboot(rootimg))
    assert isinstance(first, Imported)
    text = hostile.INSTALL.replace(b"Evil", b"Second")
    for below in ("", "/a/b"):
        through = f"extra t.tmpl:{target.site.install}/netboot/rhels5.4/x86_64/evil/rootimg/out{below}\n".encode()
        second = target.offer(hostile.install(extra=through, text=text))
        assert isinstance(second, RefusedError) and second.code == "bundle-escape"
    target.take_away(first)
    target.unharmed()


def test_two_files_for_one_place_are_refused(target: Target) -> None:
    home = f"{target.site.install}/netboot/rhels5.4/x86_64/evil"
    rootimg = gzip.compress(newc(("a", 0o100644, b"")), mtime=0)
    data = hostile.netboot(rootimg, info("x/kernel", b"other"), extra=f"extra x/kernel:{home}\n".encode())
    assert isinstance(target.offer(data), RefusedError)
    target.unharmed()


# ---------------------------------------------------------------- generated

_LEVELS = st.sampled_from(
    ["..", ".", "", "etc", "a", "b", "rootimg", "link", "x" * 300, "\x1b[2J", "ü", " ", "-rf", "\n"]
)
_NAMES = st.one_of(
    st.lists(_LEVELS, min_size=1, max_size=5).map("/".join),
    st.lists(_LEVELS, min_size=1, max_size=4).map(lambda levels: "/" + "/".join(levels)),
    st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text),
).filter(
    lambda name: name.encode("utf-8", "surrogateescape") != b"" and not any(0xD800 <= ord(c) < 0xE000 for c in name)
)
_TYPES = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S", b"M"]
)
_ENTRIES = st.builds(
    lambda name, kind, mode, data, link, uid: info(
        name, data if kind == tarfile.REGTYPE else b"", type=kind, mode=mode, linkname=link, uid=uid
    ),
    _NAMES,
    _TYPES,
    st.sampled_from([0o644, 0o755, 0o4755, 0o2755, 0o6777, 0]),
    st.binary(max_size=600),
    st.sampled_from(["/etc/passwd", "../../..", "a", "b", "kernel", "/"]),
    st.sampled_from([0, 1000, 2**31, 2**32 - 1, 2**40]),
)
_MANIFESTS = st.one_of(
    st.just(manifest(**INSTALL)),
    st.just(manifest(**NETBOOT)),
    st.builds(
        lambda base, key, value: manifest(**{**base, key: value}),
        st.sampled_from([INSTALL, NETBOOT]),
        st.sampled_from(["name", "os", "arch", "profile", "method", "template", "kernel", "rootimg", "extra", "media"]),
        st.one_of(
            _NAMES, _NAMES.map(lambda name: f"kernel:{name}"), st.sampled_from(["install", "image", "statelite"])
        ),
    ),
    st.binary(max_size=200),
)
_ROOTIMGS = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.tuples(
            _NAMES.filter(lambda name: name.isascii()),
            st.sampled_from([0o100644, 0o104755, 0o40755, 0o120777, 0o20666, 0o60660, 0o10644, 0o140777, 0]),
            st.one_of(st.binary(max_size=40), st.sampled_from([b"/etc", b"../../..", b"a"])),
        ),
        max_size=6,
    ).map(lambda entries: gzip.compress(newc(*entries), mtime=0)),
    st.lists(_ENTRIES, max_size=6).map(lambda entries: gzip.compress(_tar(entries), mtime=0)),
)


def _tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for one, data in entries:
            made.addfile(one, io.BytesIO(data))
    return out.getvalue()


_BUNDLES = st.builds(
    lambda text, rootimg, more, first: tgz(
        *(more if first else []),
        info("manifest.cfg", text),
        info("foo.tmpl", b"template"),
        info("kernel", b"k"),
        info("initrd.gz", b"i"),
        info("rootimg.gz", rootimg),
        *([] if first else more),
    ),
    _MANIFESTS,
    _ROOTIMGS,
    st.lists(_ENTRIES, max_size=3),
    st.booleans(),
)


@quick
@given(_BUNDLES)
def test_generated_bundles_are_refused_or_harmless(target: Target, data: bytes) -> None:
    answer = target.offer(data)
    if isinstance(answer, Imported):
        target.take_away(answer)
    target.unharmed()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An honest netboot bundle, plain: every one of its bytes is about to be changed."""
    root = tmp_path_factory.mktemp("good")
    (root / "tree/etc").mkdir(parents=True)
    (root / "tree/etc/hostname").write_text("node\n")
    made = tarball(
        root / "good.tar",
        ("manifest.cfg", manifest(**NETBOOT)),
        ("kernel", b"k"),
        ("initrd.gz", b"i"),
        ("rootimg.gz", cpio_of(root / "tree")),
        mode="w",
    )
    return made.read_bytes()


@quick
@given(st.data())
def test_flipped_cut_and_doubled_bytes_are_refused_or_harmless(
    target: Target, good: bytes, data: st.DataObject
) -> None:
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = (
            data.draw(st.integers(0, 6 * 512)) if data.draw(st.booleans()) else data.draw(st.integers(0, len(good) - 1))
        )
        what = data.draw(st.sampled_from(["flip", "cut", "double", "digits"]))
        if what == "flip":
            broken[at % len(broken)] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            del broken[at % len(broken) : at % len(broken) + data.draw(st.integers(1, 600))]
        elif what == "double":
            broken[at:at] = broken[at : at + 512]
        else:
            broken[at : at + 11] = data.draw(st.binary(min_size=11, max_size=11))
        broken = broken or bytearray(b"x")
    packed = bytes(broken) if data.draw(st.booleans()) else gzip.compress(bytes(broken), 1, mtime=0)
    answer = target.offer(packed)
    if isinstance(answer, Imported):
        target.take_away(answer)
    target.unharmed()
