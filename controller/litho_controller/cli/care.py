"""`litho image diff|prune|gc|stats|scrub`: what versions cost and share, and taking away what nobody needs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import msgspec

from litho.errors import IntegrityError, UsageError
from litho.library import parse_ref
from litho_controller.cli import render
from litho_controller.cli.meter import meter
from litho_controller.cli.session import Session, json_option, pass_session, print_json

if TYPE_CHECKING:
    from litho.library.chunks.health import Health
    from litho_controller.api_care import CareLine

_HOW = {"facts": "as described", "chunks": "by chunks", "stream": "by stream"}


@click.command()
@click.argument("first", metavar="IMAGE")
@click.argument("second", metavar="IMAGE")
@json_option
@pass_session
def diff(session: Session, first: str, second: str, as_json: bool) -> None:
    """Say what differs between two versions, partition by partition.

    Versions in chunks are compared chunk by chunk, by what the library knows: nothing is unpacked. Of streams it is
    said whether they are the same.

    \b
    Example:
      litho image diff golden:1 golden:2
    """
    for ref in (first, second):
        parse_ref(ref)
    found = session.client.diff(first, second)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            str(part.number),
            part.fs,
            _HOW.get(part.how, part.how),
            "equal" if part.equal else "differs",
            *(render.size(count) if count else "" for count in (part.same, part.changed, part.new, part.gone)),
        )
        for part in found.parts
    ]
    numbers = ("PART", "SAME", "CHANGED", "NEW", "GONE")
    headers = ("PART", "FS", "COMPARED", "", "SAME", "CHANGED", "NEW", "GONE")
    session.print_table(render.Grid(headers=headers, rows=rows, right=numbers))
    said = "are equal" if found.equal else "differ"
    table = "" if found.table else "; the partition tables differ"
    click.echo(f"{found.first} and {found.second} {said}{table}")


@click.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--keep", type=click.IntRange(1, 1_000_000), required=True, help="Versions of each image that stay.")
@click.option("--all", "every", is_flag=True, help="Of every image in the library.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@json_option
@pass_session
def prune(session: Session, names: tuple[str, ...], *, keep: int, every: bool, dry_run: bool, as_json: bool) -> None:
    """Delete all but the newest versions of images. Those that a task uses stay.

    \b
    Example:
      litho image prune golden --keep 5
      litho image prune --all --keep 3 --dry-run
    """
    if bool(names) is every:
        raise UsageError("prune takes names of images, or --all", hint="such as: litho image prune golden --keep 5")
    if every:
        names = tuple(dict.fromkeys(one.image for one in session.client.images().images))
    gone = [one for name in names for one in session.client.prune(name, keep=keep, dry=dry_run).images]
    if as_json:
        print_json(gone)
        return
    for one in gone:
        click.echo(f"{'would delete' if dry_run else 'deleted'} {one.image}:{one.version}")
    if not gone:
        click.echo("nothing to delete")


@click.command()
@click.option("--grace", "grace_h", type=click.FloatRange(0, 87600), default=24.0, show_default=True, help="Hours.")
@json_option
@pass_session
def gc(session: Session, grace_h: float, as_json: bool) -> None:
    """Delete chunks that no version of any image needs.

    What nobody needs is condemned by one run, and deleted by a later one when the grace time has passed without
    somebody needing it again. It may run beside captures and restores, and be broken off at any moment. The
    controller does it by itself once a day (chunks.gc_every_h in its settings).

    \b
    Example:
      litho image gc
    """
    line = _through(session, "gc", quiet=as_json, grace_s=str(int(grace_h * 3600)))
    swept = line.swept
    if swept is None:
        return
    if as_json:
        print_json(swept)
        return
    click.echo(
        f"{swept.deleted} packs deleted, {render.size(swept.freed)} freed; {swept.condemned} more may go after the grace time"
    )
    click.echo(f"{swept.packs} packs stay, with {render.size(swept.needed)} that images need")


@click.command()
@json_option
@pass_session
def stats(session: Session, as_json: bool) -> None:
    """Show what each version costs, what is shared, and what the library holds in all.

    ALONE is what no other version needs: deleting the version gives back that much, and its own files.

    \b
    Example:
      litho image stats
    """
    found = _through(session, "usage", quiet=as_json).usage
    if found is None:
        return
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one.image,
            str(one.version),
            *(render.size(count) for count in (one.used, one.files, one.chunks, one.alone)),
            f"unreadable: {one.error}" if one.error else "",
        )
        for one in found.versions
    ]
    numbers = ("VERSION", "USED", "FILES", "CHUNKS", "ALONE")
    session.print_table(
        render.Grid(headers=("IMAGE", "VERSION", "USED", "FILES", "CHUNKS", "ALONE", ""), rows=rows, right=numbers)
    )
    stored = found.files + found.packs
    times = f" ({found.used / stored:.1f} times smaller)" if stored and found.used >= stored else ""
    pairs = [
        ("disks", f"{render.size(found.used)} in {len(found.versions)} versions"),
        ("stored", f"{render.size(stored)}{times}"),
        (
            "packs",
            f"{found.pack_count} with {render.size(found.packs)}, of which {render.size(found.chunks)} are needed",
        ),
        ("condemned", f"{render.size(found.condemned)}" if found.condemned else ""),
        ("free", render.size(found.free)),
        ("scrubbed", _scrubbed(session.client.library_health())),
    ]
    click.echo("\n" + render.facts(pairs))


def _scrubbed(health: Health) -> str:
    """When every chunk was last read, and what is known of damage."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(health.ended)) if health.ended else "never to the end"
    found = [f"{len(health.damaged)} damaged packs"] if health.damaged else []
    found += [f"{len(health.lacking)} partitions of images that cannot be restored"] if health.lacking else []
    read = f", {health.packs} packs with {render.size(health.bytes)}" if health.ended else ""
    return f"{when}{read}; {' and '.join(found) or ('all whole' if health.ended else 'nothing known')}"


@click.command()
@click.option(
    "--mend", is_flag=True, help="Forget damaged chunks, so that the next capture that meets them stores them."
)
@json_option
@pass_session
def scrub(session: Session, mend: bool, as_json: bool) -> None:
    """Read every chunk of the library and name damaged packs and the images that need them. Ends with 7 when there are any.

    The controller does it by itself once a week (chunks.scrub_every_h in its settings), slowly, and says it in its log.
    What is known stands in `litho image ls`, `show` and `stats`.

    \b
    Example:
      litho image scrub
    """
    damaged = _through(session, "scrub", quiet=as_json, mend="1" if mend else "").damaged or []
    if as_json:
        print_json(damaged)
    else:
        for one in damaged:
            for sentence in one.sentences:
                click.echo(render.clean(sentence))
            needing = ", ".join(one.images) or "no image"
            click.echo(f"  needed by {needing}{'; forgotten' if one.mended else ''}" if one.pack else "")
    if damaged:
        raise IntegrityError(
            f"{len(damaged)} packs, catalogs or images are damaged",
            hint="restore them from a backup, or say --mend and capture the images again",
        )
    if not as_json:
        click.echo("every chunk is whole")


def _through(session: Session, what: str, *, quiet: bool, **query: str) -> CareLine:
    """The last line of the work, its course shown."""
    line: CareLine | None = None
    with meter(session, what, quiet=quiet) as moved:
        for line in session.client.care(what, **query):
            moved(line.done, line.total)
    if line is None:  # the client raises before
        raise msgspec.ValidationError("the answer has no lines")
    return line
