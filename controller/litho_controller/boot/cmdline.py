"""The words that tell the root image's agent who it is, and the file that holds them.

    <state_dir>/boot/n01.cmdline
        litho.controller=http://10.0.0.1:3080 litho.node=n01 litho.task=t-000007 litho.token=4mX...

The file exists while the node's task is armed or under way, and only then: a node that has no file has nothing to boot into. The
token in it is the only copy (the database has its hash), so the file is readable by its owner alone. It is written before the
database says ARMED, by rename, so that an armed task always finds its file whole; what a crash in between leaves behind is put
right at the next start (`litho_controller.tasks.recovery`).
"""

from __future__ import annotations

import os
import re
import secrets
from hashlib import sha256
from pathlib import Path

from litho.errors import LithoError, UsageError
from litho.messages import is_name

SUFFIX = ".cmdline"
_VALUE = re.compile(r"[\x21\x23-\x7e]+", re.ASCII)
"""One word to the kernel: printable ASCII without a blank or a double quote."""


def new_token() -> str:
    """A fresh one-time token: 256 random bits as 43 characters."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What the database keeps of a token. One pass is enough: the token is random and cannot be guessed from a list."""
    return sha256(token.encode()).hexdigest()


def words(*, controller: str, node: str, task: str, token: str, extra: str = "") -> str:
    """The words of the kernel command line. Raises UsageError for a value that would be more than one word.

    `extra` is bootparams.addkcmdline: words of the administrator's, put last as they are.
    """
    ours = {"controller": controller, "node": node, "task": task, "token": token}
    for name, value in ours.items():
        if not _VALUE.fullmatch(value):
            raise UsageError(f"litho.{name} cannot be {value[:80]!r} on a kernel command line", code="bad-cmdline")
    line = " ".join(f"litho.{name}={value}" for name, value in ours.items())
    flat = " ".join(extra.split())
    return f"{line} {flat}" if flat else line


def parse(line: str) -> dict[str, str]:
    """The `litho.` words of a line, without the prefix."""
    pairs = (word.partition("=") for word in line.split() if word.startswith("litho."))
    return {name.removeprefix("litho."): value for name, _, value in pairs}


class BootFiles:
    """The directory of the nodes' files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Make the directory. Raises LithoError."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise _error(self._directory, exc) from exc

    def path(self, node: str) -> Path:
        """Where `node`'s file is. Raises UsageError for a name that is none."""
        if not is_name(node):
            raise UsageError(f"{node[:80]!r} cannot be the name of a node", code="bad-node-name")
        return self._directory / f"{node}{SUFFIX}"

    def write(self, node: str, line: str) -> None:
        """`node` boots with `line` from now on. Raises LithoError."""
        path = self.path(node)
        beside = path.with_name(f".{path.name}.new")
        try:
            beside.unlink(missing_ok=True)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
        except OSError as exc:
            raise _error(path, exc) from exc

    def read(self, node: str) -> str:
        """`node`'s line; empty when there is none. Raises LithoError."""
        try:
            return self.path(node).read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as exc:
            raise _error(self.path(node), exc) from exc

    def remove(self, node: str, *, task: str = "") -> None:
        """`node` has nothing to boot into any more; with `task` only if its file is that task's. Raises LithoError."""
        if task and parse(self.read(node)).get("task") != task:
            return
        try:
            self.path(node).unlink(missing_ok=True)
        except OSError as exc:
            raise _error(self.path(node), exc) from exc

    def nodes(self) -> list[str]:
        """Nodes that have a file. Raises LithoError."""
        try:
            found = [entry.name for entry in os.scandir(self._directory)]
        except OSError as exc:
            raise _error(self._directory, exc) from exc
        return sorted(
            name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX) and is_name(name.removesuffix(SUFFIX))
        )


def _error(path: Path, exc: OSError) -> LithoError:
    return LithoError(
        f"the boot file {path} cannot be used ({exc.strerror or exc})",
        hint="check the space and the rights of state_dir",
        code="boot-file",
    )
