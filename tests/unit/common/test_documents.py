"""The examples in the reference are what the code writes, byte by byte."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from litho import messages as m
from litho.job import Job
from litho.library import manifest as mf
from litho.library.manifest import FileRef, Manifest, Part
from litho.progress import Progress, StageRate

ROOT = Path(__file__).parents[3]
DISK = m.DiskFacts(
    path="/dev/sda", size=256060514304, serial="S4EWNX0M", model="SSD 860", by_path="pci-0000:00:17.0-ata-1"
)
COMMON = {"node": "n01", "session": "5f0c2a9e", "task": "t-17"}

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def event(seq: int, body: m.EventBody) -> m.EventReport:
    return m.EventReport(**COMMON, seq=seq, at=1795363200.0, body=body)


def command(body: m.Ack | m.Cancel | m.Stop | m.Finish) -> m.Command:
    return m.Command(session="5f0c2a9e", task="t-17", body=body)


WIRE: dict[str, m.Message] = {
    "claim": m.ClaimRequest(**COMMON, token="9b1c5d0e7f2a4863", inventory={"cpus": 8, "memory": 17179869184}),
    "order": m.Order(
        task="t-17",
        node="n01",
        site="default",
        job=Job(action="capture", image="golden"),
        library="nfs://10.0.0.1/images",
        engine="chunk",
        brokers=(m.Broker(host="10.0.0.1"),),
        username="n01.5f0c2a9e",
        password="only-for-this-claim",
    ),
    "problem": m.Problem(code="refused", message="the token of task t-17 has been used", hint="set the node again"),
    "status": m.Status(
        **{**COMMON, "online": True, "at": 1795363200.0},
        health=m.Health(
            cpu=63.5,
            load=2.1,
            memory=17179869184,
            available=15032385536,
            agent=94371840,
            disk="passed",
            disk_note="31 degrees Celsius",
        ),
    ),
    "will": m.Status(**{**COMMON, "online": False}),
    "progress": m.ProgressReport(
        **COMMON,
        n=21,
        progress=Progress(
            phase="partition",
            part=1,
            parts=3,
            done=420000000,
            total=1000000000,
            fraction=0.42,
            rate=105000000.0,
            eta_s=5.5,
            elapsed_s=4.0,
            stored=180000000,
            stages=(
                StageRate(name="disk read", rate=410000000.0, busy=0.26),
                StageRate(name="engine", rate=620000000.0, busy=0.17),
                StageRate(name="hash", rate=1500000000.0, busy=0.07),
                StageRate(name="compress", rate=380000000.0, busy=0.28),
                StageRate(name="library write", rate=46000000.0, busy=0.98),
            ),
        ),
        line="partimage-ng: partition 1 of 3, 42% complete",
    ),
    "planned": event(2, m.Planned(disk=DISK, steps=("layout", "sda1 ext4 by partclone", "publish"), total=1000000000)),
    "started": event(3, m.Started()),
    "succeeded": event(
        4,
        m.Succeeded(
            image="golden",
            version=2,
            used=1000000000,
            stored=430000000,
            seconds=9.6,
            disk=DISK,
            os=m.OsFacts(name="Linux", vers="debian12", distro="debian", arch="x86_64"),
            receipts=(m.Receipt(part=1, root=SHA, moved=730000000, right=270000000),),
        ),
    ),
    "failed": event(
        4,
        m.Failed(
            code="library-full",
            reason="the library /images is full: prune old versions",
            log="   0.2 s  run partclone.extfs -q -D -s /dev/sda1 -o -\n",
        ),
    ),
    "cancelled": event(4, m.Stopped(touched=True)),
    "ack": command(m.Ack(seq=3)),
    "cancel": command(m.Cancel()),
    "stop": command(m.Stop(reason="the task is held by another session")),
    "finish": command(m.Finish()),
}
MANIFEST = Manifest(
    image="golden",
    version=2,
    created="2026-11-22T16:00:00Z",
    software="lithograph 0.1.0",
    node="n01",
    task="t-17",
    disk=DISK,
    disk_name="sda",
    table="dos",
    table_dump=FileRef(file="golden.v2-sda.sfdisk", bytes=412, sha256=SHA),
    log=FileRef(file="golden.v2-job.log", bytes=8123, sha256=SHA),
    parts=(
        Part(
            number=1,
            kind="stream",
            start=1048576,
            size=2147483648,
            fs="ext4",
            uuid="6a0f1f6e-27ab-4ac8-9a8e-c6d1a6c42ad0",
            engine="partclone",
            engine_version="0.3.23",
            compression="zstd",
            data=FileRef(file="golden.v2-sda1.partclone.zst", bytes=430000000, sha256=SHA),
            used=1000000000,
            stream_bytes=1000400000,
            stream_sha256=SHA,
        ),
    ),
)


def examples(page: str) -> dict[str, str]:
    text = (ROOT / "docs" / "reference" / page).read_text()
    return dict(re.findall(r"<!-- example: (\S+) -->\n```json\n(.*?)\n```", text, re.DOTALL))


def shown(message: m.Message) -> str:
    return msgspec.json.format(m.encode(message), indent=2).decode()


def test_the_page_of_the_wire_has_every_message() -> None:
    assert set(examples("wire.md")) == set(WIRE)
    bodies = {type(message.body) for message in WIRE.values() if isinstance(message, m.EventReport | m.Command)}
    assert bodies >= {*m.EventBody.__args__, m.Ack, m.Cancel, m.Stop, m.Finish}


@pytest.mark.parametrize("name", WIRE)
def test_an_example_of_the_wire_is_what_the_code_sends_and_takes(name: str) -> None:
    example = examples("wire.md")[name]
    assert example == shown(WIRE[name])
    assert m.decode(json.dumps(json.loads(example)).encode(), type(WIRE[name])) == WIRE[name]


def test_the_example_of_a_manifest_is_what_the_code_writes_and_reads() -> None:
    example = examples("library.md")["manifest"]
    assert example == mf.dump(MANIFEST).decode().rstrip("\n")
    assert mf.parse(example.encode(), name="golden", version=2) == MANIFEST
