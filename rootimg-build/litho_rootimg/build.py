"""The build, top to bottom: base, image, agent, list, layouts.

    <work>/base       packages and kernel, from the network          made when packages, sources or options change, or --fresh
    <work>/tree       the node's root                                made when the base, our files or the module lists change
    <work>/agent      the agent and its libraries                    made when their code or the lock changes
    <out>/http/       vmlinuz initrd.img rootimg.squashfs agent.tar.gz         what our own boot files point to
    <out>/xcat/       the same for an xCAT management node, as it lies below its /: tftpboot, install
    <out>/sbom.json   everything inside, with versions
    <out>/SHA256SUMS

A file that a node may be fetching is never written in place: the new one is finished under another name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from litho import amounts
from litho.errors import ConfigError, RefusedError
from litho_rootimg import agent, archive, base, contents, initrd, sbom, sources, stamps, tree

Say = Callable[[str], None]

XCAT_BOOT = Path("xcat/tftpboot/xcat/image/x86")
XCAT_FILES = Path("xcat/install/image/x86/installer_files")
_CODE = Path(__file__).parent


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a person may choose."""

    out: Path
    work: Path
    sources: Path | None = None
    """A file with apt sources instead of the machine's own."""
    include: tuple[str, ...] = ()
    """More packages."""
    firmware: bool = False
    partimage_ng: Path | None = None
    xcat: bool = True
    """Also make the layout for xCAT, whose `rootimg.gz` takes most of the time."""
    fresh: bool = False
    """Fetch the packages again although nothing was asked to change: there may be newer ones."""


@contextlib.contextmanager
def step(what: str, say: Say) -> Iterator[None]:
    """Say what is done and how long it took."""
    begun = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - begun:.1f} s")


def build(options: Options, say: Say) -> None:
    """Make what is not up to date. Raises ConfigError, RefusedError, EngineError."""
    if os.geteuid() != 0:
        raise RefusedError(
            "the root image is built as root", hint="mmdebstrap unpacks devices and owners", code="not-root"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    made = base.Base(options.work / "base")
    base_hash = _base(options, made, say)
    _image(options, made, base_hash, say)
    _agent(options, made, base_hash, say)
    _sums(options.out)


def _base(options: Options, made: base.Base, say: Say) -> str:
    firmware = contents.FIRMWARE if options.firmware else ()
    entries = sources.read_file(options.sources) if options.sources else sources.read()
    text = sources.choose(entries, component="non-free-firmware" if firmware else "")
    lists = (contents.PACKAGES, options.include, firmware, contents.EXCLUDED, contents.KEPT)
    words = [word for some in lists for word in (*some, "end of list")]
    wanted = stamps.digest([text, contents.KERNEL, *words, _CODE / "base.py", _CODE / "files/hooks"])
    stamp = stamps.Stamp(options.work / "base.stamp", wanted)
    if options.fresh or not stamp.fresh(made.record):
        stamp.begin()
        with step("base: packages and kernel", say):
            base.make(made, text, include=options.include, firmware=firmware)
        stamp.done()
    # Two fetches of the same list at different times are different bases.
    return hashlib.sha256(made.record.read_bytes()).hexdigest()


def _image(options: Options, made: base.Base, base_hash: str, say: Say) -> None:
    facts = made.facts()
    code = [_CODE / name for name in ("archive.py", "contents.py", "initrd.py", "modules.py", "tree.py", "files")]
    given = [options.partimage_ng] if options.partimage_ng else []
    wanted = stamps.digest([base_hash, *code, *_readable(given)])
    http = options.out / "http"
    results = [http / name for name in ("vmlinuz", "initrd.img", "rootimg.squashfs")]
    stamp = stamps.Stamp(options.work / "image.stamp", wanted)
    if not stamp.fresh(options.work / "tree", *results):
        stamp.begin()
        http.mkdir(exist_ok=True)
        with step("tree: modules and our own files", say):
            tree.make(made, options.work / "tree", partimage_ng=options.partimage_ng)
        with published(http / "vmlinuz") as new:
            shutil.copyfile(made.kernel / f"boot/vmlinuz-{facts.kernel}", new)
        with step("initrd.img", say), published(http / "initrd.img") as new:
            initrd.make(made, options.work / "initrd", new)
        with step("rootimg.squashfs", say), published(http / "rootimg.squashfs") as new:
            archive.squashfs(options.work / "tree", new, facts.epoch)
        stamp.done()
    if options.xcat:
        _xcat(options, wanted, say)


def _xcat(options: Options, wanted: str, say: Say) -> None:
    boot, files = options.out / XCAT_BOOT, options.out / XCAT_FILES
    stamp = stamps.Stamp(options.work / "xcat.stamp", wanted)
    if stamp.fresh(boot / "vmlinuz", boot / "initrd.img", files / "rootimg.gz"):
        return
    stamp.begin()
    boot.mkdir(parents=True, exist_ok=True)
    files.mkdir(parents=True, exist_ok=True)
    for name in ("vmlinuz", "initrd.img"):
        _same(options.out / "http" / name, boot / name)
    with step("rootimg.gz", say), published(files / "rootimg.gz") as new:
        archive.cpio_gz(options.work / "tree", new)
    stamp.done()


def _agent(options: Options, made: base.Base, base_hash: str, say: Say) -> None:
    facts = made.facts()
    wanted = stamps.digest(
        [
            base_hash,
            _CODE / "agent.py",
            _CODE / "archive.py",
            agent.lock_file(),
            *(agent.package_folder(name) for name in agent.PACKAGES),
        ]
    )
    result, listed = options.out / "http/agent.tar.gz", options.out / "sbom.json"
    stamp = stamps.Stamp(options.work / "agent.stamp", wanted)
    if not stamp.fresh(result, listed):
        stamp.begin()
        with step("agent.tar.gz", say), published(result) as new:
            libraries = agent.make(facts, options.work / "agent", new)
        with published(listed) as new:
            new.write_bytes(sbom.document(facts, libraries))
        stamp.done()
    if options.xcat:
        _same(result, options.out / XCAT_FILES / "agent.tar.gz")


@contextlib.contextmanager
def published(path: Path) -> Iterator[Path]:
    """A name to write to; what was written takes the place of `path` when the block ends well."""
    new = path.with_name(f".{path.name}.new")
    try:
        yield new
        new.chmod(0o644)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _same(source: Path, target: Path) -> None:
    """`target` becomes the same file as `source`: one more name for it, so it costs no space."""
    if not target.exists() or not target.samefile(source):
        with published(target) as new:
            new.hardlink_to(source)


def _readable(paths: list[Path]) -> list[Path]:
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path} is not there", code="no-such-file")
    return paths


def _sums(out: Path) -> None:
    lines = []
    for name, _ in archive.walk(out):
        path = out / name
        if path.is_file() and path.name != "SHA256SUMS":
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    with published(out / "SHA256SUMS") as new:
        new.write_text("".join(lines))


def table(out: Path) -> list[str]:
    """Each result with its size, for a person."""
    rows = []
    for name, info in archive.walk(out):
        if (out / name).is_file():
            rows.append(f"{amounts.size(info.st_size):>10}  {out / name}")
    return rows
