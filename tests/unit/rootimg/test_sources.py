"""Which apt sources are Debian's own."""

import pytest

from litho.errors import ConfigError
from litho_rootimg import sources

DEB822 = """\
Types: deb deb-src
# a snapshot would stand here
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main

Types: deb
URIs: https://deb.example.com/node_20.x
Suites: nodistro
Components: main
Signed-By: /usr/share/keyrings/node.gpg
"""


def test_only_switched_on_entries_with_binary_packages_are_read():
    assert [entry.suites for entry in sources.parse_deb822(DEB822)] == [("bookworm", "bookworm-updates"), ("nodistro",)]


def test_entries_of_others_do_not_reach_the_root_image():
    chosen = sources.choose(sources.parse_deb822(DEB822))
    assert "mirror.example" in chosen
    assert "node_20" not in chosen


def test_a_chosen_entry_reads_back_as_it_was():
    [entry] = sources.parse_deb822(sources.choose(sources.parse_deb822(DEB822)))
    assert entry.signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert entry.components == ("main",)


def test_one_line_entries_keep_their_options():
    [entry] = sources.parse_list(
        "# comment\n"
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=amd64] http://m/x bookworm main contrib # note\n"
        "deb-src http://m/debian bookworm main\n"
    )
    assert entry.uris == ("http://m/x",)
    assert entry.components == ("main", "contrib")
    assert sources.is_debian(entry)
    assert "Architectures: amd64" in entry.deb822()


@pytest.mark.parametrize(
    ("uri", "own"),
    [
        ("http://deb.example/debian", True),
        ("http://deb.example/debian-security/", True),
        ("http://snap.example/archive/debian/20250520T000000Z/", True),
        ("http://deb.example/debian-multimedia", False),
        ("http://deb.example/ubuntu", False),
        ("http://deb.example/debian/pool", False),
    ],
)
def test_without_a_key_the_address_decides(uri: str, own: bool):
    [entry] = sources.parse_list(f"deb {uri} bookworm main")
    assert sources.is_debian(entry) is own


def test_a_foreign_key_outweighs_a_fitting_address():
    [entry] = sources.parse_list("deb [signed-by=/etc/apt/keyrings/other.gpg] http://other.example/debian stable main")
    assert not sources.is_debian(entry)


def test_the_firmware_component_is_added_once():
    text = sources.choose(
        sources.parse_list("deb http://m/debian bookworm main non-free-firmware"), component="non-free-firmware"
    )
    assert text.count("non-free-firmware") == 1
    text = sources.choose(sources.parse_list("deb http://m/debian bookworm main"), component="non-free-firmware")
    assert "Components: main non-free-firmware" in text


def test_a_machine_without_debian_is_told_so():
    with pytest.raises(ConfigError, match="no apt source of Debian"):
        sources.choose(sources.parse_list("deb http://m/ubuntu noble main"))
