"""Taking a noderange's text apart. Pure."""

from __future__ import annotations

from litho.errors import UsageError

MAX_TEXT = 1024 * 1024
"""Characters of a noderange."""


def cleaned(text: str) -> str:
    """`text` without quotes, which count for nothing. Raises UsageError when it is too long."""
    if len(text) > MAX_TEXT:
        raise UsageError(f"a noderange may have at most {MAX_TEXT} characters", code="bad-noderange")
    return text.replace("'", "").replace('"', "")


def split(text: str, mark: str) -> list[str]:
    """`text` at each `mark` that is not inside parentheses or brackets. Raises UsageError when those do not close."""
    pieces = []
    start = 0
    open_: list[str] = []
    for at, char in enumerate(text):
        if char in "([":
            open_.append(char)
        elif char in ")]" and (not open_ or "([".index(open_.pop()) != ")]".index(char)):
            raise _unbalanced(text)
        elif char == mark and not open_:
            pieces.append(text[start:at])
            start = at + 1
    if open_:
        raise _unbalanced(text)
    return [*pieces, text[start:]]


def _unbalanced(text: str) -> UsageError:
    return UsageError(f"a parenthesis or bracket in the noderange {text[:100]!r} does not close", code="bad-noderange")
