"""Kernel modules: which ones, with all that they need, and the firmware that they ask for.

The choice is pure: patterns and the text of `modules.dep` in, paths out. What a module needs comes along wherever
it lies, so the lists in contents.py name purposes and not libraries of the kernel. Modules keep the signatures that
Debian gave them: they are copied, never changed.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from litho import process
from litho.errors import ConfigError

_INDEXES = ("modules.order", "modules.builtin", "modules.builtin.modinfo")


def parse_dep(text: str) -> dict[str, tuple[str, ...]]:
    """`modules.dep`: each module's path below the version's folder, with the paths of all that it needs."""
    found = {}
    for line in text.splitlines():
        name, colon, needed = line.partition(":")
        if colon:
            found[name] = tuple(needed.split())
    return found


def _matches(path: str, pattern: str) -> bool:
    full = "kernel/" + pattern
    return (
        path == full
        or path.startswith(full + "/")
        or fnmatch.fnmatchcase(path, full)
        or fnmatch.fnmatchcase(path, full + "/*")
    )


def select(dep: dict[str, tuple[str, ...]], patterns: Sequence[str], *, without: Sequence[str] = ()) -> list[str]:
    """The modules that `patterns` name and `without` does not, and everything that they need, sorted.

    Raises ConfigError for a pattern that names nothing: a list that has gone stale is found at the build and not on a node.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [path for path in dep if _matches(path, pattern)]
        if not hits:
            raise ConfigError(
                f"no kernel module matches {pattern!r}", hint="correct contents.py", code="stale-module-list"
            )
        chosen.update(path for path in hits if not any(_matches(path, other) for other in without))
    for path in sorted(chosen):
        chosen.update(dep[path])
    return sorted(chosen)


def install(source: Path, root: Path, version: str, chosen: Iterable[str]) -> None:
    """Copy `chosen` from the unpacked kernel at `source` below `root` and index them there."""
    modules = Path("lib/modules", version)
    target = root / "usr" / modules if (root / "lib").is_symlink() else root / modules
    target.mkdir(parents=True, exist_ok=True)
    for name in (*chosen, *_INDEXES):
        where = target / name
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / modules / name, where)
    process.run(["depmod", "-b", root, version], doing="indexing the kernel modules")
    for name in _INDEXES:
        # Needed by depmod only.
        (target / name).unlink()
    # modprobe wants this one to know what need not be loaded.
    shutil.copy2(source / modules / "modules.builtin", target / "modules.builtin")


def firmware_names(source: Path, version: str, chosen: Sequence[str]) -> list[str]:
    """What the modules `chosen` may ask for, as paths below /lib/firmware."""
    base = source / "lib/modules" / version
    names: set[str] = set()
    for start in range(0, len(chosen), 200):
        files = [base / name for name in chosen[start : start + 200]]
        names.update(process.run(["modinfo", "-F", "firmware", *files]).out.split())
    return sorted(names)


def install_firmware(source: Path, root: Path, names: Sequence[str]) -> int:
    """Copy those of `names` that lie in the unpacked packages at `source`; answers how many there were."""
    lib = source / "usr/lib/firmware" if (source / "usr/lib/firmware").is_dir() else source / "lib/firmware"
    target = root / "usr/lib/firmware" if (root / "lib").is_symlink() else root / "lib/firmware"
    count = 0
    for name in names:
        for file in sorted(lib.glob(name)) if "*" in name else [lib / name]:
            if file.is_file():
                where = target / file.relative_to(lib)
                where.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, where)
                count += 1
    return count
