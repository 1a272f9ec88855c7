"""MAC addresses: what stands in mac.mac, and which node an address means. Pure.

xCAT keeps all of a node's addresses in one cell: `52:54:00:00:00:01!n01|52:54:00:00:00:02!*NOIP*|0A-1B-...`, separated by `|`,
each with the host name that it belongs to behind a `!`. Any of them may be the card that boots. An address that two nodes
claim means neither: it would be a matter of luck whose disk is overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from litho.errors import UsageError

_PLAIN = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_BARE = re.compile(r"[0-9a-f]{12}", re.ASCII)
_NOBODY = frozenset({"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"})


def normal(text: str) -> str:
    """An address in its one form, lower case with colons; empty for what is none. Takes colons, dashes or nothing between the
    bytes, and the hardware type that boot loaders put before it (`01-52-54-...`)."""
    flat = text.strip().lower().replace("-", ":")
    if re.fullmatch(r"01:[0-9a-f:]{17}", flat, re.ASCII):
        flat = flat[3:]
    if _BARE.fullmatch(flat):
        flat = ":".join(flat[at : at + 2] for at in range(0, 12, 2))
    return flat if _PLAIN.fullmatch(flat) and flat not in _NOBODY else ""


def of_cell(text: str) -> tuple[str, ...]:
    """The addresses in a cell of mac.mac, in their order; what is no address is left out."""
    parts = (normal(part.partition("!")[0]) for part in text.split("|"))
    return tuple(dict.fromkeys(part for part in parts if part))


def owners(cells: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Address -> the nodes that claim it; more than one is a mistake of the site's."""
    found: dict[str, list[str]] = {}
    for node, cell in sorted(cells.items()):
        for mac in of_cell(cell):
            found.setdefault(mac, []).append(node)
    return {mac: tuple(names) for mac, names in found.items()}


def check(node: str, cell: str, claimed: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The addresses by which `node` is known when it boots. Raises UsageError when there is none, or another node has it too."""
    own = of_cell(cell)
    if not own:
        what = f"what mac.mac says of {node} is no MAC address" if cell.strip() else f"{node} has no MAC address"
        raise UsageError(
            f"{what}, so it could not be told from other machines when it boots",
            hint=f"give it one: litho node add {node} --mac 52:54:00:12:34:56",
            code="mac-unknown",
        )
    for mac in own:
        others = [name for name in claimed.get(mac, ()) if name != node]
        if others:
            raise UsageError(
                f"{node} and {others[0]} have the same MAC address {mac}, so nobody can say which of them boots",
                hint="correct the table mac",
                code="mac-double",
            )
    return own


def hexhyp(mac: str) -> str:
    """`52-54-00-12-34-56`: as boot loaders write it."""
    return mac.replace(":", "-")
