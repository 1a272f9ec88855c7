"""The tree of errors: numbers as its drawing says, sentences with a way out, stable words."""

import re

from litho import errors
from litho.errors import LithoError


def tree(root: type[LithoError]) -> list[type[LithoError]]:
    return [root, *(found for child in root.__subclasses__() for found in tree(child))]


OWN = [kind for kind in tree(LithoError) if kind.__module__ == "litho.errors"]


def test_the_drawing_and_the_classes_say_the_same() -> None:
    drawn = dict(re.findall(r"([A-Z]\w+Error) +(\d+) ", errors.__doc__ or ""))
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in OWN}


def test_a_number_belongs_to_one_kind_and_those_that_inherit_it() -> None:
    owners: dict[int, set[str]] = {}
    for kind in OWN:
        if "exit_code" in vars(kind):
            owners.setdefault(kind.exit_code, set()).add(kind.__name__)
    assert all(len(kinds) == 1 for kinds in owners.values()), owners
    # 126 and above are the shell's, 0 is success.
    assert all(1 <= number < 126 for number in owners)


def test_every_kind_has_its_own_stable_word() -> None:
    words = [kind.default_code for kind in OWN]
    assert len(set(words)) == len(words)
    assert all(re.fullmatch(r"[a-z][a-z-]{2,40}", word) for word in words)


def test_an_error_is_a_sentence_with_its_way_out() -> None:
    error = errors.DiskError("there is no disk sda", hint="look at the cable", code="disk-missing")
    assert str(error) == "there is no disk sda: look at the cable"
    assert (error.message, error.hint, error.code) == ("there is no disk sda", "look at the cable", "disk-missing")
    assert str(errors.DiskError("there is no disk sda")) == "there is no disk sda"
    assert errors.DiskError("x").code == "disk"


def test_the_word_reaches_over_the_wire() -> None:
    from litho import messages

    for kind in OWN:
        failed = messages.Failed(code=kind.default_code, reason=str(kind("it broke", hint="mend it")))
        report = messages.EventReport(node="n", session="s", task="t", seq=2, body=failed)
        assert messages.decode(messages.encode(report), messages.EventReport) == report
