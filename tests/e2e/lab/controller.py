"""The real controller of the lab: `litho serve` on the bridge, and the `litho` command that speaks with it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from litho import process
from litho_controller.client import Client

from .network import ADDRESS
from .nfs import EXPORT
from .world import PATIENCE, World, wait_port, wait_socket

PORT = 3080
SOCKET = Path("/run/litho.sock")
BIN = Path(sys.executable).parent
KCMDLINE = "console=tty0 console=ttyS0,115200 quiet panic=10"
ENDED = ("succeeded", "failed", "cancelled", "lost")


class Controller:
    """`litho serve`; `kill` and `start` are what a crash looks like."""

    def __init__(self, world: World, rootimg: Path) -> None:
        self._world = world
        self.url = f"http://{ADDRESS}:{PORT}"
        self.state = world.folder / "state"
        self.library = world.folder / "library"
        self.tftp = world.folder / "tftp"
        self.config = world.folder / "lithograph.toml"
        self.config.write_text(
            f'site = "lab"\nstate_dir = "{self.state}"\nlibrary = "{self.library}"\nsocket = "{SOCKET}"\n'
            f'[http]\nhost = "{ADDRESS}"\nport = {PORT}\nurl = "{self.url}"\n'
            f'[broker]\nhost = "{ADDRESS}"\nport = 1883\n'
            f'[boot]\ndir = "{rootimg / "http"}"\nkcmdline = "{KCMDLINE}"\nunknown = "discover"\n'
            f'tftpdir = "{self.tftp}"\n'
        )
        world.folder.chmod(0o755)

    def make_library(self) -> None:
        """An empty one."""
        self.litho("library", "init", str(self.library))

    def adopt(self, library: Path) -> None:
        """Take over the images of another lab's library, and not what says which controller works with it."""
        images = [file for file in library.iterdir() if not file.name.startswith(".")]
        process.run(["cp", "-a", "--reflink=auto", *images, self.library])

    def start(self) -> None:
        """Start it and wait until it answers."""
        serve = self._world.start("litho-serve", BIN / "litho", "serve", env=self._environment)
        wait_port(ADDRESS, PORT, of=serve)
        wait_port(ADDRESS, 1883, of=serve)
        wait_socket(SOCKET, of=serve)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._world.stop("litho-serve", kill=True)

    @property
    def _environment(self) -> dict[str, str]:
        return {"LITHO_CONFIG": str(self.config)}

    def litho(self, *words: str) -> str:
        """What a `litho` command prints. Raises EngineError when it fails."""
        out = self._run(*words)
        self._world.note(f"litho {' '.join(words)}\n{out.rstrip()}")
        return out

    def _run(self, *words: str) -> str:
        return process.run([BIN / "litho", *words], env=self._environment, doing=f"litho {' '.join(words)}").out

    def ask_text(self, *words: str) -> str:
        """What a command prints, without a note in the lab's log: for what is asked again and again."""
        return self._run(*words)

    def ask(self, *words: str) -> Any:
        """The same as data."""
        return json.loads(self._run(*words, "--json"))

    def export_library(self) -> None:
        """Tell the nodes that the library is on NFS, in the words of xCAT's site table."""
        for key, value in (("IMAGELIBSERVER", ADDRESS), ("IMAGELIBINSTALLDIR", EXPORT)):
            self.litho("tabch", f"key={key}", f"site.value={value}")

    @property
    def boot_script(self) -> str:
        """What DHCP hands to iPXE."""
        return f"{self.url}/boot/ipxe"

    def task(self, node: str) -> dict[str, Any]:
        """The youngest task of a node, as `litho task ls --json` has it; without a command, because it is asked often."""
        tasks = Client(SOCKET).tasks(node=node).tasks
        assert tasks, f"{node} has no task"
        youngest: dict[str, Any] = msgspec.to_builtins(max(tasks, key=lambda task: task.created))
        return youngest

    def wait_task(self, node: str, state: str, timeout_s: float) -> dict[str, Any]:
        """Wait until the youngest task of a node is in `state`; fails at once when it ends in another."""
        until = time.monotonic() + timeout_s * PATIENCE
        while True:
            task = self.task(node)
            if task["state"] == state:
                return task
            assert task["state"] not in ENDED, f"the task of {node} ended as {task['state']}: {task.get('reason')}"
            assert time.monotonic() < until, f"the task of {node} is still {task['state']} after {timeout_s} s: {task}"
            time.sleep(0.5)
