"""The DHCP snippets of docs/reference/boot.md, as far as their servers are here to read them."""

import json
import re
from pathlib import Path

from litho import process

PAGE = (Path(__file__).parents[3] / "docs/reference/boot.md").read_text()


def snippet(name):
    """The indented block behind a line that is `name:`."""
    match = re.search(rf"^{re.escape(name)}:\n\n((?:    .*\n)+)", PAGE, re.MULTILINE)
    assert match, name
    return re.sub(r"(?m)^    ", "", match[1])


def test_dnsmasq_takes_its_snippet(tmp_path):
    (tmp_path / "dnsmasq.conf").write_text("port=0\ndhcp-range=10.0.0.100,10.0.0.200\n" + snippet("dnsmasq"))
    done = process.run(["dnsmasq", "--test", f"--conf-file={tmp_path}/dnsmasq.conf"])
    assert "syntax check OK" in done.err + done.out


def test_keas_snippet_is_part_of_its_configuration():
    classes = json.loads("{" + snippet("Kea") + "}")["client-classes"]
    assert [one["name"] for one in classes] == ["ipxe", "efi", "bios"]
    assert all(one["test"] and one["boot-file-name"] for one in classes)


def test_all_three_lead_to_the_same_places():
    for name in ("dnsmasq", "ISC dhcpd", "Kea"):
        text = snippet(name)
        assert set(re.findall(r"snponly\.efi|undionly\.kpxe", text)) == {"snponly.efi", "undionly.kpxe"}
        assert re.findall(r"http://[^\s\"]+", text) == ["http://10.0.0.1:3080/boot/ipxe"]
