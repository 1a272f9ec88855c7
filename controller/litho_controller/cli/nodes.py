"""`litho node ...`: the nodes that the controller knows."""

from __future__ import annotations

import time

import click

from litho.errors import UsageError
from litho.library import parse_ref
from litho_controller import api
from litho_controller.cli import discovery, live, render
from litho_controller.cli.session import Session, json_option, noderange, pass_session, print_json


@click.group()
def node() -> None:
    """Nodes that the controller knows.

    \b
    Example:
      litho node add n[01-10] --groups all,compute
      litho node ls compute
    """


@node.command()
@click.argument("names", metavar="NAMES")
@click.option("--mac", default="", help="Address of the network card that boots; for one node.")
@click.option("--group", "--groups", "groups", multiple=True, help="Groups, separated by commas; may be repeated.")
@click.option("--arch", default="", help="Architecture, such as x86_64.")
@click.option(
    "--from-discovered",
    "machine",
    default="",
    metavar="MAC",
    help="The node is this machine; see node ls --discovered.",
)
@json_option
@pass_session
def add(
    session: Session, *, names: str, mac: str, groups: tuple[str, ...], arch: str, machine: str, as_json: bool
) -> None:
    """Define nodes, or change those that exist.

    NAMES spells them out: n01, n01-n10, n[01-10], n01+9, and lists of these.

    \b
    Example:
      litho node add n01 --mac 52:54:00:00:00:01 --groups all,compute --arch x86_64
      litho node add n02 --from-discovered 52:54:00:00:00:02 --groups all,compute
    """
    if machine and mac:
        raise UsageError("--mac and --from-discovered say the same", hint="give one of them")
    if machine:
        mac, found = discovery.pick(session.client.discovered(), machine)
        arch = arch or found
    words = tuple(word for word in (part.strip() for part in ",".join(groups).split(",")) if word)
    answer = session.client.add_nodes(api.NodeAdd(range=names, mac=mac, groups=words, arch=arch))
    if as_json:
        print_json(answer.nodes)
    else:
        click.echo(f"defined {_count(answer)}")


@node.command()
@click.argument("range_", metavar="[NODERANGE]", default="")
@click.option("--discovered", is_flag=True, help="Machines that wait in the root image and that no node is.")
@json_option
@pass_session
def ls(session: Session, range_: str, discovered: bool, as_json: bool) -> None:
    """List nodes, all of them or those of a noderange; or machines that no node is.

    \b
    Example:
      litho node ls
      litho node ls n01-n10,-n05
      litho node ls --discovered
    """
    if discovered:
        if range_:
            raise UsageError("--discovered lists machines that are in no noderange", hint="leave the noderange out")
        found = session.client.discovered().machines
        if as_json:
            print_json(found)
        else:
            session.print_table(discovery.table(found, now=time.time()))
        return
    range_ = range_ or "all"
    answer = session.client.nodes(noderange(range_))
    if as_json:
        print_json(answer.nodes)
        return
    rows = [
        (
            one.node,
            ",".join(one.groups),
            one.mac,
            one.arch,
            one.state,
            one.task,
            "yes" if one.online else "",
            one.status,
        )
        for one in answer.nodes
    ]
    headers = ("NODE", "GROUPS", "MAC", "ARCH", "STATE", "TASK", "ONLINE", "STATUS")
    session.print_table(render.Grid(headers=headers, rows=rows))


@node.command()
@click.argument("range_", metavar="NODERANGE")
@json_option
@pass_session
def rm(session: Session, range_: str, as_json: bool) -> None:
    """Take nodes away. A node with a task that has not ended is refused.

    \b
    Example:
      litho node rm n09-n10
    """
    answer = session.client.remove_nodes(noderange(range_))
    if as_json:
        print_json(answer.nodes)
    else:
        click.echo(f"removed {_count(answer)}")


@node.command()
@click.argument("range_", metavar="NODERANGE")
@click.option(
    "--image", "ref", default="", metavar="IMAGE", help="NAME or NAME:VERSION; else the one of the node's profile."
)
@click.option("--disk", default="", help="Which disk: sda, serial=..., wwn=...; else the rule of captures chooses.")
@click.option("--allow", multiple=True, metavar="GUARD", help="Lift a guard, by the name that its refusal gave.")
@click.option("--watch", is_flag=True, help="Follow the tasks to their end; 7 when a disk is not what the image is.")
@json_option
@pass_session
def verify(
    session: Session, *, range_: str, ref: str, disk: str, allow: tuple[str, ...], watch: bool, as_json: bool
) -> int:
    """Compare the disks of nodes with an image in chunks, at their next network boot.

    Every used byte is read and compared with what the image holds; nothing is written. The task's result says which partitions
    differ, and by how much; a system that was started since has always written something.

    \b
    Example:
      litho node verify n01 --image golden --watch
    """
    if ref:
        parse_ref(ref)
    job = api.JobOptions(disk=disk, allow=allow)
    answer = session.client.nodeset(api.NodesetRequest(range=noderange(range_), state="verify", image=ref, job=job))
    failed = [line for line in answer.nodes if line.error]
    if as_json and not watch:
        print_json(answer.nodes)
    else:
        for line in answer.nodes:
            click.echo(f"{line.node}: {render.clean(line.error or line.text)}", err=bool(line.error))
    if not watch:
        return int(bool(failed))
    ended = live.watch(session, [line.task for line in answer.nodes if line.task], quiet=as_json)
    if as_json:
        print_json(ended)
    return live.exit_code(ended) or int(bool(failed))


@node.command()
@click.argument("name", metavar="NODE")
@json_option
@pass_session
def show(session: Session, name: str, as_json: bool) -> None:
    """Show one node.

    \b
    Example:
      litho node show n01
    """
    one = session.client.node(name)
    if as_json:
        print_json(one)
        return
    pairs = (
        ("node", one.node),
        ("groups", ",".join(one.groups)),
        ("mac", one.mac),
        ("arch", one.arch),
        ("state", one.state),
        ("task", one.task),
        ("online", "yes" if one.online else "no"),
        ("status", one.status),
        *render.health(one.health),
    )
    click.echo(render.facts(pairs))


def _count(answer: api.NodeList) -> str:
    names = [one.node for one in answer.nodes]
    if len(names) == 1:
        return names[0]
    return f"{len(names)} nodes: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "no node"
