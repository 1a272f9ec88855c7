"""The answer to a claim: the order, made of the task's row and of what the installation is like."""

from __future__ import annotations

from pathlib import Path

import msgspec

from litho.job import EngineName
from litho.messages import Broker, Order
from litho_controller.boot import plan
from litho_controller.broker_other import Login
from litho_controller.store.tasks import TaskRow
from litho_controller.tasks import accounts


class Installation(msgspec.Struct, kw_only=True):
    """What nodes are told about this installation. `url` and `brokers` are known when both listen."""

    site: str
    library: Path
    secret: bytes
    heartbeat_s: float
    progress_s: float
    engine: EngineName = ""
    """What captures are made with when nobody says; empty: the agent's own rule."""
    trust_h: float = 240.0
    """Hours for which captures rely on packs that were read whole."""
    credentials: bool = True
    """False for a broker that is not ours: agents enter it with `login`."""
    login: Login = Login()
    """The nodes' account in a broker that is not ours."""
    url: str = ""
    """Base address of the controller."""
    brokers: tuple[Broker, ...] = ()


def library_url(directory: Path, site_keys: dict[str, str], nfsserver: str = "") -> str:
    """Where a node finds the library: on NFS at site.IMAGELIBSERVER, else at its noderes.nfsserver; without either in a directory
    of this very machine. site.IMAGELIBINSTALLDIR is the export on whichever server it is; without it the library's own path."""
    server = site_keys.get("IMAGELIBSERVER", "").strip() or nfsserver.strip()
    if not server:
        return f"file://{directory}"
    export = site_keys.get("IMAGELIBINSTALLDIR", "").strip() or str(directory)
    return f"nfs://{plan.bracketed(server)}/{export.lstrip('/')}"


SOURCES_KEY = "imagelibsources"
"""Key of the site table: what images are restored from when a task does not say, words joined by commas."""


def site_sources(site_keys: dict[str, str]) -> tuple[str, ...] | msgspec.UnsetType:
    """What site.imagelibsources says, cut to what an order may hold. What is wrong with a word is said by the agent."""
    words = [word.strip()[:300] for word in site_keys.get(SOURCES_KEY, "").split(",") if word.strip()]
    return tuple(words[:16]) if words else msgspec.UNSET


def order(installation: Installation, row: TaskRow, site_keys: dict[str, str], nfsserver: str = "") -> Order:
    """What the agent is to do, and how to talk about it. `nfsserver` is its node's in noderes."""
    account = (
        (row.node, accounts.password(installation.secret, task=row.id, session=row.task.session))
        if installation.credentials
        else (installation.login.username, installation.login.password)
    )
    session = row.task.session
    proof = accounts.library_proof(installation.secret, task=row.id, session=session)
    reads = row.action != "capture"
    return Order(
        task=row.id,
        node=row.node,
        site=installation.site,
        job=msgspec.structs.replace(row.job, trust_h=installation.trust_h),
        library=library_url(installation.library, site_keys, nfsserver),
        sources=site_sources(site_keys) if reads else msgspec.UNSET,
        library_token=f"{row.id}.{proof}" if reads else msgspec.UNSET,
        engine=installation.engine,
        brokers=installation.brokers,
        username=account[0],
        password=account[1],
        heartbeat_s=installation.heartbeat_s,
        progress_s=installation.progress_s,
    )
