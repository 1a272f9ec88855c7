"""What the site table says about bundles. Pure.

| key | means | default |
|---|---|---|
| `installdir` | where images live | `/install` |
| `bundleroots` | directories below which a bundle may place files, separated by commas | installdir |
| `bundletrust` | directory of the public keys that are trusted | `/etc/lithograph/trust` |
| `bundlesigned` | `yes`: only bundles signed by a trusted key are imported | `no` |
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

import msgspec

from litho.errors import ConfigError
from litho_controller.bundle.faults import shown
from litho_controller.bundle.manifest import is_place

TRUST = "/etc/lithograph/trust"


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """This site's places and rules. Paths are absolute, without a slash at the end."""

    install: str = "/install"
    roots: tuple[str, ...] = ("/install",)
    trust: str = TRUST
    signed: bool = False

    def custom(self, os: str, arch: str) -> str:
        """Where the seed puts templates."""
        return posixpath.join(self.install, "custom", os, arch)

    def netboot(self, os: str, arch: str, profile: str) -> str:
        """Where the seed puts what a node boots from the net."""
        return posixpath.join(self.install, "netboot", os, arch, profile)


def parse(keys: Mapping[str, str]) -> Site:
    """The site of these keys of the site table. Raises ConfigError for a value that cannot be."""
    install = _place("installdir", keys.get("installdir") or "/install")
    roots = [_place("bundleroots", word.strip()) for word in (keys.get("bundleroots") or install).split(",")]
    signed = (keys.get("bundlesigned") or "no").lower()
    if signed not in ("yes", "no", "1", "0"):
        raise ConfigError(f"the site key bundlesigned is {shown(signed)}", hint="write yes or no")
    return Site(
        install=install,
        roots=tuple(roots),
        trust=_place("bundletrust", keys.get("bundletrust") or TRUST),
        signed=signed in ("yes", "1"),
    )


def _place(key: str, value: str) -> str:
    flat = value.rstrip("/")
    if not is_place(flat):
        raise ConfigError(f"the site key {key} is {shown(value)}", hint="write an absolute path, not / itself")
    return flat
