"""The rules of booting: words that may stand on a kernel command line, MAC addresses, the plan of a boot, iPXE's scripts."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import UsageError
from litho_agent import mount
from litho_controller.boot import ipxe, macs, plan, words
from litho_controller.boot.plan import Facts
from litho_controller.tasks import orders

MAC = "52:54:00:12:34:56"
BASE = "http://10.0.0.1:3080"
OWN = ("litho.controller=http://10.0.0.1:3080", "litho.node=n01", "litho.task=t-000007", "litho.token=4mX")


def made(own=OWN, **facts):
    return plan.boot(
        Facts(node="n01", **facts), title="install image-x86-golden", url=BASE, common=("quiet", "panic=10"), own=own
    )


# ---------------------------------------------------------------- words


def test_words_that_mean_themselves_everywhere_are_taken():
    text = (
        "console=ttyS0,115200n8 pci=noaer,realloc=off memmap=1G!4G ip=::eth0:dhcp R::rhgb rd.lvm.lv=vg/root nomodeset"
    )
    assert words.parse(text, of="x") == tuple(word for word in text.split() if word != "R::rhgb")
    assert words.parse(" \n ", of="x") == ()


@pytest.mark.parametrize(
    "bad",
    [
        "a||b",
        "||",
        "${net0/mac}",
        "a;b",
        "#x",
        'dyndbg="file x"',
        "a'b",
        "a\\b",
        "`id`",
        "a&b",
        "ä",
        "a\0b",
        "<x",
        "{a}",
        "$(x)",
    ],
)
def test_a_word_that_means_something_to_a_boot_loader_is_refused_by_its_name(bad):
    with pytest.raises(UsageError, match=r"of bootparams\.addkcmdline of n01") as caught:
        words.parse(f"quiet {bad}", of="bootparams.addkcmdline of n01")
    assert caught.value.code == "bad-cmdline"


@pytest.mark.parametrize("bad", ["litho.token=x", "litho.task=t-1", "litho.rootimg=http://evil/x", "litho.node"])
def test_the_controllers_own_words_cannot_be_given_by_a_table(bad):
    with pytest.raises(UsageError, match="writes itself"):
        words.parse(bad, of="x")
    assert words.parse("litho.disk=sdb litho.debug", of="x") == ("litho.disk=sdb", "litho.debug")


def test_a_cell_that_would_not_fit_is_refused():
    with pytest.raises(UsageError, match="longer than"):
        words.parse("a " * words.MAX_CHARS, of="x")


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "text",
    [
        "52:54:00:12:34:56",
        "52-54-00-12-34-56",
        "01-52-54-00-12-34-56",
        "525400123456",
        " 52:54:00:12:34:56 ",
        "52:54:00:12:34:56".upper(),
    ],
)
def test_an_address_has_one_form(text):
    assert macs.normal(text) == MAC


@pytest.mark.parametrize(
    "text",
    ["", "n01", "52:54:00:12:34", "52:54:00:12:34:5g", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "../x", "\u0665" * 12],
)
def test_what_is_no_address_is_none(text):
    assert macs.normal(text) == ""


def test_a_cell_holds_several_addresses_with_names():
    cell = "52:54:00:00:00:01!n01|52-54-00-00-00-02!*NOIP*|rubbish|525400000001"
    assert macs.of_cell(cell) == ("52:54:00:00:00:01", "52:54:00:00:00:02")
    claimed = macs.owners({"n01": cell, "n02": "52:54:00:00:00:02", "n03": "52:54:00:00:00:03"})
    assert claimed["52:54:00:00:00:02"] == ("n01", "n02")
    with pytest.raises(UsageError, match="n01 and n02 have the same MAC address 52:54:00:00:00:02") as caught:
        macs.check("n01", cell, claimed)
    assert caught.value.code == "mac-double"
    assert macs.check("n03", "52:54:00:00:00:03", claimed) == ("52:54:00:00:00:03",)
    for cell, says in (("", "n04 has no MAC address"), ("x", "what mac.mac says of n04 is no MAC address")):
        with pytest.raises(UsageError, match=says) as caught:
            macs.check("n04", cell, claimed)
        assert caught.value.code == "mac-unknown"


# ---------------------------------------------------------------- the plan


def test_the_line_says_where_the_image_is_which_card_and_what_to_do():
    boot = made(serialport="0", serialspeed="57600", serialflow="hard")
    assert boot.files == f"{BASE}/boot/files"
    assert boot.line("52-54-00-12-34-56") == (
        f"litho.rootimg={BASE}/boot/files/rootimg.squashfs BOOTIF=01-52-54-00-12-34-56 console=tty0 console=ttyS0,57600n8r "
        f"quiet panic=10 {' '.join(OWN)}"
    )


@pytest.mark.parametrize(
    ("nic", "card"),
    [
        ({}, ""),
        ({"installnic": "mac", "primarynic": "eth7"}, ""),
        ({"installnic": "eth1"}, "netdev=eth1"),
        ({"primarynic": "enp3s0f1"}, "netdev=enp3s0f1"),
        ({"installnic": "0A:00:00:00:00:01"}, "BOOTIF=01-0a-00-00-00-00-01"),
    ],
)
def test_the_tables_name_the_card_or_the_boot_loader_does(nic, card):
    assert made(**nic).card == card


@pytest.mark.parametrize(
    "facts",
    [
        {"installnic": "eth0 init=/bin/sh"},
        {"primarynic": "${x}"},
        {"serialport": "0 x"},
        {"serialport": "0", "serialspeed": "fast"},
        {"xcatmaster": "a b"},
        {"xcatmaster": "h/../x"},
        {"xcatmaster": "h\nboot"},
    ],
)
def test_a_cell_that_is_not_what_it_should_be_is_an_error(facts):
    with pytest.raises(UsageError):
        made(**facts)


def test_a_node_may_know_the_controller_by_another_name():
    assert made(xcatmaster="mn-rack2").files == "http://mn-rack2:3080/boot/files"
    assert plan.for_host("https://c/x", "fd00::1") == "https://[fd00::1]/x"
    assert plan.for_host(BASE, " ") == BASE


# ---------------------------------------------------------------- iPXE


def test_an_armed_nodes_script():
    assert ipxe.armed(made(), mac=MAC, base=BASE, tell="n01 boots for t-000007: restore of golden").splitlines() == [
        "#!ipxe",
        "# install image-x86-golden",
        "echo lithograph: n01 boots for t-000007: restore of golden",
        f"kernel {BASE}/boot/files/vmlinuz initrd=initrd.img {made().line('52-54-00-12-34-56')} || goto failed",
        f"initrd --name initrd.img {BASE}/boot/files/initrd.img || goto failed",
        "boot || goto failed",
        ":failed",
        "echo lithograph: the root image cannot be fetched, trying again in 5 s",
        "sleep 5",
        ":ask",
        "imgfree",
        f"chain --replace {BASE}/boot/52-54-00-12-34-56.ipxe || sleep 5",
        "goto ask",
    ]


def test_the_first_script_goes_on_to_that_of_the_card():
    script = ipxe.first(BASE)
    assert script.startswith("#!ipxe\n")
    assert f"chain --replace {BASE}/boot/${{netX/mac:hexhyp}}.ipxe ||" in script
    assert script.endswith("\nexit 1\n")


def test_a_local_boot_gives_the_machine_back_or_starts_the_first_disk():
    assert ipxe.local(title="boot", tell="n01", sanboot=False) == "#!ipxe\n# boot\necho lithograph: n01\nexit 1\n"
    assert ipxe.local(title="boot", tell="n01", sanboot=True).splitlines()[-2:] == [
        "iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||",
        "exit 1",
    ]


def test_the_menu_ends_at_the_local_disk_when_nobody_chooses():
    script = ipxe.menu(made(own=("litho.discover",)), mac=MAC, base=BASE, sanboot=False)
    assert "choose --default local --timeout 10000 chosen || goto local\n" in script
    assert script.index(":local\nexit 1\n") < script.index(":discover\n") < script.index("litho.discover")


@given(st.text(max_size=60))
def test_free_text_never_becomes_a_command_or_a_line(text):
    for script in (
        ipxe.again(title=text, mac=MAC, base=BASE, tell=text),
        ipxe.local(title=text, tell=text, sanboot=False),
        ipxe.armed(made(), mac=MAC, base=BASE, tell=text),
    ):
        head = script.split("\n")
        assert head[0] == "#!ipxe"
        assert head[1].startswith("# ")
        assert head[2].startswith("echo lithograph: ")
        assert not re.search(r"[|&;#$`\\\"']", head[2])
        assert script.isascii()


@given(st.text(max_size=40), st.sampled_from(["addkcmdline", "installnic", "xcatmaster", "serialport", "serialspeed"]))
def test_no_cell_adds_a_line_or_a_command_to_a_script(text, column):
    facts = {"serialport": "0", column: text}
    try:
        own = (*OWN, *words.parse(facts.pop("addkcmdline", ""), of="x"))
        script = ipxe.armed(made(own=own, **facts), mac=MAC, base=BASE, tell="x")
    except UsageError:
        return
    lines = script.split("\n")
    assert len(lines) == len(ipxe.armed(made(), mac=MAC, base=BASE, tell="x").split("\n"))
    assert [line.split(" ")[0] for line in lines] == [
        line.split(" ")[0] for line in ipxe.armed(made(), mac=MAC, base=BASE, tell="x").split("\n")
    ]
    assert lines[3].count("||") == 1
    assert "$" not in script


def test_what_no_check_has_seen_cannot_be_written():
    with pytest.raises(ValueError, match="cannot be a line"):
        ipxe.armed(made(own=("a\nboot",)), mac=MAC, base=BASE, tell="x")


@pytest.mark.parametrize(
    ("server", "written"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("mgmt", "mgmt"),
        ("fd00::1", "[fd00::1]"),
        ("FD00:0::1", "[fd00::1]"),
        ("[fd00::1]", "[fd00::1]"),
    ],
)
def test_a_server_with_an_ipv6_address_stands_in_brackets(server, written):
    assert plan.bracketed(server) == written
    url = orders.library_url(Path("/srv/images"), {}, server)
    assert url == f"nfs://{written}/srv/images"
    # What the agent makes of it is what mount is given, and what the kernel's table says.
    export = mount.parse(url)
    assert mount.argv(export, 4, Path("/mnt"), read_only=True)[-2] == f"{written}:/srv/images"
    mount.require_mounted(export, Path("/mnt"), f"{written}:/srv/images /mnt nfs4 rw 0 0\n")
