"""What operating system a captured partition holds, for the image's manifest and xCAT's osimage row.

The partition is not mounted where that can be avoided: `debugfs` reads files out of ext file systems and `ntfscat`
out of NTFS, both without writing. Others are mounted read-only, without replaying their journal, when this kernel
can. Everything read is what the owner of the disk put there, so it is hostile: few bytes are read, /etc/os-release is
parsed by its specification (os-release(5)) into words of a safe alphabet, and whatever does not fit is left empty.
Nothing here can make a capture fail but a missing program.

The names follow xCAT: osvers `debian12`, `rhels8.6`, `ubuntu22.04.3`; osarch as `uname -m` says.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import struct
from collections.abc import Callable
from pathlib import Path

from litho import process
from litho.errors import LithoError
from litho.messages import OsFacts
from litho_agent.filesystems import first_words
from litho_agent.mounting import mounted, read_inside

_LIMIT = 16 * 1024
_EXT = frozenset({"ext2", "ext3", "ext4"})
_BY_MOUNT = frozenset({"xfs", "btrfs", "f2fs"})
# debugfs does not follow a symbolic link in the last place: the file comes before the link to it.
_RELEASES = ("/usr/lib/os-release", "/etc/os-release")
_PROGRAMS = ("/usr/bin/bash", "/bin/bash", "/usr/bin/dash", "/bin/dash", "/bin/busybox", "/usr/bin/env")
_KERNEL = "/Windows/System32/ntoskrnl.exe"

_KEY = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_WORD = re.compile(r"[a-z0-9._-]{1,32}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9._~-]{1,32}", re.ASCII)
_XCAT_NAMES = {"rhel": "rhels", "opensuse-leap": "leap", "ol": "ol"}
_ELF = {3: "x86", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_PE = {0x14C: "x86", 0x8664: "x86_64", 0xAA64: "aarch64"}

Reader = Callable[[str], bytes]
"""The first bytes of a file of the partition; empty when it is not there."""


def read_os_release(device: Path, fs: str) -> OsFacts:
    """What the file system `fs` on `device` holds; empty when it is no system's root, or cannot be told. Writes nothing.

    Raises MissingProgramError.
    """
    if fs in _EXT:
        return gather(lambda path: first_words(["debugfs", "-R", f"cat {path}", device], limit=_LIMIT))
    if fs == "ntfs" and process.which("ntfscat"):
        kernel = first_words(["ntfscat", "--force", device, _KERNEL], limit=4096)
        return OsFacts(name="Windows", arch=pe_arch(kernel)) if kernel else OsFacts()
    if fs in _BY_MOUNT:
        with contextlib.suppress(LithoError), mounted(device, fs, read_only=True) as root:
            return gather(lambda path: read_inside(root, path, _LIMIT))
    return OsFacts()


def gather(read: Reader) -> OsFacts:
    """The facts from the files that `read` gives. Pure but for it."""
    for path in _RELEASES:
        found = parse_os_release(read(path))
        if found.name:
            arch = next((arch for program in _PROGRAMS if (arch := elf_arch(read(program)))), "")
            distro = "-".join(word for word in (found.vers, arch) if word)
            return OsFacts(name=found.name, vers=found.vers, distro=distro, arch=arch)
    return OsFacts()


def parse_os_release(data: bytes) -> OsFacts:
    """Name and version in the text of an os-release file; empty when there is no sound ID in it."""
    fields: dict[str, str] = {}
    for line in data[:_LIMIT].decode(errors="replace").splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or not _KEY.fullmatch(key):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        if len(words) <= 1:
            fields[key] = words[0] if words else ""
    distro, version = fields.get("ID", "linux"), fields.get("VERSION_ID", "")
    if not fields or not _WORD.fullmatch(distro):
        return OsFacts()
    vers = _XCAT_NAMES.get(distro, distro) + (version if _VERSION.fullmatch(version) else "")
    return OsFacts(name="Linux", vers=vers)


def elf_arch(data: bytes) -> str:
    """The machine of an ELF program, as `uname -m` says it; empty when it is none."""
    if len(data) < 20 or data[:4] != b"\x7fELF" or data[5] not in (1, 2):
        return ""
    little = data[5] == 1
    (machine,) = struct.unpack_from("<H" if little else ">H", data, 18)
    arch = _ELF.get(machine, "")
    return "ppc64le" if arch == "ppc64" and little else arch


def pe_arch(data: bytes) -> str:
    """The machine of a Windows program; empty when it is none."""
    if len(data) < 64 or data[:2] != b"MZ":
        return ""
    (at,) = struct.unpack_from("<I", data, 60)
    if at > len(data) - 6 or data[at : at + 4] != b"PE\0\0":
        return ""
    (machine,) = struct.unpack_from("<H", data, at + 4)
    return _PE.get(machine, "")
