"""The base made into the node's root: our own files and the kernel's modules in, what differs from build to build out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from litho import process
from litho.errors import ConfigError
from litho_rootimg import archive, contents, modules
from litho_rootimg.base import FILES, Base

LINKS = {
    # Without mtab partimage calls every partition mounted and refuses it.
    "etc/mtab": "../proc/mounts",
    "etc/resolv.conf": "../run/resolv.conf",
    "usr/sbin/poweroff": "reboot",
    # Network cards keep the kernel's names, as in the initrd: eth0 is what xCAT's installnic says.
    "etc/systemd/network/99-default.link": "/dev/null",
    "etc/udev/rules.d/80-net-setup-link.rules": "/dev/null",
    # Nothing that lies on the disks is started: assembling an array or activating a volume group writes to them.
    "etc/udev/rules.d/64-md-raid-assembly.rules": "/dev/null",
    "etc/udev/rules.d/69-lvm.rules": "/dev/null",
}
"""Links of the image, and where they point."""

_EMPTIED = ("var/cache", "var/log", "var/lib/apt", "var/lib/ucf", "var/lib/dpkg/info", "var/lib/dpkg/triggers",
            "var/lib/dpkg/updates", "var/backups", "tmp", "var/tmp", "run", "boot", "dev")  # fmt: skip
_REMOVED = (
    "etc/apt", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/ld.so.cache.old",
    "etc/machine-id", "var/lib/dbus/machine-id", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend",
)  # fmt: skip
PARTIMAGE_NG = "usr/local/bin/partimage-ng"


def make(base: Base, tree: Path, *, partimage_ng: Path | None) -> list[str]:
    """Make `tree` anew from `base`; answers the kernel modules in it. Raises EngineError, ConfigError."""
    facts = base.facts()
    shutil.rmtree(tree, ignore_errors=True)
    process.run(["cp", "-a", "--reflink=auto", base.tree, tree], doing="copying the base")
    _clean(tree)
    overlay(FILES / "root", tree)
    for name, target in LINKS.items():
        link = tree / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    version = facts.kernel
    dep = modules.parse_dep((base.kernel / "lib/modules" / version / "modules.dep").read_text())
    chosen = modules.select(dep, contents.MODULES)
    modules.install(base.kernel, tree, version, chosen)
    modules.install_firmware(base.kernel, tree, modules.firmware_names(base.kernel, version, chosen))
    if partimage_ng is not None:
        add_program(tree, partimage_ng)
    archive.clamp(tree, facts.epoch)
    return chosen


def overlay(source: Path, tree: Path) -> None:
    """Lay our own files over the tree: owned by root, programs (what begins with `#!`) executable."""
    for name, info in archive.walk(source):
        path, target = source / name, tree / name
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif not path.is_symlink() and info.st_size:
            data = path.read_bytes()
            target.unlink(missing_ok=True)
            target.write_bytes(data)
            target.chmod(0o755 if data.startswith(b"#!") else 0o644)


def _clean(tree: Path) -> None:
    """Take out what the build left behind, and what would differ the next time."""
    for name in _EMPTIED:
        for entry in (tree / name).glob("*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    for name in _REMOVED:
        path = tree / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for left in (tree / "var/lib").glob("**/*-old"):
        left.unlink()
    # Programs want it there, and empty means: not decided yet.
    (tree / "etc/machine-id").touch()
    # The day on which a package made its user is the day of the build.
    shadow = tree / "etc/shadow"
    shadow.write_text("".join(undated(line) + "\n" for line in shadow.read_text().splitlines()))
    for name in ("proc", "sys", "dev", "run", "tmp", "root"):
        (tree / name).mkdir(exist_ok=True)
    os.chmod(tree / "tmp", 0o1777)  # noqa: S103, PTH101 - what /tmp is everywhere


def undated(line: str) -> str:
    """A line of /etc/shadow without the day of the last change."""
    fields = line.split(":")
    if len(fields) > 2:
        fields[2] = ""
    return ":".join(fields)


def missing_libraries(ldd: str) -> list[str]:
    """The libraries that `ldd` could not find. Pure."""
    return [line.split()[0] for line in ldd.splitlines() if line.rstrip().endswith("not found")]


def add_program(tree: Path, program: Path) -> None:
    """Put partimage-ng into the tree, if it can run there. Raises ConfigError when it is no program or a library is missing."""
    if not _is_elf(program):
        raise ConfigError(
            f"{program} is no program", hint="--with-partimage-ng wants the built binary", code="bad-partimage-ng"
        )
    target = tree / PARTIMAGE_NG
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(program, target)
    target.chmod(0o755)
    # A static program is none of ldd's business: it says so and ends with 1.
    done = process.run(["chroot", tree, "ldd", "/" + PARTIMAGE_NG], ok=(0, 1))
    missing = missing_libraries(done.out)
    if missing:
        raise ConfigError(
            f"{program} needs libraries that the root image does not have: {', '.join(sorted(missing))}",
            hint="add the packages that bring them by --include, or build it statically",
            code="missing-libraries",
        )
    static = any(words in done.out + done.err for words in ("statically linked", "not a dynamic executable"))
    if done.code and not static:
        raise ConfigError(f"{program} cannot run in the root image ({done.last_words})", code="bad-partimage-ng")


def _is_elf(file: Path) -> bool:
    try:
        with file.open("rb") as data:
            return data.read(4) == b"\x7fELF"
    except OSError:
        return False
