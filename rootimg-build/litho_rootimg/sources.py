"""Which of this machine's apt sources are Debian's own.

The root image is made through the sources that the machine is configured with, so a site's mirror, a proxy or a
snapshot holds for it too. Entries of others (a browser, a cloud's tools) must not reach it: they bring keys and
packages that nobody meant for the nodes. An entry is Debian's when it is signed by Debian's archive keyring, or,
when it names no key, when its address ends in `/debian` or `/debian-security` (a snapshot's date may follow). Both
formats of apt are read: one-line `.list` files and deb822 `.sources` files.

Pure, but for `read`.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from litho.errors import ConfigError

_DEBIAN = re.compile(r"/debian(-security)?(/[0-9]{8}T[0-9]{6}Z)?/?$", re.ASCII)
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One source of binary packages."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    options: tuple[tuple[str, str], ...] = ()
    """Other fields, as they were written in deb822."""

    def deb822(self) -> str:
        """The entry as a stanza."""
        lines = [
            "Types: deb",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
            f"Components: {' '.join(self.components)}",
        ]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        lines.extend(f"{key}: {value}" for key, value in self.options)
        return "\n".join(lines) + "\n"


def parse_list(text: str) -> list[Entry]:
    """The `deb` lines of a one-line file; comments, `deb-src` and what cannot be read are left out."""
    entries = []
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.split("#", 1)[0].strip())
        if match is None:
            continue
        options = dict(word.split("=", 1) for word in (match["options"] or "").split() if "=" in word)
        signed_by = options.pop("signed-by", "")
        named = {"trusted": "Trusted", "check-valid-until": "Check-Valid-Until", "arch": "Architectures"}
        entries.append(
            Entry(
                uris=(match["uri"],),
                suites=(match["suite"],),
                components=tuple(match["components"].split()),
                signed_by=signed_by,
                options=tuple((named[key], value) for key, value in sorted(options.items()) if key in named),
            )
        )
    return entries


def parse_deb822(text: str) -> list[Entry]:
    """The stanzas of a `.sources` file that are switched on and hold binary packages."""
    entries = []
    without_comments = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", without_comments):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace() and key:
                fields[key] += "\n" + line
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().title()
                fields[key] = value.strip()
        if "deb" not in fields.get("Types", "").split() or fields.get("Enabled", "yes").lower() == "no":
            continue
        kept = ("Architectures", "Trusted", "Check-Valid-Until")
        entries.append(
            Entry(
                uris=tuple(fields.get("Uris", "").split()),
                suites=tuple(fields.get("Suites", "").split()),
                components=tuple(fields.get("Components", "").split()),
                signed_by=fields.get("Signed-By", ""),
                options=tuple((name, fields[name]) for name in kept if name in fields),
            )
        )
    return entries


def is_debian(entry: Entry) -> bool:
    """True when the entry is Debian's own."""
    if entry.signed_by:
        return "debian-archive" in entry.signed_by
    return bool(entry.uris) and all(_DEBIAN.search(uri) for uri in entry.uris)


def choose(entries: list[Entry], *, component: str = "") -> str:
    """The entries of Debian as deb822, with `component` added to each where it is missing.

    Raises ConfigError when there is none.
    """
    own = [entry for entry in entries if is_debian(entry)]
    if not own:
        raise ConfigError(
            "this machine has no apt source of Debian",
            hint="name a file with one by --sources",
            code="no-debian-source",
        )
    if component:
        own = [
            entry
            if component in entry.components
            else msgspec.structs.replace(entry, components=(*entry.components, component))
            for entry in own
        ]
    return "\n".join(entry.deb822() for entry in own)


def read(apt: Path = Path("/etc/apt")) -> list[Entry]:
    """Every entry of this machine. Raises ConfigError when a file cannot be read."""
    entries: list[Entry] = []
    try:
        for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
            if path.suffix == ".list" and path.is_file():
                entries += parse_list(path.read_text())
            elif path.suffix == ".sources" and path.is_file():
                entries += parse_deb822(path.read_text())
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the apt sources of this machine cannot be read ({exc})") from exc
    return entries


def read_file(path: Path) -> list[Entry]:
    """The entries of one file that a person named. Raises ConfigError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read ({exc})") from exc
    return parse_deb822(text) if re.search(r"(?m)^Types:", text) else parse_list(text)
