"""A site with an install directory, a library and a database of its own, and bundles made by hand."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from litho.library import Library
from litho_controller.bundle import exporting
from litho_controller.bundle import site as site_of
from litho_controller.bundle.importing import Importer
from litho_controller.bundle.requests import Exported, ExportRequest, Imported, ImportRequest
from litho_controller.store import Store
from litho_controller.tables import rows

WATCHED = ("osimage", "linuximage", "site", "nodelist")


class BundleSite:
    """One management node."""

    def __init__(self, root: Path, store: Store, library: Library) -> None:
        self.root = root
        self.install = root / "install"
        self.store = store
        self.library = library
        self.importer = Importer(store, library, root / "state")

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path, *, template: Path | None = None) -> AsyncIterator[BundleSite]:
        """A new site, or the one that is at `root`; `template` is a database to begin with, which saves the migrations."""
        state = root / "state"
        state.mkdir(parents=True, exist_ok=True)
        if template is not None and not (state / "db").exists():
            shutil.copyfile(template, state / "db")
        store = await Store.open(f"sqlite+aiosqlite:///{state / 'db'}")
        try:
            site = cls(root, store, Library.create(root / "library"))
            await site.keys(installdir=str(site.install), bundletrust=str(root / "trust"))
            yield site
        finally:
            await store.close()

    async def keys(self, **keys: str) -> None:
        async with self.store.write() as conn:
            for key, value in keys.items():
                await rows.put(conn, "site", key, {"value": value})

    async def define(self, name: str, osimage: Mapping[str, str], linuximage: Mapping[str, str]) -> None:
        """The rows of an image."""
        async with self.store.write() as conn:
            await rows.put(conn, "osimage", name, osimage)
            await rows.put(conn, "linuximage", name, linuximage)

    async def row(self, table: str, name: str) -> dict[str, str]:
        async with self.store.read() as conn:
            found = await rows.get(conn, table, name)
        return {key: value for key, value in found.items() if value is not None}

    async def export(self, name: str, tarball: Path, **options: object) -> Exported:
        ref = name.partition(":")[0]
        async with self.store.read() as conn:
            site = site_of.parse(await rows.column(conn, "site", "value"))
            osimage = await rows.get(conn, "osimage", ref)
            linuximage = await rows.get(conn, "linuximage", ref)
        request = ExportRequest(name=name, tarball=str(tarball), **options)  # type: ignore[arg-type]
        return exporting.export(request, osimage, linuximage, site=site, library=self.library)

    async def take(self, tarball: Path, **options: object) -> Imported:
        return await self.importer.run(ImportRequest(tarball=str(tarball), **options))  # type: ignore[arg-type]

    async def state(self) -> dict[str, object]:
        """Every file and every row that an import may touch."""
        found = files_below(self.root, skip=("state",))
        async with self.store.read() as conn:
            for table in WATCHED:
                found[f"table {table}"] = await rows.dump(conn, table)
        return found

    def leftovers(self) -> list[str]:
        """Rooms, journals and temporary files."""
        starts = (".litho-", ".import", ".old", "old-")
        found = [path for path in self.root.rglob("*") if path.name.startswith(starts) or path.suffix == ".part"]
        found += list((self.root / "state/imports").glob("*"))
        return sorted(str(path.relative_to(self.root)) for path in found)


def files_below(root: Path, *, skip: Iterable[str] = ()) -> dict[str, object]:
    """Name -> (mode, content or link) of everything below `root`."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.split("/", maxsplit=1)[0] in skip:
            continue
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("dir", path.stat().st_mode & 0o7777)
        else:
            found[name] = (path.stat().st_mode & 0o7777, path.read_bytes())
    return found


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tarball(path: Path, *members: tuple[tarfile.TarInfo, bytes] | tuple[str, bytes], mode: str = "w:gz") -> Path:
    """A bundle made by hand, with Python's own tar."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for one, data in members:
            info = member(one, data)[0] if isinstance(one, str) else one
            tar.addfile(info, io.BytesIO(data))
    return path


def manifest(**values: str) -> bytes:
    return "".join(f"{key} {value}\n" for key, value in values.items()).encode()


INSTALL = {
    "name": "Foo_Image",
    "os": "rhels5.4",
    "arch": "x86_64",
    "profile": "foo",
    "method": "install",
    "template": "foo.tmpl",
    "media": "required",
}
NETBOOT = {
    "name": "Foo_Stateless",
    "os": "rhels5.4",
    "arch": "x86_64",
    "profile": "foo",
    "method": "netboot",
    "initrd": "initrd.gz",
    "kernel": "kernel",
    "rootimg": "rootimg.gz",
}


def small_tree(root: Path) -> Path:
    """A root image's tree, with what real ones have: links, a set-uid program, a device, a second name for a file."""
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "dev").mkdir()
    (root / "usr/bin/su").write_bytes(b"su" * 3000)
    (root / "usr/bin/su").chmod(0o4755)
    os.link(root / "usr/bin/su", root / "usr/bin/su2")
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/mtab").symlink_to("/proc/self/mounts")
    (root / "etc/hostname").write_text("node\n")
    (root / "etc/empty").touch()
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    return root


def cpio_of(tree: Path) -> bytes:
    """What `find | cpio -o -H newc | gzip` makes of a tree."""
    names = subprocess.run(["find", "."], cwd=tree, check=True, capture_output=True).stdout
    plain = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, check=True, capture_output=True, input=names
    ).stdout
    return gzip.compress(plain, mtime=0)
