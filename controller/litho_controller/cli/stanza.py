"""Definitions as text, as xCAT's lsdef writes them and mkdef -z reads them. Pure.

Programs read it, so it is kept byte for byte as xCAT 2.19 writes it (seen on a running xcatd): `Object name: NAME`, then
`    attribute=value`, sorted; `-z` writes the stanza file, `-c` the name before every line.

A stanza file: a line that ends with `:` names an object; `attribute=value` below it; blank lines and lines with `#` count
for nothing; `objtype` says the kind; a stanza `default-<kind>:` holds for all later ones of that kind. As in xCAT one
pair of double quotes around a value is taken off, but only when both are there: xCAT takes each off alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from litho.errors import UsageError

STANZA_HEAD = "# <xCAT data object stanza file>\n"
DEFAULTS = "default-"


def one_line(text: str) -> str:
    """`text` with its newlines as blanks: one line of output is one value."""
    return text.replace("\n", " ")


def listing(names: Iterable[str], kind: str) -> str:
    """What `lsdef -t osimage` prints: each name and what it is."""
    return "".join(f"{name}  ({kind})\n" for name in sorted(names))


def definition(name: str, attributes: Mapping[str, str]) -> str:
    """One object as `lsdef` prints it."""
    return f"Object name: {name}\n" + "".join(
        f"    {key}={one_line(value)}\n" for key, value in sorted(attributes.items())
    )


def stanza(name: str, kind: str, attributes: Mapping[str, str]) -> str:
    """One object as `lsdef -z` prints it."""
    lines = "".join(f"    {key}={one_line(value)}\n" for key, value in sorted(attributes.items()))
    return f"\n{name}:\n    objtype={kind}\n{lines}"


def compressed(name: str, attributes: Mapping[str, str]) -> str:
    """One object as `lsdef -c` prints it: every line with the name before it."""
    return "".join(f"{name}: {key}={one_line(value)}\n" for key, value in sorted(attributes.items()))


def parse(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """The objects of a stanza file: (kind, name) -> attributes. Raises UsageError that names the line."""
    found: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        name, equals, value = words.partition("=")
        if not equals and words.endswith(":"):
            found.append((words[:-1].strip(), {}))
        elif not equals or not found:
            raise UsageError(f"line {number} is neither NAME: nor ATTRIBUTE=VALUE: {words[:80]!r}", code="bad-stanza")
        else:
            value = value.strip()
            quoted = len(value) > 1 and value.startswith('"') and value.endswith('"')
            found[-1][1][name.strip()] = value[1:-1] if quoted else value
    return _typed(found)


def _typed(found: Iterable[tuple[str, dict[str, str]]]) -> dict[tuple[str, str], dict[str, str]]:
    defaults: dict[str, dict[str, str]] = {}
    objects: dict[tuple[str, str], dict[str, str]] = {}
    for name, attributes in found:
        if name.startswith(DEFAULTS):
            defaults[name.removeprefix(DEFAULTS)] = attributes
            continue
        kind = attributes.pop("objtype", "")
        if not kind:
            kinds = [word for word in defaults if "objtype" in defaults[word] or len(defaults) == 1]
            kind = kinds[0] if len(kinds) == 1 else ""
        if not kind:
            raise UsageError(
                f"No objtype value was specified for '{name[:80]}'. Cannot create object definition.", code="bad-stanza"
            )
        given = {key: value for key, value in defaults.get(kind, {}).items() if key != "objtype"}
        objects.setdefault((kind, name), {}).update({**given, **attributes})
    return objects
