"""The command line: `python -m litho_rootimg [--out DIR] ...`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from litho.errors import LithoError
from litho_rootimg.build import Options, build, table


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    made = argparse.ArgumentParser(prog="litho_rootimg", description="Make kernel, initrd and root image of the node.")
    made.add_argument(
        "--out", type=Path, default=Path("build/rootimg"), help="where the results go (default: %(default)s)"
    )
    made.add_argument("--work", type=Path, help="where trees are kept between builds (default: OUT with .work behind)")
    made.add_argument("--sources", type=Path, metavar="FILE", help="apt sources instead of this machine's own")
    made.add_argument(
        "--include", action="append", default=[], metavar="PACKAGE", help="one more Debian package; repeatable"
    )
    made.add_argument(
        "--with-firmware",
        action="store_true",
        help="firmware for network cards and disk controllers (non-free-firmware)",
    )
    made.add_argument("--with-partimage-ng", type=Path, metavar="FILE", help="put this partimage-ng into the image")
    made.add_argument("--no-xcat", action="store_true", help="leave out the layout for xCAT")
    made.add_argument("--fresh", action="store_true", help="fetch the packages again: there may be newer ones")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run; answers the exit code."""
    asked = parser().parse_args(argv)
    out: Path = asked.out.absolute()
    options = Options(
        out=out,
        work=(asked.work or out.with_name(out.name + ".work")).absolute(),
        sources=asked.sources,
        include=tuple(asked.include),
        firmware=asked.with_firmware,
        partimage_ng=asked.with_partimage_ng,
        xcat=not asked.no_xcat,
        fresh=asked.fresh,
    )
    begun = time.monotonic()
    try:
        build(options, _say)
    except LithoError as exc:
        print(f"litho_rootimg: {exc}", file=sys.stderr)  # noqa: T201 - the command's own voice
        return exc.exit_code
    for row in table(out):
        _say(row)
    _say(f"{time.monotonic() - begun:.1f} s in all")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
