"""nodeset osimage=NAME for xCAT's own methods: which files and words that means, what is refused, what is given out over HTTP."""

import os
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from litho.errors import LithoError, NotFoundError, RefusedError, UsageError
from litho_controller.boot import autoinst, netboot, plan
from litho_controller.boot.autoinst import Answers
from litho_controller.boot.netboot import OsImage
from litho_controller.boot.plan import Facts
from litho_controller.boot.tftp import TftpFiles
from litho_controller.bundle.site import Site
from litho_controller.power.command import NoPower
from litho_controller.tables import nodes, rows
from litho_controller.tasks import osboot
from litho_controller.tasks.booting import Booting, Policy
from litho_controller.tasks.osboot import Known
from litho_controller.tasks.turning import Turning
from litho_controller.web import osfiles
from litho_controller.web.app import admin_app, telling
from litho_controller.web.desk import Desk
from litho_controller.web.osfiles import OsFiles
from support.desk import STOPPED, lab, publish

MAC = "52:54:00:00:00:01"
OS = {"profile": "foo", "osvers": "rhels5.4", "osarch": "x86_64"}
NETBOOT = {
    "kernel": b"a kernel",
    "initrd-stateless.gz": b"an initrd",
    "rootimg.gz": bytes(range(256)) * 40,
}


def image(method: str = "netboot", **changes: str) -> OsImage:
    """An osimage that is all there."""
    home = "/data/rhels5.4/x86_64" if method == "install" else "/data/netboot/rhels5.4/x86_64/foo"
    files = {
        "netboot": {"kernel": "kernel", "initrd": "initrd-stateless.gz", "rootimg": "rootimg.tar.xz"},
        "statelite": {"kernel": "kernel", "initrd": "initrd-statelite.gz"},
        "install": {"kernel": "images/pxeboot/vmlinuz", "initrd": "images/pxeboot/initrd.img"},
    }[method]
    fields = {"name": "Foo", "method": method, "os": "rhels5.4", "arch": "x86_64", "profile": "foo", "home": home}
    return OsImage(**{**fields, "path": home.replace("/data", "/install"), **files, **changes})


def words(made: OsImage, keys: dict[str, str] | None = None, **facts: str) -> list[str]:
    return list(netboot.boot(made, Facts(node="n01", **facts), url="http://mn:3080", keys=keys or {}).words)


# ---------------------------------------------------------------- words

COMMON = ["XCAT=mn:3001", "NODE=n01", "FC=0", "XCATHTTPPORT=3080"]


def test_a_netboot_line_is_xcats():
    made = netboot.boot(image(), Facts(node="n01"), url="http://mn:3080", keys={})
    assert made.words == (
        "imgurl=http://mn:3080/install/netboot/rhels5.4/x86_64/foo/rootimg.tar.xz",
        *COMMON,
    )
    assert (made.files, made.kernel, made.initrd) == (
        "http://mn:3080/install/netboot/rhels5.4/x86_64/foo",
        "kernel",
        "initrd-stateless.gz",
    )
    assert made.title == "netboot rhels5.4-x86_64-foo"


def test_what_the_tables_say_stands_in_the_line_and_the_administrators_words_are_last():
    said = words(
        image(addkcmdline="rd.debug R::quiet"),
        {"useflowcontrol": "yes", "xcatdport": "4001"},
        addkcmdline="nomodeset",
        serialport="0",
        xcatmaster="mn-rack2",
    )
    assert said == [
        "imgurl=http://mn-rack2:3080/install/netboot/rhels5.4/x86_64/foo/rootimg.tar.xz",
        *("XCAT=mn-rack2:4001", "NODE=n01", "FC=1", "XCATHTTPPORT=3080"),
        *("console=tty0", "console=ttyS0,115200", "rd.debug", "nomodeset"),
    ]
    assert netboot.boot(image(), Facts(node="n01", installnic="eth1"), url="http://mn", keys={}).card == "netdev=eth1"


@pytest.mark.parametrize(
    ("os", "facts", "first"),
    [
        ("rhels5.4", {}, "NFSROOT=mn:/data/netboot/rhels5.4/x86_64/foo"),
        ("rhels8.6.0", {}, "root=nfs:mn:/data/netboot/rhels5.4/x86_64/foo/rootimg:ro"),
        ("centos6.2", {"nfsserver": "nfs1"}, "root=nfs:nfs1:/data/netboot/rhels5.4/x86_64/foo/rootimg:ro"),
        ("centos6.2", {"nfsserver": "<xcatmaster>"}, "root=nfs:mn:/data/netboot/rhels5.4/x86_64/foo/rootimg:ro"),
        ("fedora11", {"nfsdir": "/vol"}, "NFSROOT=mn:/vol/netboot/fedora11/x86_64/foo"),
        ("sles15.3", {"nfsdir": "//vol/x"}, "root=nfs:mn:/vol/x/rootimg:ro"),
    ],
)
def test_a_statelite_node_mounts_its_tree(os, facts, first):
    assert words(image("statelite", os=os), **facts) == [first, "STATEMNT=", *COMMON]


def test_a_statelite_image_in_memory_is_fetched_and_mount_options_are_passed():
    made = image("statelite", rootimg="rootimg-statelite.gz", rootfstype="ramdisk", nfsrootopts="rsize=8192,nolock")
    assert words(made) == [
        "imgurl=http://mn:3080/install/netboot/rhels5.4/x86_64/foo/rootimg-statelite.gz",
        *("STATEMNT=", *COMMON, "MNTOPTS=rsize=8192,nolock"),
    ]


@pytest.mark.parametrize(
    ("os", "kernel", "said"),
    [
        ("rhels5.4", "images/pxeboot/vmlinuz", ["repo={repo}", "ks={answers}", "quiet"]),
        ("rhels9.2", "images/pxeboot/vmlinuz", ["inst.repo={repo}", "inst.ks={answers}", "quiet"]),
        ("rocky8.6", "images/pxeboot/vmlinuz", ["inst.repo={repo}", "inst.ks={answers}", "quiet"]),
        (
            "sles12.3",
            "1/boot/x86_64/loader/linux",
            ["autoyast={answers}", "install={repo}/1", "netsetup=dhcp,all"],
        ),
        (
            "ubuntu18.04",
            "install/netboot/ubuntu-installer/amd64/linux",
            ["url={answers}", "auto=true", "priority=critical", "hostname=n01"],
        ),
    ],
)
def test_an_installer_is_told_where_its_media_and_its_answers_are(os, kernel, said):
    where = {"repo": "http://mn:3080/install/rhels5.4/x86_64", "answers": "http://mn:3080/install/autoinst/n01"}
    assert words(image("install", os=os, kernel=kernel)) == [one.format(**where) for one in said]


@pytest.mark.parametrize(
    ("made", "facts"),
    [
        (image(addkcmdline="a||b"), {}),
        (image("statelite", nfsrootopts="a;b"), {}),
        (image("statelite"), {"nfsserver": "x y;z"}),
        (image("statelite"), {"nfsdir": "/a`id`"}),
        (image(), {"xcatmaster": "x/y"}),
    ],
)
def test_a_cell_that_cannot_stand_on_the_line_is_refused(made, facts):
    with pytest.raises(UsageError):
        words(made, **facts)


# ---------------------------------------------------------------- files


@pytest.fixture
def site(tmp_path: Path) -> Site:
    install = tmp_path / "data"
    install.mkdir()
    return Site(install=str(install), roots=(str(install),))


def put(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def profile(site: Site, **files: bytes) -> Path:
    return put(Path(site.netboot("rhels5.4", "x86_64", "foo")), **(files or NETBOOT))


def test_the_files_of_a_netboot_image_are_found_in_xcats_order(site: Site) -> None:
    home = profile(site)
    (home / "rootimg.cpio.gz").touch()
    found = netboot.locate("Foo", {**OS, "provmethod": "netboot"}, {}, site)
    assert (found.home, found.path) == (str(home), "/install/netboot/rhels5.4/x86_64/foo")
    assert found.files == ("kernel", "initrd-stateless.gz", "rootimg.cpio.gz")
    other = put(Path(site.install) / "mine", **NETBOOT)
    named = netboot.locate("Foo", {**OS, "provmethod": "netboot"}, {"rootimgdir": f"{other}/"}, site)
    assert (named.home, named.path) == (str(other), "/install/mine")


@pytest.mark.parametrize(
    ("osimage", "linuximage", "error", "what"),
    [
        ({"osvers": ""}, {}, RefusedError, r"osimage\.osvers is empty"),
        ({"profile": "../x"}, {}, RefusedError, r"osimage\.profile is '\.\./x'"),
        ({}, {"rootimgdir": "/etc"}, RefusedError, "in /etc, and nodes fetch from below"),
        ({}, {"rootimgdir": "{install}/../etc"}, RefusedError, "nodes fetch from below"),
        ({}, {"rootimgdir": "{install}/gone"}, NotFoundError, "directory .*/gone is not there"),
        ({}, {"rootimgdir": "{install}/empty"}, NotFoundError, "no kernel in .*/empty"),
        ({}, {"rootimgdir": "{install}/half"}, NotFoundError, "no packed root image in .*/half"),
        ({"provmethod": "statelite"}, {"rootimgdir": "{install}/half"}, NotFoundError, "no initrd in .*/half"),
        ({"provmethod": "statelite"}, {"rootimgdir": "{install}/lite"}, NotFoundError, "no tree .*/lite/rootimg"),
        (
            {"provmethod": "statelite", "rootfstype": "ramdisk"},
            {"rootimgdir": "{install}/lite"},
            NotFoundError,
            "no packed root image",
        ),
        ({"provmethod": "install"}, {}, RefusedError, "media of rhels5.4 x86_64, and they are not in .*run copycds"),
        ({"provmethod": "install", "osvers": "odd1"}, {}, NotFoundError, "no installer's kernel and initrd"),
        ({"provmethod": "install", "osvers": "rhels6"}, {"template": "/none"}, NotFoundError, "template /none is no"),
    ],
)
def test_what_is_missing_is_named(site: Site, osimage, linuximage, error, what) -> None:
    top = Path(site.install)
    (top / "empty").mkdir()
    put(top / "half", **{name: b"" for name in NETBOOT if "rootimg" not in name})
    put(top / "lite", **{"kernel": b"", "initrd-statelite.gz": b""})
    put(top / "odd1/x86_64", README=b"")
    put(top / "rhels6/x86_64", **{"images/pxeboot/vmlinuz": b"", "images/pxeboot/initrd.img": b""})
    linuximage = {column: value.format(install=site.install) for column, value in linuximage.items()}
    with pytest.raises(error, match=what) as caught:
        netboot.locate("Foo", {**OS, "provmethod": "netboot", **osimage}, linuximage, site)
    assert isinstance(caught.value, LithoError) and caught.value.hint


@pytest.mark.parametrize("name", ["../../boot", "a/b", "..", "two words", "a\nb"])
def test_an_image_whose_name_is_no_level_of_a_path_is_not_booted(site: Site, name: str) -> None:
    profile(site)
    with pytest.raises(RefusedError, match="no name of an image"):
        netboot.locate(name, {**OS, "provmethod": "netboot"}, {}, site)


def test_which_rows_are_booted_by_the_node_itself():
    template = {"template": "/install/custom/x/foo.tmpl"}
    assert netboot.method_of({"provmethod": "netboot"}, {}, captured=False) == "netboot"
    assert netboot.method_of({"provmethod": "statelite"}, {}, captured=True) == "statelite"
    assert netboot.method_of({"provmethod": "install"}, template, captured=False) == "install"
    assert netboot.method_of({"provmethod": "install"}, template, captured=True) == ""
    assert netboot.method_of({"provmethod": "install"}, {}, captured=False) == ""
    assert netboot.method_of({"provmethod": "image"}, template, captured=False) == ""
    assert netboot.method_of({}, {}, captured=False) == ""


# ---------------------------------------------------------------- what is given out


def served(site: Site, path: str, **more: tuple[dict[str, str], dict[str, str]]) -> str:
    known = Known(site=site, keys={}, rows={"Foo": ({**OS, "provmethod": "netboot"}, {}), **more})
    try:
        return osfiles.find(known, path).read_bytes().decode()
    except NotFoundError:
        return "none"


def test_only_what_an_osimage_names_is_given_out(site: Site) -> None:
    home = profile(site, **{**NETBOOT, "notes": b"private", "rootimg/etc/shadow": b"root:x", "rootimg.gz": b"packed"})
    base = "netboot/rhels5.4/x86_64/foo"
    assert served(site, f"{base}/kernel") == "a kernel"
    assert served(site, f"{base}/rootimg.gz") == "packed"
    for name in ("notes", "rootimg/etc/shadow", "rootimg", "initrd.gz", ""):
        assert served(site, f"{base}/{name}") == "none"
    put(Path(site.install), **{"secret": b"no", "netboot/rhels5.4/x86_64/other/kernel": b"no"})
    assert served(site, "secret") == served(site, "netboot/rhels5.4/x86_64/other/kernel") == "none"
    (home / "kernel").unlink()
    (home / "kernel").symlink_to("/etc/hostname")
    assert served(site, f"{base}/kernel") == "none"


@pytest.mark.parametrize("os", ["netboot", "custom", "image"])
def test_an_image_that_takes_other_images_files_for_its_media_opens_nothing(site: Site, os: str) -> None:
    """A bundle may place the two files by which media are known, and name its system as it likes."""
    media = {
        "images/pxeboot/vmlinuz": b"k",
        "images/pxeboot/initrd.img": b"i",
        "x86_64/foo/rootimg/etc/shadow": b"root:x",
    }
    put(Path(site.install) / os / "rhels5.4", **media)
    template = put(Path(site.install), **{"foo.tmpl": b"t"}) / "foo.tmpl"
    evil = ({"provmethod": "install", "osvers": os, "osarch": "rhels5.4", "profile": "x"}, {"template": str(template)})
    with pytest.raises(RefusedError, match="holds no media"):
        netboot.locate("Evil", *evil, site)
    for path in media:
        assert served(site, f"{os}/rhels5.4/{path}", Evil=evil) == "none"


def test_of_media_all_files_are_given_out_that_lie_in_them(site: Site) -> None:
    media = put(
        Path(site.install) / "rhels6/x86_64",
        **{"images/pxeboot/vmlinuz": b"k", "images/pxeboot/initrd.img": b"i", "Packages/a.rpm": b"rpm"},
    )
    template = put(Path(site.install), **{"foo.tmpl": b"t"}) / "foo.tmpl"
    (media / "out").symlink_to("/etc")
    row = ({**OS, "osvers": "rhels6", "provmethod": "install"}, {"template": str(template)})
    assert served(site, "rhels6/x86_64/Packages/a.rpm", Bar=row) == "rpm"
    assert served(site, "rhels6/x86_64/images/pxeboot/vmlinuz", Bar=row) == "k"
    for path in ("rhels6/x86_64/out/hostname", "rhels6/x86_64/Packages", "foo.tmpl", "rhels6/x86_64"):
        assert served(site, path, Bar=row) == "none"
    assert served(site, "rhels6/x86_64/Packages/a.rpm") == "none"


# ---------------------------------------------------------------- templates


def rendered(text: str, files: dict[str, str] | None = None) -> str:
    def cell(table: str, key: str, column: str) -> str | None:
        return {("site", "timezone", "value"): "Europe/Berlin", ("nodetype", "n01", "os"): "rhels5.4"}.get(
            (table, key, column)
        )

    made = Answers(
        node="n01",
        media="http://mn/install/rhels5.4/x86_64",
        variables={"XCATMASTER": "mn"},
        cell=cell,
        include=lambda path: (files or {})[path],
    )
    return autoinst.render(text, "/install/custom/foo.tmpl", made)


def test_a_templates_words_are_replaced_and_its_comments_are_not():
    text = (
        "#HOSTNAME# #XCATVAR:XCATMASTER# url --url #INSTALL_SOURCES#\n#TABLE:site:key=timezone:value#\n# a # comment\n"
    )
    assert rendered(text + "#TABLE:nodetype:THISNODE:os#|#TABLEBLANKOKAY:nodetype:$NODE:arch#|\n#WHATEVER#\n") == (
        "n01 mn url --url http://mn/install/rhels5.4/x86_64\nEurope/Berlin\n# a # comment\nrhels5.4||\n#WHATEVER#\n"
    )
    files = {"/install/scripts/post": "hello #NODE#\n#INCLUDE:more#", "/install/scripts/more": "end"}
    assert rendered("#INCLUDE:../scripts/post#\n", files) == "hello n01\nend\n"


@pytest.mark.parametrize(
    "text",
    [
        "#COMMAND:id#",
        "#CRYPT:passwd:key=system,username=root:password#",
        "#XCATVAR:NOTHING#",
        "#TABLE:ipmi:THISNODE:password#",
        "#TABLE:nodetype:THISNODE:arch#",
        "#TABLE:site#",
        "#INCLUDE_DEFAULT_PKGLIST#",
        "#INCLUDE:loop#",
    ],
)
def test_a_word_that_is_not_filled_in_is_refused_by_its_name(text):
    with pytest.raises(RefusedError) as caught:
        rendered(text, {"/install/custom/loop": "#INCLUDE:loop#"})
    assert text.split(":")[0] in caught.value.message and caught.value.code == "bad-template"


def test_many_files_that_include_each_other_do_not_grow_without_end():
    with pytest.raises(RefusedError, match="longer than"):
        rendered("#INCLUDE:a#", {"/install/custom/a": "x" * (autoinst.MAX_BYTES + 1)})


# ---------------------------------------------------------------- nodeset, and what the node is answered


@pytest.fixture
async def desk(tmp_path: Path, site: Site):
    async with lab(tmp_path) as made:
        async with made.store.write() as conn:
            await nodes.define(conn, ["n01"], mac=MAC)
            await nodes.define(conn, ["n02"], mac="52:54:00:00:00:02")
            await rows.put(conn, "site", "installdir", {"value": site.install})
            await rows.put(conn, "osimage", "Foo", {**OS, "provmethod": "netboot"})
            await rows.put(conn, "linuximage", "Foo", {"addkcmdline": "rd.debug"})
        yield made


@pytest.fixture
async def admin(desk, aiohttp_client):
    return await aiohttp_client(admin_app(Desk(store=desk.store, tasks=desk.tasks, requests=desk.requests)))


async def nodeset(admin, range_: str, state: str, image: str = "", **more: object):
    answer = await admin.post("/v1/nodeset", json={"range": range_, "state": state, "image": image, **more})
    body = await answer.json()
    return [(one["text"], one["error"]) for one in body["nodes"]] if answer.status == 200 else body["message"]


async def test_a_node_boots_the_osimage_every_time_until_it_is_set_to_something_else(desk, admin, site) -> None:
    home = profile(site)
    booting = Booting(desk.tasks, Policy(kcmdline="panic=10"))
    assert await nodeset(admin, "n01", "osimage", "Foo") == [("netboot rhels5.4-x86_64-foo", "")]
    for _ in range(2):
        script = await booting.script(MAC, peer="10.0.0.9")
        assert script.splitlines()[:5] == [
            "#!ipxe",
            "# netboot rhels5.4-x86_64-foo",
            "echo lithograph: n01 boots Foo: netboot rhels5.4-x86_64-foo",
            "kernel http://c:3080/install/netboot/rhels5.4/x86_64/foo/kernel initrd=initrd-stateless.gz "
            "imgurl=http://c:3080/install/netboot/rhels5.4/x86_64/foo/rootimg.gz BOOTIF=01-52-54-00-00-00-01 "
            "XCAT=c:3001 NODE=n01 FC=0 XCATHTTPPORT=3080 rd.debug || goto failed",
            "initrd --name initrd-stateless.gz http://c:3080/install/netboot/rhels5.4/x86_64/foo/initrd-stateless.gz "
            "|| goto failed",
        ]
    (row,) = [one for one in await desk.table("nodetype") if one["node"] == "n01"]
    assert row == {"node": "n01", "os": "rhels5.4", "arch": "x86_64", "profile": "foo", "provmethod": "Foo"}
    assert {"node": "n01", "currstate": "netboot rhels5.4-x86_64-foo"} in await desk.table("chain")
    assert await status(desk) == "netbooting"
    assert "n02 boots its own disk" in await booting.script("52:54:00:00:00:02", peer="x")
    # Files that are gone do not send a node to a disk that it may not have.
    (home / "kernel").unlink()
    script = await booting.script(MAC, peer="10.0.0.9")
    assert "no kernel in" in script and "sleep 30" in script and "chain --replace" in script
    assert await nodeset(admin, "n01", "boot") == [("boot", "")]
    assert "n01 boots its own disk" in await booting.script(MAC, peer="x")


async def test_nodeset_says_what_is_wrong_before_it_changes_anything(desk, admin, site) -> None:
    assert "no node can boot the osimage Foo: its directory" in await nodeset(admin, "n01", "osimage", "Foo")
    profile(site)
    assert "has no versions" in await nodeset(admin, "n01", "osimage", "Foo:2")
    assert "without a task" in await nodeset(admin, "n01", "osimage", "Foo", job={"disk": "sda"})
    assert "no osimage of that name" in await nodeset(admin, "n01", "osimage", "Nobody")
    async with desk.store.write() as conn:
        await rows.put(conn, "bootparams", "n02", {"addkcmdline": "a||b"})
    lines = await nodeset(admin, "n01,n02", "osimage", "Foo")
    assert lines[0] == ("netboot rhels5.4-x86_64-foo", "") and "a||b" in lines[1][1]
    assert await desk.boot_state("n02") == "boot"
    async with desk.store.write() as conn:
        await rows.put(conn, "osimage", "Foo", {"provmethod": "sysclone"})
    assert "provmethod 'sysclone'" in await nodeset(admin, "n01", "osimage", "Foo")


async def test_a_node_with_a_task_is_left_alone_until_somebody_asks_the_task_to_stop(desk, admin, site) -> None:
    profile(site)
    (task,) = await desk.capture("n01")
    node = await desk.agent(task)
    assert "n01 has a task already" in (await nodeset(admin, "n01", "osimage", "Foo"))[0][1]
    await desk.requests.cancel(int(task[2:]))
    assert await nodeset(admin, "n01", "osimage", "Foo") == [("netboot rhels5.4-x86_64-foo", "")]
    assert (await desk.row(task)).state.value == "lost"
    # What the agent says afterwards does not turn the node to its disk.
    await node.say(STOPPED)
    assert await desk.boot_state("n01") == "netboot rhels5.4-x86_64-foo"


async def test_a_task_takes_over_a_node_that_boots_an_osimage_and_an_image_of_the_library_wins_its_name(
    desk, admin, site
) -> None:
    profile(site)
    await nodeset(admin, "n01", "osimage", "Foo")
    publish(desk.library, "golden")
    assert await nodeset(admin, "n01", "osimage", "golden") == [("install image-x86_64-golden", "")]
    booting = Booting(desk.tasks, Policy())
    assert "n01 waits: t-000001" in await booting.script(MAC, peer="x")
    await desk.requests.cancel(1)
    assert "n01 boots its own disk" in await booting.script(MAC, peer="x")


async def test_an_osimage_that_changed_its_name_or_method_is_not_booted_by_mistake(desk, admin, site) -> None:
    profile(site)
    await nodeset(admin, "n01", "osimage", "Foo")
    booting = Booting(desk.tasks, Policy())
    async with desk.store.write() as conn:
        await rows.put(conn, "osimage", "Foo", {"osvers": "rhels6"})
        await rows.put(conn, "linuximage", "Foo", {"rootimgdir": str(profile(site))})
    assert "is netboot rhels6-x86_64-foo by now" in await booting.script(MAC, peer="x")
    async with desk.store.write() as conn:
        await rows.remove(conn, "osimage", ["Foo"])
    assert "there is no osimage .Foo." in await booting.script(MAC, peer="x")


@pytest.mark.parametrize(("netboot_", "path"), [("xnba", "xcat/xnba/nodes/n01"), ("pxe", ""), ("grub2", "")])
async def test_boot_files_follow(desk, admin, site, tmp_path, netboot_: str, path: str) -> None:
    home = profile(site)
    tftp = tmp_path / "tftp"
    hand = Turning(desk.tasks, power=NoPower(), on_arm=None, files=TftpFiles(tftp))
    async with desk.store.write() as conn:
        await rows.put(conn, "noderes", "n01", {"netboot": netboot_})
    await nodeset(admin, "n01", "osimage", "Foo")
    assert desk.tasks.to_turn == {"n01"} and desk.tasks.turned.is_set()
    await hand.turn(["n01"])
    path = path or f"{'pxelinux.cfg/' if netboot_ == 'pxe' else 'boot/grub2/grub.cfg-'}01-52-54-00-00-00-01"
    text = (tftp / path).read_text()
    assert "#netboot rhels5.4-x86_64-foo\n" in text
    assert "imgurl=http://c:3080/install/netboot/rhels5.4/x86_64/foo/rootimg.gz" in text
    if netboot_ == "xnba":
        assert "imgfetch -n kernel http://c:3080/install/netboot/rhels5.4/x86_64/foo/kernel\n" in text
    else:
        assert "xcat/osimage/Foo/kernel" in text and "xcat/osimage/Foo/initrd-stateless.gz" in text
        shared = tftp / "xcat/osimage/Foo"
        assert (shared / "kernel").read_bytes() == b"a kernel"
        before = (shared / "kernel").stat()
        (home / "initrd-stateless.gz").write_bytes(b"a newer initrd")
        await hand.turn(["n01"])
        assert (shared / "kernel").stat() == before
        assert (shared / "initrd-stateless.gz").read_bytes() == b"a newer initrd"
        assert sorted(os.listdir(shared)) == ["initrd-stateless.gz", "kernel"]  # noqa: PTH208 - hidden files count too
    desk.tasks.to_turn.clear()
    await nodeset(admin, "n01", "boot")
    assert desk.tasks.to_turn == {"n01"}
    await hand.turn(["n01"])
    assert "imgurl" not in (tftp / path).read_text()


async def test_files_come_whole_or_in_ranges_and_nothing_else_comes(desk, site, aiohttp_client) -> None:
    profile(site)
    app = web.Application(middlewares=[telling])
    OsFiles(desk.tasks).add_to(app)
    door = await aiohttp_client(app)
    url = "/install/netboot/rhels5.4/x86_64/foo/rootimg.gz"
    whole = await door.get(url)
    assert (whole.status, await whole.read()) == (200, NETBOOT["rootimg.gz"])
    part = await door.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status, await part.read()) == (206, NETBOOT["rootimg.gz"][100:200])
    assert (await door.get(url, headers={"If-None-Match": whole.headers["ETag"]})).status == 304
    assert (await door.post(url)).status == 405
    for bad, status in (
        ("/install/netboot/rhels5.4/x86_64/foo/initrd.img", 404),
        ("/install/netboot/rhels5.4/x86_64/foo/%2e%2e/foo/kernel", 400),
        ("/install/.litho-import/x", 400),
        ("/install/netboot//rhels5.4", 400),
        ("/install/" + "a/" * 600 + "a", 400),
    ):
        assert (await door.get(URL(bad, encoded=True))).status == status, bad


async def test_a_node_is_installed_once_copycds_was_run_and_says_when_it_is_done(
    desk, admin, site, tmp_path, aiohttp_client
) -> None:
    top = Path(site.install)
    template = (
        put(top / "custom/rhels5.4/x86_64", **{"foo.tmpl": b"network --hostname #NODE#\n#INCLUDE:post#\n"}) / "foo.tmpl"
    )
    async with desk.store.write() as conn:
        await rows.put(conn, "osimage", "Foo", {"provmethod": "install"})
        await rows.put(conn, "linuximage", "Foo", {"template": str(template)})
    assert "run copycds" in (await (await admin.post("/v1/nodeset", json=INSTALL)).json())["hint"]
    put(top / "rhels5.4/x86_64", **{"images/pxeboot/vmlinuz": b"k", "images/pxeboot/initrd.img": b"i"})
    assert "post cannot be read" in await nodeset(admin, "n01", "osimage", "Foo")
    (template.parent / "post").symlink_to("/etc/passwd")
    assert "which is not beside it" in await nodeset(admin, "n01", "osimage", "Foo")
    (template.parent / "post").unlink()
    (template.parent / "post").write_text("curl -X POST #XCATVAR:LITHODONE#")
    app = web.Application(middlewares=[telling])
    OsFiles(desk.tasks).add_to(app)
    door = await aiohttp_client(app)
    answers = "/install/autoinst/n01"
    assert (await door.get(answers)).status == (await door.post(answers)).status == 404
    assert await nodeset(admin, "n01", "osimage", "Foo") == [("install rhels5.4-x86_64-foo", "")]
    assert {"node": "n01", "currstate": "install rhels5.4-x86_64-foo", "currchain": "boot"} in await desk.table("chain")
    booting = Booting(desk.tasks, Policy())
    script = await booting.script(MAC, peer="x")
    assert (
        "/install/rhels5.4/x86_64/images/pxeboot/vmlinuz initrd=initrd.img repo=http://c:3080/install/rhels5.4/x86_64 "
        in script
    )
    assert f"ks=http://c:3080{answers} " in script
    assert await (await door.get(answers)).text() == (
        "network --hostname n01\ncurl -X POST http://c:3080/install/autoinst/n01\n"
    )
    assert await status(desk) == "installing"
    assert (await door.post("/install/autoinst/n02")).status == (await door.post("/install/autoinst/-x")).status == 404
    assert (await door.post(answers)).status == 204
    assert (await desk.boot_state("n01"), await status(desk)) == ("boot", "installed")
    assert "n01 boots its own disk" in await booting.script(MAC, peer="x")
    assert (await door.get(answers)).status == 404


INSTALL = {"range": "n01", "state": "osimage", "image": "Foo"}


async def status(desk) -> str:
    return next(one["status"] for one in await desk.table("nodelist") if one["node"] == "n01")


def test_what_a_state_means():
    there = Facts(node="n01", provmethod="Foo")
    assert osboot.is_set(there, "netboot rhels5.4-x86_64-foo")
    assert osboot.is_set(there, "install rhels5.4-x86_64-foo")
    assert not osboot.is_set(there, "install image-x86-golden")
    assert not osboot.is_set(there, "boot")
    assert not osboot.is_set(Facts(node="n01"), "netboot rhels5.4-x86_64-foo")
    assert plan.Boot(node="n01", title="", files="", words=()).initrd_name == "initrd.img"
