"""The packages as a tree: one run of mmdebstrap, and the kernel (with firmware, when asked for) as .deb files beside it.

Where apt gets things from is the machine's own configuration: Debian's entries of its sources (sources.py) and what
`apt-config` says about proxies and the like. Packages are checked by their signatures as apt always does.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import msgspec

from litho import process
from litho.errors import EngineError, LithoError
from litho_rootimg import archive, contents

FILES = Path(__file__).parent / "files"


class Package(msgspec.Struct, frozen=True, order=True):
    """One Debian package in the image."""

    name: str
    version: str
    arch: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a base once it is made."""

    epoch: int
    """Seconds: the youngest file that a package brought. Nothing in the images is younger."""
    kernel: str
    """As `uname -r` will say."""
    python: str
    """Such as `3.11`: what the agent's libraries must fit."""
    packages: tuple[Package, ...]


class Base(msgspec.Struct, frozen=True):
    """Where a base lies."""

    folder: Path

    @property
    def tree(self) -> Path:
        """The packages, installed."""
        return self.folder / "tree"

    @property
    def kernel(self) -> Path:
        """The kernel's and the firmware's packages, unpacked."""
        return self.folder / "kernel"

    @property
    def record(self) -> Path:
        """The facts, as JSON."""
        return self.folder / "facts.json"

    def facts(self) -> Facts:
        """The facts. Raises EngineError when they cannot be read."""
        try:
            return msgspec.json.decode(self.record.read_bytes(), type=Facts)
        except (OSError, msgspec.DecodeError) as exc:
            raise EngineError(f"{self.record} cannot be read ({exc})", hint="build with --fresh") from exc


def network_environment() -> dict[str, str]:
    """What a child that fetches from the network may inherit: proxies and certificates, under the names everybody uses."""
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in names if name in os.environ}


def apt_options(dump: str) -> list[str]:
    """The lines of `apt-config dump` that say how this machine fetches: `Acquire::...` with a value. Pure."""
    chosen = []
    for line in dump.splitlines():
        match = re.fullmatch(r'(Acquire::[A-Za-z0-9:._/-]+) "([^"]*)";', line)
        if (
            match
            and match[2]
            and not match[1].startswith(("Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::CompressionTypes"))
        ):
            chosen.append(f'{match[1]} "{match[2]}";')
    return chosen


def make(base: Base, sources: str, *, include: tuple[str, ...], firmware: tuple[str, ...]) -> Facts:
    """Make the base anew from the apt sources in `sources` (deb822). Raises EngineError."""
    shutil.rmtree(base.folder, ignore_errors=True)
    debs = base.folder / "debs"
    debs.mkdir(parents=True)
    begun = time.time()
    options = apt_options(process.run(["apt-config", "dump"]).out)
    argv: list[str | Path] = ["mmdebstrap", "--mode=root", "--variant=essential", "--format=directory"]
    # /usr is merged before the first package, not by a package that would bring all of Perl.
    argv.append("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
    argv += [
        f"--aptopt={option}" for option in [*options, 'APT::Install-Recommends "false";', 'Acquire::Languages "none";']
    ]
    argv += ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={path}" for path in contents.EXCLUDED)]
    argv += [f"--dpkgopt=path-include={path}" for path in contents.KEPT]
    argv += [f"--include={','.join((*contents.PACKAGES, *include))}", f"--customize-hook={FILES / 'hooks/fetch'}"]
    environment = {
        **network_environment(),
        "LITHO_DEBS": str(debs),
        "LITHO_KERNEL": contents.KERNEL,
        "LITHO_EXTRA": " ".join(firmware),
    }
    # An empty suite: what the sources name.
    done = process.run(
        [*argv, "", base.tree, "-"], stdin=sources.encode(), env=environment, ok=range(256), timeout_s=1800
    )
    log = base.folder / "mmdebstrap.log"
    log.write_text(done.err + done.out)
    if done.code:
        raise EngineError(f"installing the packages failed: {_reason(done.err)}", hint=f"see {log}")
    base.kernel.mkdir()
    packages = list(installed(base.tree))
    for deb in sorted(debs.glob("*.deb")):
        process.run(["dpkg-deb", "-x", deb, base.kernel], doing=f"unpacking {deb.name}")
        fields = process.run(["dpkg-deb", "-W", "--showformat=${Package} ${Version} ${Architecture}", deb]).out.split()
        packages.append(Package(*fields))
    shutil.rmtree(debs)
    kernel = _only(base.kernel / "lib/modules")
    # The package brings no index of its modules: installing it would make one.
    process.run(["depmod", "-b", base.kernel, kernel], doing="indexing the kernel modules")
    facts = Facts(
        epoch=_youngest(base, begun),
        kernel=kernel,
        python=_only(base.tree / "usr/lib", r"python(3\.[0-9]+)"),
        packages=tuple(sorted(packages)),
    )
    base.record.write_bytes(msgspec.json.format(msgspec.json.encode(facts)))
    return facts


def installed(tree: Path) -> list[Package]:
    """The packages that dpkg knows in `tree`, sorted."""
    form = "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"
    done = process.run(["dpkg-query", "--admindir", tree / "var/lib/dpkg", "-W", f"-f={form}"])
    rows = [line.split() for line in done.out.splitlines()]
    return sorted(Package(*row[1:]) for row in rows if row[0] == "installed")


def _reason(log: str) -> str:
    """The line that tells most of what apt, dpkg or mmdebstrap said: the first error that is not mmdebstrap's summing up."""
    lines = [line.strip() for line in log.splitlines() if line.startswith(("E: ", "dpkg: error", "Error"))]
    return next((line for line in lines if "mmdebstrap failed" not in line), log.strip().rpartition("\n")[2])[:300]


def _youngest(base: Base, begun: float) -> int:
    """The time of the youngest file that came out of a package: those that the build itself wrote are younger than its begin."""
    times = [int(info.st_mtime) for root in (base.tree, base.kernel) for _, info in archive.walk(root)]
    return max((when for when in times if when < int(begun)), default=0)


def _only(folder: Path, pattern: str = r"(.+)") -> str:
    found = [match[1] for path in folder.iterdir() if (match := re.fullmatch(pattern, path.name))]
    if len(found) != 1:
        raise LithoError(
            f"{folder} holds {len(found)} entries like {pattern} where one was expected", code="unexpected-base"
        )
    return found[0]
