"""Words of the administrator's on a kernel command line: bootparams.addkcmdline, and boot.kcmdline of the settings.

The same line is written as an iPXE script, as a pxelinux file and as a GRUB file, and each of them has words and characters
with a meaning of their own: `${...}` and `||` in iPXE, quotes, `$`, `;` and backslashes in GRUB, the end of a line in all
three. A table's cell may have been written by anybody, so a word is taken only when it means itself everywhere: letters,
digits and `_ . , : = / + @ % [ ] ! * ? ^ ~ -`. Anything else is an error that names the word; it is not left out, because a
node that boots without a word that somebody wanted is a riddle.

Of xCAT's own conventions one holds: a word that begins with `R::` is for the installed system, not for the node's boot now, and
is left out.
"""

from __future__ import annotations

import re

from litho.errors import UsageError

MAX_CHARS = 1024
"""In all. Older kernels cut a command line at 2048 bytes, and ours are about 400."""
OURS = ("controller", "node", "task", "token", "rootimg", "agent", "discover")
"""`litho.` words that the controller itself writes."""
_WORD = re.compile(r"[A-Za-z0-9_.,:=/+@%\[\]!*?^~-]+", re.ASCII)


def parse(text: str, *, of: str) -> tuple[str, ...]:
    """The words of a cell or setting; `of` says where it stands. Raises UsageError for one that cannot be written everywhere."""
    found = tuple(word for word in text.split() if not word.startswith("R::"))
    for word in found:
        if not _WORD.fullmatch(word):
            raise UsageError(
                f"the kernel word {word[:80]!r} of {of} cannot be written into a boot file",
                hint="use letters, digits and _ . , : = / + @ % [ ] ! * ? ^ ~ -",
                code="bad-cmdline",
            )
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("litho.") and name.removeprefix("litho.") in OURS:
            raise UsageError(
                f"the kernel word {word[:80]!r} of {of} is one that the controller writes itself",
                hint="take it out",
                code="bad-cmdline",
            )
    if sum(len(word) + 1 for word in found) > MAX_CHARS:
        raise UsageError(f"the kernel words of {of} are longer than {MAX_CHARS} characters", code="bad-cmdline")
    return found
