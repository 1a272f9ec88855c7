"""`litho image adopt`: images of other tools become images of the library. See `litho_controller.adopt`.

It works on the library itself, without the daemon: the files lie on this machine, and what they become is visible to
everybody in one rename at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from litho.errors import NotFoundError, UsageError
from litho.library import Library
from litho_controller.cli import render
from litho_controller.cli.meter import meter
from litho_controller.cli.session import Session, json_option, pass_session, print_json

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("paths", metavar="FILE...", nargs=-1, type=_PATH)
@click.option("--table", type=_PATH, help="The partition table (`sfdisk --dump`), whatever the file is called.")
@click.option("--boot", type=_PATH, help="The boot sector, whatever the file is called.")
@click.option(
    "--part", "parts", metavar="N=FILE", multiple=True, help="An image of partition N, whatever it is called."
)
@click.option("--leave-out", metavar="N", type=int, multiple=True, help="Partition N has no image, and that is right.")
@click.option("--link", is_flag=True, help="Link files that can be kept as they are instead of copying them.")
@json_option
@pass_session
def adopt(
    session: Session,
    *,
    name: str,
    paths: tuple[Path, ...],
    table: Path | None,
    boot: Path | None,
    parts: tuple[str, ...],
    leave_out: tuple[int, ...],
    link: bool,
    as_json: bool,
) -> None:
    """Take an image that partimage or partclone made (Apache VCL, Clonezilla, by hand) into the library as NAME.

    FILE... are the partition table, the boot sector and the image of each partition with all its volumes; a directory
    stands for what it holds. Everything is read to its end and checked first: a damaged image is refused, and the
    originals stay as they are.

    \b
    Example:
      litho image adopt golden /old/golden-sda.sfdisk /old/golden-sda.mbr /old/golden-sda1.gz
      litho image adopt office /home/partimag/office-img
    """
    # Only this command needs the readers.
    from litho_controller.adopt import names  # noqa: PLC0415
    from litho_controller.adopt.adopting import Adoption  # noqa: PLC0415

    named, found = _spread(paths)
    adoption = Adoption(
        name,
        names.sort(named, optional=found, table=table, boot=boot, parts=[_numbered(text) for text in parts]),
        link=link,
        leave_out=leave_out,
    )
    library = Library.open(session.config.library)
    library.check_writable()
    done = 0
    with meter(session, f"adopt {name}", quiet=as_json) as moved:

        def tick(more: int) -> None:
            nonlocal done
            done += more
            moved(done, adoption.total)

        manifest = adoption.run(library, tick)
    if as_json:
        print_json(manifest)
        return
    click.echo(f"adopted {manifest.image}:{manifest.version}, {render.size(manifest.used)} of used data")
    for note in manifest.notes:
        click.echo(f"note: {render.clean(note)}")


def _spread(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files that were named, and those that lie in directories that were. Raises NotFoundError."""
    named: list[Path] = []
    found: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                found += sorted(one for one in path.iterdir() if one.is_file())
            else:
                named.append(path)
        except OSError as exc:
            raise NotFoundError(f"{path} cannot be read ({exc.strerror})", code="file-unreadable") from exc
    return named, found


def _numbered(text: str) -> tuple[int, Path]:
    number, equals, path = text.partition("=")
    if not (equals and path and number.isascii() and number.isdigit()):
        raise UsageError(f"{text!r} is not N=FILE", hint="as in --part 1=/old/root.gz", code="bad-file-name")
    return int(number), Path(path)
