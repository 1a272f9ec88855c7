"""The pages of the reference are held against the program."""

import re
from pathlib import Path

from litho import errors
from litho_controller.cli import reference

PAGES = Path(__file__).parents[3] / "docs/reference"


def test_the_page_of_commands_is_what_the_commands_say_of_themselves():
    again = "write it anew with: python -m litho_controller.cli.reference > docs/reference/cli.md"
    assert (PAGES / "cli.md").read_text() == reference.page(), again


def test_the_page_of_exit_codes_lists_every_error_with_its_code_and_word():
    rows = set(re.findall(r"^\| (\d+) \| `([a-z-]+)` \|", (PAGES / "exit-codes.md").read_text(), flags=re.MULTILINE))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LithoError)]
    assert rows == {(str(kind.exit_code), kind.default_code) for kind in kinds}
