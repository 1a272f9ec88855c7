"""Small rules of the build: what of apt's configuration holds, what a shadow line keeps, what ldd misses, how the list looks."""

import json
from pathlib import Path

import pytest

from litho.errors import ConfigError, EngineError
from litho_rootimg import base, build, sbom, tree


def test_proxies_and_checks_of_this_machine_hold_for_the_image():
    dump = """\
Acquire "";
Acquire::http::Proxy "http://cache:3128";
Acquire::Check-Valid-Until "false";
Acquire::Languages:: "de";
Acquire::IndexTargets::deb::Packages::MetaKey "x";
APT::Sandbox::User "_apt";
Acquire::https::Proxy "";
"""
    assert base.apt_options(dump) == [
        'Acquire::http::Proxy "http://cache:3128";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Languages:: "de";',
    ]


def test_a_password_line_forgets_the_day_it_was_made():
    assert tree.undated("daemon:*:20414:0:99999:7:::") == "daemon:*::0:99999:7:::"


def test_libraries_that_ldd_misses_are_named():
    assert tree.missing_libraries(
        "\tlinux-vdso.so.1 (0x00007)\n\tlibparted.so.2 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x7)\n"
    ) == ["libparted.so.2"]


def test_something_that_is_no_program_is_refused(tmp_path: Path):
    script = tmp_path / "partimage-ng"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match="is no program"):
        tree.add_program(tmp_path, script)


def test_our_own_scripts_become_executable_whatever_the_checkout_says(tmp_path: Path):
    source = tmp_path / "source"
    (source / "usr").mkdir(parents=True)
    (source / "usr/script").write_text("#!/bin/sh\n")
    (source / "usr/data").write_text("data\n")
    tree.overlay(source, tmp_path / "root")
    assert (tmp_path / "root/usr/script").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "root/usr/data").stat().st_mode & 0o777 == 0o644


FACTS = base.Facts(
    epoch=1, kernel="6.1.0-1-amd64", python="3.11", packages=(base.Package("libfoo", "1:2.3+b1", "amd64"),)
)


def test_the_list_names_every_package_and_library_and_no_date():
    document = json.loads(sbom.document(FACTS, ["msgspec 0.22.0"]))
    assert [component["purl"] for component in document["components"]] == [
        "pkg:deb/debian/libfoo@1%3A2.3%2Bb1?arch=amd64",
        "pkg:pypi/msgspec@0.22.0",
    ]
    assert sbom.document(FACTS, ["msgspec 0.22.0"]) == sbom.document(FACTS, ["msgspec 0.22.0"])
    assert "timestamp" not in document["metadata"]


def test_facts_that_cannot_be_read_say_how_to_go_on(tmp_path: Path):
    (tmp_path / "facts.json").write_text("{}")
    with pytest.raises(EngineError, match="--fresh"):
        base.Base(tmp_path).facts()


def test_a_result_that_failed_half_way_does_not_replace_the_old_one(tmp_path: Path):
    result = tmp_path / "rootimg"
    result.write_text("old")
    with pytest.raises(RuntimeError), build.published(result) as new:
        new.write_text("half")
        raise RuntimeError
    assert result.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["rootimg"]
