"""`litho rootimg ...`: what nodes boot. Built by the program `litho_rootimg`, put where the controller gives it out (boot.dir).

The build is a program of its own, with needs of its own (root, apt, mmdebstrap), and is started as one: it may run on another
machine than the controller, and `install` takes its results from there. Files that nodes may be fetching are replaced by rename.
"""

from __future__ import annotations

import shutil
import sys
from hashlib import file_digest
from pathlib import Path

import click

from litho import process
from litho.errors import ConfigError, IntegrityError, LithoError, NotFoundError
from litho_controller.cli.session import Session, pass_session

FILES = ("agent.tar.gz", "rootimg.squashfs", "initrd.img", "vmlinuz")
"""What nodes fetch, in the order in which it is replaced: kernel and initrd last, because they are fetched first."""
SUMS = "SHA256SUMS"


@click.group()
def rootimg() -> None:
    """The root image that nodes boot for a task.

    \b
    Example:
      litho rootimg build
    """


@rootimg.command(context_settings={"show_default": True})
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Where the results go; else in state_dir.")
@click.option("--work", metavar="DIR", type=click.Path(path_type=Path), help="Where trees are kept between builds.")
@click.option("--sources", metavar="FILE", type=click.Path(path_type=Path), help="Apt sources; else this machine's.")
@click.option("--include", metavar="PACKAGE", multiple=True, help="One more Debian package; may be repeated.")
@click.option("--with-firmware", is_flag=True, help="Firmware for network cards and disk controllers.")
@click.option(
    "--with-partimage-ng", metavar="FILE", type=click.Path(path_type=Path), help="Put this partimage-ng into the image."
)
@click.option("--no-xcat", is_flag=True, help="Leave out the layout for xCAT.")
@click.option("--fresh", is_flag=True, help="Fetch the packages again: there may be newer ones.")
@click.option("--no-install", is_flag=True, help="Leave boot.dir as it is.")
@pass_session
def build(session: Session, /, out: Path | None, no_install: bool, **words: object) -> None:
    """Make kernel, initrd, root image and agent from Debian packages, and put them into boot.dir.

    As root, through this machine's apt sources. A second call makes only what changed. Nodes that boot from then on get the new
    one.

    \b
    Example:
      litho rootimg build
      litho rootimg build --with-firmware --include lldpd
      litho rootimg build --out /tmp/rootimg --no-install
    """
    folder = (out or session.config.state_dir / "rootimg-build").absolute()
    child = process.start(argv(folder, words), stdout=-1, stderr=2)
    assert child.stdout is not None  # noqa: S101 - it was started with a pipe
    with child.stdout:
        for line in child.stdout:
            click.echo(line.decode(errors="replace"), nl=False)
    if code := child.wait():
        if code < 0:
            raise LithoError(f"the build was ended by signal {-code}", hint="begin it again: it goes on where it was")
        # It has said why.
        raise click.exceptions.Exit(code)
    if not no_install:
        _install(folder, session.config.boot.dir)


@rootimg.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@pass_session
def install(session: Session, folder: Path) -> None:
    """Put a root image that was built elsewhere into boot.dir: DIR is what its build wrote.

    \b
    Example:
      litho rootimg install /mnt/usb/rootimg
    """
    _install(folder, session.config.boot.dir)


def argv(out: Path, words: dict[str, object]) -> list[str]:
    """The command line of the build: options as they were given. Pure."""
    made = [sys.executable, "-m", "litho_rootimg", "--out", str(out)]
    for name, value in words.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            made.append(option)
        elif isinstance(value, tuple):
            made += [f"{option}={one}" for one in value]
        elif value is not None and value is not False:
            made.append(f"{option}={value}")
    return made


def sums(text: str) -> dict[str, str]:
    """Name -> hash of a SHA256SUMS file. Pure."""
    found = {}
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        if name:
            found[name] = digest
    return found


def place(out: Path, target: Path) -> None:
    """Check the results in `out` and put those for our own boot files into `target`. Raises NotFoundError, IntegrityError,
    ConfigError."""
    try:
        listed = sums((out / SUMS).read_text(errors="replace"))
    except OSError as exc:
        raise NotFoundError(
            f"there is no whole root image in {out} ({SUMS}: {(exc.strerror or str(exc)).lower()})",
            hint="name the directory that litho rootimg build wrote to",
            code="rootimg-missing",
        ) from exc
    try:
        for name in FILES:
            with (out / "http" / name).open("rb") as file:
                if file_digest(file, "sha256").hexdigest() != listed.get(f"http/{name}"):
                    raise IntegrityError(f"{out}/http/{name} is not what {SUMS} says", hint="build or copy it again")
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in FILES:
            beside = target / f".{name}.new"
            shutil.copyfile(out / "http" / name, beside)
            beside.chmod(0o644)
            beside.rename(target / name)
    except OSError as exc:
        raise ConfigError(
            f"the root image cannot be put into {target} ({exc.strerror or exc}: {exc.filename})",
            hint="correct boot.dir, its rights or its space",
            code="rootimg-place",
        ) from exc


def _install(folder: Path, target: Path) -> None:
    place(folder, target)
    click.echo(f"{target}: nodes boot this root image from now on")
