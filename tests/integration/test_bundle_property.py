"""The round trip as a property: export, empty the site, import: the same rows, the same files; export again: the same bundle."""

import asyncio
import os
import shutil
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litho_controller.bundle import manifest as cfg
from litho_controller.bundle.rows import GUARDED, PATHS, derived
from litho_controller.tables import rows
from litho_controller.tables.schema import TABLES
from support.bundles import BundleSite, cpio_of, files_below

EXAMPLES = int(os.environ.get("LITHO_HOSTILE", "40"))
FIXED = ("imagename", "profile", "provmethod", "osvers", "osarch", "template", "rootimgdir")

_words = st.text(string.ascii_letters + string.digits + "._+-", min_size=1, max_size=12).filter(
    lambda text: cfg.is_word(text) and ".v" not in text and not text.endswith((".json", ".part"))
)
_cells = st.text([chr(code) for code in range(32, 127)], min_size=1, max_size=30)
_paths = st.lists(_words, min_size=1, max_size=3).map(lambda levels: "@/" + "/".join(levels))


def _row(table: str) -> st.SearchStrategy[dict[str, str]]:
    paths = {*GUARDED[table], *PATHS[table]}
    free = [column for column in TABLES[table].columns if column not in FIXED]
    return st.fixed_dictionaries({}, optional={c: _paths if c in paths else _cells for c in free})


_images = st.fixed_dictionaries(
    {
        "name": _words,
        "os": _words,
        "arch": _words,
        "profile": _words,
        "method": st.sampled_from(["install", "netboot", "statelite"]),
        "osimage": _row("osimage"),
        "linuximage": _row("linuximage"),
        "content": st.binary(max_size=3000),
        "ending": st.sampled_from(["tgz", "tar.zst", "tar.xz", "tar"]),
        "form": st.sampled_from(["litho", "xcat"]),
    }
)


class World:
    """One site that is emptied for every example."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runner = asyncio.Runner()
        self.opened = BundleSite.open(root / "site")
        self.site = self.runner.run(self.opened.__aenter__())
        (root / "tree").mkdir()

    def empty(self, name: str) -> None:
        async def forget() -> None:
            async with self.site.store.write() as conn:
                for table in ("osimage", "linuximage"):
                    await rows.remove(conn, table, [name])

        self.runner.run(forget())
        shutil.rmtree(self.site.install, ignore_errors=True)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="litho-round-", dir="/dev/shm") as made:
        opened = World(Path(made))
        yield opened
        opened.runner.run(opened.opened.__aexit__(None, None, None))
        opened.runner.close()


def build(world: World, image: dict[str, object]) -> tuple[dict[str, str], dict[str, str]]:
    """The image's files where the seed has them, and its rows."""
    install = world.site.install
    method = str(image["method"])
    osimage = {str(k): str(v).replace("@/", f"{install}/") for k, v in dict(image["osimage"]).items()}  # type: ignore[call-overload]
    linuximage = {str(k): str(v).replace("@/", f"{install}/") for k, v in dict(image["linuximage"]).items()}  # type: ignore[call-overload]
    osimage |= {
        "profile": str(image["profile"]),
        "provmethod": method,
        "osvers": str(image["os"]),
        "osarch": str(image["arch"]),
    }
    if image["form"] == "xcat":
        # What every image of xCAT's has, and an import of its form fills in.
        fields = {key: image[key] for key in ("name", "os", "arch", "profile", "method")}
        usual = derived(msgspec.convert(fields, cfg.Manifest), str(install))
        osimage, linuximage = {**usual.osimage, **trimmed(osimage)}, {**usual.linuximage, **trimmed(linuximage)}
    content = bytes(image["content"])  # type: ignore[call-overload]
    if method == "install":
        template = install / "custom" / osimage["osvers"] / osimage["osarch"] / "any.tmpl"
        template.parent.mkdir(parents=True)
        template.write_bytes(content)
        linuximage["template"] = str(template)
    else:
        home = install / "netboot" / osimage["osvers"] / osimage["osarch"] / osimage["profile"]
        home.mkdir(parents=True)
        (home / "kernel").write_bytes(content)
        (home / f"initrd-{'stateless' if method == 'netboot' else 'statelite'}.gz").write_bytes(content[::-1])
        (world.root / "tree/file").write_bytes(content)
        if (method, image["form"]) == ("statelite", "xcat"):
            # xCAT's form has the tree itself, packed for the bundle.
            shutil.copytree(world.root / "tree", home / "rootimg")
        else:
            (home / "rootimg.cpio.gz").write_bytes(cpio_of(world.root / "tree"))
        linuximage["rootimgdir"] = str(home)
    return osimage, linuximage


def trimmed(cells: dict[str, str]) -> dict[str, str]:
    """Cells as XML can carry them: blanks at the edges have no meaning there."""
    return {column: value.strip() for column, value in cells.items() if value.strip()}


def kept(files: dict[str, object]) -> dict[str, object]:
    """What must be the same: all but the expanded root image, and the packed one that only a bundle of xCAT's form brings."""
    return {path: value for path, value in files.items() if "/rootimg" not in path.replace("/rootimg.cpio.gz", "")}


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(_images)
def test_what_goes_out_comes_back_the_same(world: World, image: dict[str, object]) -> None:
    site, run, name = world.site, world.runner.run, str(image["name"])
    world.empty(name)
    run(site.define(name, *build(world, image)))
    first, second = (world.root / f"{number}.{image['ending']}" for number in (1, 2))
    run(site.export(name, first, replace=True, form=image["form"]))
    rows_before = [run(site.row(table, name)) for table in ("osimage", "linuximage")]
    files_before = kept(files_below(site.install))
    world.empty(name)
    run(site.take(first, all_columns=True))
    assert [run(site.row(table, name)) for table in ("osimage", "linuximage")] == rows_before
    assert kept(files_below(site.install)) == files_before
    run(site.export(name, second, replace=True, form=image["form"]))
    assert second.read_bytes() == first.read_bytes()
    assert site.leftovers() == []
    world.empty(name)
