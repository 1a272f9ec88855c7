"""Which names an image may have, and that every file name comes apart in one way only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import UsageError
from litho.library import names

GOOD = [
    "golden",
    "g",
    "7",
    "win10-22H2",
    "vmwarelinux-centos7base123-v1",
    "a.b",
    "a..b",
    "a+b_c",
    "golden.v",
    "golden.version2",
    "golden.v2x",
    "golden.img",
    "golden.json.old",
    "g" * 100,
]
BAD = [
    "",
    ".",
    "..",
    "../golden",
    "a/b",
    "/etc/passwd",
    "-golden",
    "-rf",
    "_x",
    ".hidden",
    "golden image",
    " golden",
    "golden\n",
    "golden\x00",
    "gol'den",
    'gol"den',
    "gol;den",
    "$(id)",
    "a*b",
    "a:b",
    "gölden",
    "\N{FULLWIDTH LATIN SMALL LETTER G}olden",
    "gol\N{ZERO WIDTH SPACE}den",
    "1\N{ARABIC-INDIC DIGIT ONE}",
    "golden.v2",
    "golden.v0",
    "golden.v2-x",
    "golden.v2.x",
    "a.json",
    "a.part",
    "a.capturedone",
    "a.capturefailed",
    "golden.",
    "g" * 101,
    "g" * 100_000,
]
names_st = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True).filter(names.is_name)
suffix_st = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True).filter(
    lambda text: not text.endswith((".part", ".json"))
)
version_st = st.integers(1, 999_999_999)


@pytest.mark.parametrize("text", GOOD)
def test_a_plain_name_is_taken(text: str) -> None:
    assert names.check_name(text) == text
    assert names.parse_ref(text + ":12") == names.ImageRef(text, 12)


@pytest.mark.parametrize("text", BAD)
def test_any_other_name_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        names.check_name(text)
    assert refused.value.code == "bad-image-name"
    assert "letters, digits" in refused.value.hint
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 800


@pytest.mark.parametrize(
    "text", ["golden:", "golden:0", "golden:-1", "golden:x", "golden:1:2", "golden:01", "golden:1\n", ":1"]
)
def test_a_reference_that_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        names.parse_ref(text)


def test_a_reference_names_the_current_version_or_a_number() -> None:
    assert names.parse_ref("golden") == names.ImageRef("golden", 0)
    assert names.parse_ref("golden:3") == names.parse_ref("golden:v3") == names.ImageRef("golden", 3)
    assert [str(names.parse_ref(text)) for text in ("golden", "golden:3")] == ["golden", "golden:3"]


@given(name=names_st, version=version_st, suffix=suffix_st, part=st.booleans())
def test_a_file_name_comes_apart_as_it_was_made(name: str, version: int, suffix: str, part: bool) -> None:
    ending = ".part" if part else ""
    assert names.parse_file(names.part_file(name, version, suffix) + ending) == names.FileName(
        name, version, suffix, part
    )
    assert names.parse_file(names.manifest_file(name, version) + ending) == names.FileName(name, version, "", part)
    assert names.parse_file(names.pointer_file(name)) is None


@given(one=names_st, other=names_st, version=version_st, suffix=suffix_st)
def test_no_two_images_share_a_file_name(one: str, other: str, version: int, suffix: str) -> None:
    if one != other:
        files = [
            {names.pointer_file(name), names.manifest_file(name, version), names.part_file(name, version, suffix)}
            for name in (one, other)
        ]
        assert files[0].isdisjoint(files[1])


@given(st.text(max_size=60))
def test_no_text_at_all_breaks_the_parser_and_what_it_takes_it_can_write(text: str) -> None:
    parsed = names.parse_file(text)
    if parsed is not None:
        base = (
            names.part_file(parsed.image, parsed.version, parsed.suffix)
            if parsed.suffix
            else names.manifest_file(parsed.image, parsed.version)
        )
        assert base + (".part" if parsed.part else "") == text


@pytest.mark.parametrize(
    "text",
    [
        "golden.v2.json.part.part",
        "golden.v02.json",
        "golden.v2-.json",
        "golden.v2-a/b",
        "golden.v2-a\n",
        "golden.v1234567890.json",
        ".golden.v2.json.0123456789ab.part",
        ".nfs000012",
        "golden.img.capturedone",
        "golden.v2-A",
    ],
)
def test_a_file_of_no_version_is_none(text: str) -> None:
    assert names.parse_file(text) is None


@pytest.mark.parametrize("suffix", ["", "../x", "a b", "-a", "a.part", "a.json", "a" * 101, "sda1\n", "ä"])
def test_a_suffix_that_would_confuse_the_library_is_refused(suffix: str) -> None:
    with pytest.raises(UsageError):
        names.part_file("golden", 1, suffix)
