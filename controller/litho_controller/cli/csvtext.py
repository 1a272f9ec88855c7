"""A table as CSV, written and read as xCAT's tabdump and tabrestore do. Pure.

The header is `#` and the columns. A column without a value (NULL) is nothing between the commas; every other value, the empty
text too, stands in double quotes with each `"` doubled; a newline inside stays as it is (xCAT 2.19, P/tabutils.pm, seen on a
running xcatd). Read is also what a spreadsheet makes of it: fields without quotes, a header in quotes, CR LF, short rows. What
is written is read back as the same rows, value for value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from litho.errors import UsageError

Row = tuple[str | None, ...]


def write(columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    """The table as `tabdump` prints it."""
    lines = ["#" + ",".join(columns)]
    lines.extend(",".join("" if value is None else _quoted(value) for value in row) for row in rows)
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def read(text: str) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """Columns and rows of a file. Raises UsageError that names the line."""
    header, _, rest = text.removeprefix("\ufeff").partition("\n")
    header = header.replace('"', "").strip()
    if not header.startswith("#"):
        raise UsageError("Data missing header line starting with #", code="bad-csv")
    columns = tuple(header[1:].split(","))
    return columns, tuple(_Reader(rest, len(columns)).rows())


class _Reader:
    """One pass over the lines behind the header."""

    def __init__(self, text: str, width: int) -> None:
        self._text = text
        self._width = width
        self._at = 0
        self._line = 2

    def rows(self) -> Iterable[Row]:
        while self._at < len(self._text):
            begun = self._line
            row = self._row()
            if row == [None]:
                continue
            if len(row) > self._width:
                raise UsageError(f"Too many fields on line {begun}", code="bad-csv")
            yield (*row, *[None] * (self._width - len(row)))

    def _row(self) -> list[str | None]:
        fields: list[str | None] = []
        while True:
            fields.append(self._field())
            mark = self._text[self._at : self._at + 1]
            self._at += 1
            if mark != ",":
                self._line += 1
                return fields

    def _field(self) -> str | None:
        """One field; leaves `_at` at the comma or newline behind it, or at the end."""
        if self._text.startswith('"', self._at):
            return self._in_quotes()
        ends = [end for mark in ",\n" if (end := self._text.find(mark, self._at)) >= 0]
        end = min(ends, default=len(self._text))
        value = self._text[self._at : end]
        if '"' in value:
            raise UsageError(f'CSV missing opening " on line {self._line}: {value[:80]!r}', code="bad-csv")
        self._at = end
        if self._text[end : end + 1] != ",":
            value = value.rstrip()
        return value or None

    def _in_quotes(self) -> str:
        pieces = []
        begun, start = self._line, self._at + 1
        while True:
            end = self._text.find('"', start)
            if end < 0:
                raise UsageError(f'CSV unmatched " in the record on line {begun}', code="bad-csv")
            pieces.append(self._text[start:end])
            if self._text[end + 1 : end + 2] != '"':
                break
            pieces.append('"')
            start = end + 2
        value = "".join(pieces)
        self._line += value.count("\n")
        self._at = end + 1
        # Only what no eye sees may stand between the quotes and the end of the line.
        while self._text[self._at : self._at + 1] in (" ", "\t", "\r"):
            self._at += 1
        if self._text[self._at : self._at + 1] not in ("", ",", "\n"):
            raise UsageError(f'CSV unescaped " in the record on line {begun}', code="bad-csv")
        return value
