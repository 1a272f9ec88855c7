"""What may stand in a cell of a table: the one strict look at every value that comes from outside. Pure.

xCAT takes anything. Here three things are asked of a value: that it is text that a CSV file and a terminal can carry, that a key
is a name, and that columns which lead to disks and switches (MAC addresses, groups) can be understood. A MAC is kept
in one form, lower case with colons, however it was typed: what boots a node is compared with it.
"""

from __future__ import annotations

from litho.errors import UsageError
from litho_controller.tables.nodes import check_node, check_word, parse_mac
from litho_controller.tables.schema import TABLES

MAX_CELL = 64 * 1024
"""Characters."""
MAX_KEY = 128


def check(table: str, column: str, value: str) -> str:
    """`value` as it is kept in that column. Raises UsageError."""
    spec = TABLES[table]
    if len(value) > MAX_CELL:
        raise UsageError(f"a value of {table}.{column} is longer than {MAX_CELL} characters", code="bad-value")
    if any(not char.isprintable() and char not in "\n\t" for char in value):
        raise UsageError(
            f"a value of {table}.{column} holds characters that cannot be printed: {value[:80]!r}", code="bad-value"
        )
    if column == spec.key:
        return _key(table, value)
    if (table, column) == ("nodelist", "groups"):
        words = [word.strip() for word in value.split(",") if word.strip()]
        return ",".join(dict.fromkeys(check_word(word, "the name of a group") for word in words))
    if (table, column) == ("mac", "mac"):
        return "|".join(_mac(part) for part in value.split("|")) if value else ""
    return value


def _key(table: str, value: str) -> str:
    spec = TABLES[table]
    if spec.key == "node":
        return check_node(value)
    if table == "nodegroup":
        return check_word(value, "the name of a group")
    if not value or len(value) > MAX_KEY or value != value.strip() or not value.isprintable():
        raise UsageError(
            f"{value[:80]!r} cannot be a {spec.key} of the table {table}",
            hint=f"1 to {MAX_KEY} characters without blanks around them",
            code="bad-key",
        )
    return value


def _mac(text: str) -> str:
    """One of the addresses in mac.mac: `52:54:00:00:00:01` or `52:54:00:00:00:01!host`; several are joined by `|`."""
    address, mark, host = text.partition("!")
    return parse_mac(address) + mark + host.strip()
