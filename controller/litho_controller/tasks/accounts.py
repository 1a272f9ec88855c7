"""Who may speak to the broker. An agent gets its own account with its claim, and it ends soon after its task.

The user is the node's name, so that the broker's access rules can be written with it. The password is made from the controller's
secret, the task and the session (HMAC-SHA256): it need not be stored, a repeated claim is answered with the same one, and the
whole list can be made anew from the database after a crash. One account a node: a new claim ends the older one.

How long an account lives after its task has ended: long enough for the last acknowledgment and `Finish`. After LOST a day,
because the session may come back and say how it really ended.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from litho.errors import LithoError
from litho.task import State
from litho_controller.store.tasks import TaskRow

AFTER_LOST_S = 86_400.0
SECRET_BYTES = 32


def load_secret(path: Path) -> bytes:
    """The controller's secret, made at the first start. Raises LithoError."""
    try:
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            found = path.read_bytes()
    except OSError as exc:
        raise LithoError(
            f"the secret {path} cannot be read ({exc.strerror or exc})", hint="check the rights of state_dir"
        ) from exc
    if len(found) != SECRET_BYTES:
        raise LithoError(
            f"the secret {path} is damaged", hint="delete it; nodes with a task under way must claim again"
        )
    return found


def password(secret: bytes, *, task: str, session: str) -> str:
    """The broker password of one session of one task."""
    digest = hmac.new(secret, f"broker/{task}/{session}".encode(), "sha256").digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def library_proof(secret: bytes, *, task: str, session: str) -> str:
    """What one session of one task shows to read the library over HTTP."""
    digest = hmac.new(secret, f"library/{task}/{session}".encode(), "sha256").digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def wanted(secret: bytes, rows: Iterable[TaskRow], *, now: float, linger_s: float) -> dict[str, str]:
    """The accounts that there should be; `rows` are the newest claimed task of each node, `now` seconds since 1970."""
    return {
        row.node: password(secret, task=row.id, session=row.task.session)
        for row in rows
        if row.task.session and _lives(row, now, linger_s)
    }


def _lives(row: TaskRow, now: float, linger_s: float) -> bool:
    if not row.state.ended:
        return True
    limit = AFTER_LOST_S if row.state is State.LOST else linger_s
    return now - (row.ended or 0.0) < limit
