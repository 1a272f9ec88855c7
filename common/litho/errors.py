"""Every error that a user can meet, as one tree.

    LithoError                     1   something went wrong and nothing below fits better
    ├── UsageError                 2   the request itself cannot be understood
    │   └── ConfigError            2   a configuration file or a kernel parameter has a bad value
    ├── NotFoundError              3   a node, task, image or version of that name does not exist
    ├── RefusedError               4   understood, and a rule says no (guard, state, double, not allowed)
    ├── DiskError                  5   the disk, its table or a file system on it
    ├── LibraryError               6   the image library: not there, not writable, full, damaged entry
    │   └── IntegrityError         7   bytes differ from what a hash in the library promises
    ├── EngineError                8   a child program failed, or its success could not be proven
    │   └── MissingProgramError    8   ... because it is not installed
    ├── UnreachableError           9   the controller or the broker cannot be reached
    ├── WireError                  1   a message from outside does not parse
    └── CancelledError            10   somebody asked for it to stop

The number is the exit code of `litho` and `litho-agent`; docs/reference/exit-codes.md lists them.

An error is a sentence for a person: the cause, the thing it happened to, and the way out. It travels unchanged from
the worker over the wire into a task's reason, so it also has a short `code` that programs can match and that does
not change when the sentence is polished. Lower exceptions (OSError, ValueError of a parser) are turned into one of
these once, at the border where they appear; nothing above the border catches anything else.
"""

from __future__ import annotations

from typing import ClassVar


class LithoError(Exception):
    """Root of the tree.

    `message` is one sentence with the cause and the thing, without a full stop at the end.
    `hint` is the way out, or empty when there is none to give.
    `code` is a short stable word for programs, such as "disk-missing".
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "failed"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class UsageError(LithoError):
    """The request cannot be understood."""

    exit_code = 2
    default_code = "usage"


class ConfigError(UsageError):
    """A configuration file, environment variable or kernel parameter has a bad value."""

    default_code = "bad-config"


class NotFoundError(LithoError):
    """Something that was named does not exist."""

    exit_code = 3
    default_code = "not-found"


class RefusedError(LithoError):
    """Understood, and a rule forbids it."""

    exit_code = 4
    default_code = "refused"


class DiskError(LithoError):
    """The disk, its partition table, or a file system on it."""

    exit_code = 5
    default_code = "disk"


class LibraryError(LithoError):
    """The image library is missing, not writable, full, or has a damaged entry."""

    exit_code = 6
    default_code = "library"


class IntegrityError(LibraryError):
    """Bytes differ from what a hash in the library promises."""

    exit_code = 7
    default_code = "corrupt"


class EngineError(LithoError):
    """A child program failed, or its success could not be proven."""

    exit_code = 8
    default_code = "engine"


class MissingProgramError(EngineError):
    """A child program is not installed."""

    default_code = "missing-program"


class UnreachableError(LithoError):
    """The controller or the broker cannot be reached."""

    exit_code = 9
    default_code = "unreachable"


class WireError(LithoError):
    """A message from outside (MQTT, HTTP) does not parse, or is too large."""

    default_code = "bad-message"


class CancelledError(LithoError):
    """Somebody asked for the work to stop."""

    exit_code = 10
    default_code = "cancelled"
