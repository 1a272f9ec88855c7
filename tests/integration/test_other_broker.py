"""A mosquitto that is the site's, with accounts, access rules and TLS: the controller and an agent meet in it."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from litho import process
from litho_agent.report.mqtt import MqttReporter
from support.controller import Agent, Controller, until
from support.desk import DONE, PLANNED, STARTED
from support.nodebench import Mosquitto

PAGE = Path(__file__).parents[2] / "docs/reference/configuration.md"


def certificates(folder):
    """An authority, and a broker's certificate for 127.0.0.1 that it signed."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca = ["-x509", "-subj", "/CN=site", "-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-days", "2"]
    process.run(["openssl", "req", *key, *ca])
    process.run(["openssl", "req", *key, "-subj", "/CN=mq", "-keyout", folder / "mq.key", "-out", folder / "mq.csr"])
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ["-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial", "-extfile", folder / "ext"]
    process.run(["openssl", "x509", "-req", "-in", folder / "mq.csr", "-out", folder / "mq.pem", "-days", "2", *signed])


def rules():
    """The access rules of the page, for the site `default`."""
    found = re.search(r"(?ms)^    user litho\n.*?^    topic read \S+/command\n", PAGE.read_text())
    return re.sub(r"(?m)^    ", "", found[0]).replace("SITE", "default")


class SiteBroker(Mosquitto):
    """With the two accounts, the page's rules, and TLS."""

    async def start(self):
        certificates(self._folder)
        users, acl, config = (self._folder / name for name in ("users", "acl", "mosquitto.conf"))
        users.touch(mode=0o600)
        for user in ("litho", "nodes"):
            process.run(["/usr/bin/mosquitto_passwd", "-b", users, user, f"{user}:pass"])
            (self._folder / f"{user}.login").write_text(f"{user}:{user}:pass\n")
        acl.write_text(rules())
        acl.chmod(0o600)
        config.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nallow_anonymous false\npassword_file {users}\nacl_file {acl}\n"
            f"certfile {self._folder}/mq.pem\nkeyfile {self._folder}/mq.key\n"
        )
        self._child = await process.start_async(["mosquitto", "-c", config])

        async def listens():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return True
            return False

        await until(listens, within_s=60)


@pytest.fixture
async def site(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    async with SiteBroker(folder) as broker:
        settings = {
            "embedded": False,
            "host": "127.0.0.1",
            "port": broker.port,
            "login": f"{folder}/litho.login",
            "node_login": f"{folder}/nodes.login",
            "ca": f"{folder}/ca.pem",
        }
        async with Controller(tmp_path, broker=settings) as controller:
            yield controller


async def test_a_task_goes_its_way_through_the_sites_own_broker_with_accounts_and_tls(site):
    await site.define("n01")
    [line] = await site.nodeset("n01", "image", "golden")
    agent = Agent(site, "n01")
    order = await agent.claim()
    assert (order.username, order.password) == ("nodes", "nodes:pass")
    assert order.brokers[0].ca == (site.folder / "broker/ca.pem").read_text()
    wire = MqttReporter(order, agent.session, obey=lambda command: None)
    running = asyncio.create_task(wire.run())
    for news in (PLANNED, STARTED, DONE):
        wire.hear(news)
    await asyncio.wait_for(wire.acknowledged(), 60)
    wire.close()
    await running
    assert (await site.reaches(line.task, "succeeded", within_s=60)).version == 1
    assert "nodes:pass" not in site.log.read_text() and "litho:pass" not in site.log.read_text()
