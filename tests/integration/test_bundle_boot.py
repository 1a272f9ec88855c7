"""From a bundle to a node that boots it: a controller that runs imports a real netboot image, a node is set to it, and all that
its boot loader would fetch is fetched."""

import gzip
import re
import subprocess
from pathlib import Path

import aiohttp

from litho_controller import api
from litho_controller.bundle.requests import ImportRequest
from support.bundles import NETBOOT, cpio_of, manifest, small_tree, tarball
from support.controller import Controller

MAC = "52:54:00:aa:00:01"


async def test_an_imported_netboot_image_is_booted_by_the_node_that_is_set_to_it(tmp_path: Path) -> None:
    install = tmp_path / "install"
    rootimg = cpio_of(small_tree(tmp_path / "tree"))
    files = {"rootimg.gz": rootimg, "initrd.gz": gzip.compress(b"initrd" * 9999), "kernel": bytes(range(256)) * 999}
    bundle = tarball(tmp_path / "net.tgz", ("manifest.cfg", manifest(**NETBOOT)), *files.items())
    async with Controller(tmp_path) as site, aiohttp.ClientSession() as http:
        assign = (api.Assign(column="site.value", value=str(install)),)
        await site.ask("edit_tables", api.TableEdit(keys={"key": "installdir"}, assign=assign))
        await site.ask("add_nodes", api.NodeAdd(range="n01", mac=MAC))
        lines = await site.ask("import_bundle", ImportRequest(tarball=str(bundle)))
        assert any(line.imported is not None for line in list(lines))
        (line,) = await site.nodeset("n01", "osimage", "Foo_Stateless")
        assert (line.text, line.error, line.task) == ("netboot rhels5.4-x86_64-foo", "", "")
        assert (await site.nodeset("n01", "stat"))[0].text == "netboot rhels5.4-x86_64-foo"
        assert await site.nodestat("n01") == "netboot rhels5.4-x86_64-foo"

        (url,) = re.findall(r"serves nodes at (http://[^ ]+) ", site.log.read_text())

        async def fetch(address: str, **headers: str) -> tuple[int, bytes]:
            async with http.get(address, headers=headers, auto_decompress=False) as answer:
                return answer.status, await answer.read()

        _, script = await fetch(f"{url}/boot/ipxe?mac={MAC}")
        home = f"{url}/install/netboot/rhels5.4/x86_64/foo"
        found = re.findall(r"http://[^ ]+/install/[^ ]+", script.decode())
        assert sorted(found) == [f"{home}/initrd.gz", f"{home}/kernel", f"{home}/rootimg.gz"]
        for address in found:
            data = files[address.rpartition("/")[2]]
            assert await fetch(address) == (200, data)
            assert await fetch(address, Range="bytes=5-20") == (206, data[5:21])
            assert await fetch(address, Range=f"bytes={len(data) + 1}-") == (416, b"")
        # The root image as the node unpacks it.
        _, data = await fetch(f"{home}/rootimg.gz")
        listed = subprocess.run(["cpio", "-t", "--quiet"], input=gzip.decompress(data), check=True, capture_output=True)  # noqa: ASYNC221
        assert b"etc/hostname" in listed.stdout
        for other in ("rootimg/etc/hostname", "initrd-stateless.gz", "rootimg"):
            assert (await fetch(f"{home}/{other}"))[0] in (400, 404), other

        # It is what the node boots after the controller has started anew, and until it is set to its disk.
        await site.kill()
        await site.start()
        (url,) = re.findall(r"serves nodes at (http://[^ ]+) ", site.log.read_text())[-1:]
        _, script = await fetch(f"{url}/boot/ipxe?mac={MAC}")
        assert b"imgurl=" in script and f"{url}/install/".encode() in script
        await site.nodeset("n01", "boot")
        _, script = await fetch(f"{url}/boot/ipxe?mac={MAC}")
        assert b"n01 boots its own disk" in script
