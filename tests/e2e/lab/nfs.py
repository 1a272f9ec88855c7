"""nfs-ganesha as the library's server: NFS 4 in user space, so that no kernel server is needed and it can be killed at will.

It runs as root: without CAP_DAC_READ_SEARCH its file system layer cannot open what it made. Its complaints about
D-Bus and Kerberos are harmless.
"""

from __future__ import annotations

from pathlib import Path

from .network import ADDRESS
from .world import World, wait_port

EXPORT = "/images"


class Nfs:
    """The server; `stop` and `start` are what a crash and a reboot look like to its clients."""

    def __init__(self, world: World, library: Path) -> None:
        self._world = world
        folder = world.folder
        (folder / "recovery").mkdir(exist_ok=True)
        self._config = folder / "ganesha.conf"
        self._config.write_text(
            f"""\
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = 2049; Bind_addr = {ADDRESS}; Enable_NLM = false; Enable_RQUOTA = false;
                 Enable_UDP = false; mount_path_pseudo = true; }}
NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = "{folder}/recovery"; Minor_Versions = 1, 2; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{ Export_Id = 1; Path = "{library}"; Pseudo = "{EXPORT}"; Access_Type = RW; Squash = No_Root_Squash;
         SecType = sys; Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = EVENT; }}
"""
        )

    def start(self) -> None:
        """Start it and wait until it listens."""
        folder = self._world.folder
        server = self._world.start(
            "ganesha",
            "ganesha.nfsd",
            "-F",
            "-f",
            self._config,
            "-L",
            folder / "log/nfs.log",
            "-p",
            folder / "ganesha.pid",
        )
        wait_port(ADDRESS, 2049, of=server)

    def stop(self) -> None:
        """Kill it, as a crash would."""
        self._world.stop("ganesha", kill=True)
