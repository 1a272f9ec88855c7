"""The initrd: busybox, the drivers of network cards, and one script (files/initrd/init)."""

from __future__ import annotations

import shutil
from pathlib import Path

from litho_rootimg import archive, contents, modules, tree
from litho_rootimg.base import FILES, Base


def make(base: Base, root: Path, out: Path) -> None:
    """Make the initrd's tree at `root` anew and write it to `out`. Raises EngineError, ConfigError."""
    facts = base.facts()
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "dev", "etc", "proc", "sys", "run", "newroot", "lib"):
        (root / name).mkdir(parents=True)
    shutil.copy2(base.tree / "bin/busybox", root / "bin/busybox")
    tree.overlay(FILES / "initrd", root)
    # One script for both roots.
    shutil.copy(FILES / "root/usr/lib/lithograph/udhcpc", root / "etc/udhcpc")
    (root / "etc/udhcpc").chmod(0o755)
    dep = modules.parse_dep((base.kernel / "lib/modules" / facts.kernel / "modules.dep").read_text())
    chosen = modules.select(dep, contents.INITRD_MODULES, without=contents.NOT_INITRD)
    modules.install(base.kernel, root, facts.kernel, chosen)
    modules.install_firmware(base.kernel, root, modules.firmware_names(base.kernel, facts.kernel, chosen))
    archive.clamp(root, facts.epoch)
    archive.cpio_zst(root, out)
